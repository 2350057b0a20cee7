"""Real files in real runtimes over SSH on loopback: the same bits as without it; and OpenSSH's own server."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import known_worker
import numpy as np
import openssh_server
import pytest
from broken_workers import broken, ended
from openssh_server import OpenSshServer
from ssh_server import SshServer
from tiny_hybrid import SavedProgram

from targets import registry
from targets.devices.ssh.device import SshDevice, SshWorker
from targets.types import TargetError, Unavailable
from targets.worker.host import HostWorker

FILES = {"tflite": "litert", "executorch": "executorch"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with SshServer(tmp_path_factory.mktemp("ssh")) as one:
        yield one


@pytest.fixture(scope="module")
def files(programs: dict[str, SavedProgram], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Target -> an int8 file of the tiny network."""
    folder, program = tmp_path_factory.mktemp("files"), programs["int8"]
    paths = {target: folder / f"int8{registry.get(target).suffix}" for target in FILES}
    with HostWorker(300) as worker:
        for target, path in paths.items():
            worker.convert(target, program.path, program.sha256, "int8", path)
    return paths


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    """[12, 3, 32, 32], float32: handwritten digits at the tiny network's size."""
    from sklearn.datasets import load_digits

    pixels = load_digits().images[:12].astype(np.float32) / 8 - 1  # [12, 8, 8]
    return np.repeat(np.kron(pixels, np.ones((4, 4), np.float32))[:, None], 3, axis=1)


@pytest.mark.parametrize("target", FILES)
def test_a_run_over_ssh_equals_the_local_run_bit_for_bit(
    target: str, server: SshServer, files: dict[str, Path], digits: np.ndarray
) -> None:
    with HostWorker(120) as worker:
        here = worker.open(target, files[target], FILES[target], 1).infer(digits)
    with SshWorker(server.address(), server.options(120), print) as worker:
        session = worker.open(target, files[target], FILES[target], 1)
        there = np.concatenate([session.infer(digits[:5]), session.infer(digits[5:])])
        samples = session.samples(digits, 7)
        assert session.load_ms is not None
        assert session.load_ms > 0
    assert there.dtype == here.dtype
    assert there.tobytes() == here.tobytes()
    assert len(np.unique(here, axis=0)) > 6  # the logits tell digits apart, so equal ones are no accident
    assert len(samples.wall_ms) == 7
    assert min(samples.wall_ms) > 0
    assert samples.cpu_ms is not None


def test_a_damaged_file_and_a_runtime_that_is_not_there_are_told_as_on_this_machine(
    server: SshServer, files: dict[str, Path], tmp_path: Path, digits: np.ndarray
) -> None:
    damaged = tmp_path / "int8.tflite"
    damaged.write_bytes(files["tflite"].read_bytes()[:2000])
    (tmp_path / "m.mlpackage").mkdir()
    with SshWorker(server.address(), server.options(120), print) as worker:
        with pytest.raises(TargetError, match="refuses") as error:
            worker.open("tflite", damaged, "litert", 1)
        assert error.value.stage == "load"
        with pytest.raises(Unavailable, match="no Core ML runtime on linux"):
            worker.open("coreml", tmp_path / "m.mlpackage", registry.runtimes("coreml")[0], 1)
        assert worker.open("tflite", files["tflite"], "litert", 1).infer(digits).shape == (12, 5)


@pytest.mark.skipif(bool(openssh_server.missing()), reason=openssh_server.missing() or "there")
def test_openssh_runs_the_same_worker_and_tells_its_end(tmp_path: Path) -> None:
    content, images = bytes(range(7, 99)), np.arange(96, dtype=np.float32).reshape(2, 3, 4, 4)
    path = tmp_path / "a.tflite"
    path.write_bytes(content)
    with OpenSshServer(tmp_path / "sshd") as server:
        options = server.options(python=sys.executable)
        with SshWorker(server.address(), options, print, known_worker.COMMAND) as worker:
            session = worker.open("known", path, "known", 1)
            assert np.array_equal(session.infer(images), known_worker.logits(content, images))
            large = np.zeros((40, 3, 224, 224), np.float32)  # 24 MB
            assert session.infer(large).shape == (40, 4)
            pid = worker.hello()["pid"]
            os.kill(pid, signal.SIGSEGV)
            with pytest.raises(TargetError, match="the runtime aborted: signal SIGSEGV"):
                session.infer(images)
        ending = SshWorker(server.address(), options, print, broken("sys.exit(3)"))
        with ending as worker, pytest.raises(TargetError, match="ended with status 3"):
            worker.hello()
        with SshWorker(server.address(), options, print, known_worker.COMMAND) as worker:
            pid = worker.hello()["pid"]
            os.kill(pid, signal.SIGSTOP)
            worker.timeout_s = 0.2
            with pytest.raises(TargetError, match=r"no answer within 0\.2 s"):
                worker.hello()
            assert ended(pid)
        device = SshDevice(server.address(), options, print)
        assert device.conditions().load_1min is not None
        device.close()
        assert not list((server.home / ".cache/edge-t2t/tmp").iterdir())
        assert not list((server.home / ".cache/edge-t2t/files").glob(".part-*"))
