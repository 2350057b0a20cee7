"""Emulated Arm beside this host: the same answers, exact counts, and a processor that is wrong refused.

The folder is prepared in the user's cache where Debian and PyPI can be reached, which takes some 20 s once.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from targets.devices.address import Address
from targets.devices.arm64 import device as arm64
from targets.devices.arm64 import setup
from targets.devices.arm64.device import Arm64Device
from targets.devices.arm64.emulation import Arm64Worker, Emulation, known_files
from targets.devices.device import DeviceOptions
from targets.types import TargetError, Unavailable
from targets.worker.host import HostWorker, ProcessLink


@pytest.fixture(scope="module")
def emulation() -> Emulation:
    try:
        return Emulation(setup.prepare(print))
    except Unavailable as error:
        pytest.skip(error.cause)


@pytest.fixture(scope="module")
def device(emulation: Emulation) -> Arm64Device:
    return Arm64Device(Address("qemu-arm64"), DeviceOptions())


def known_file(kind: str) -> tuple[Path, np.ndarray]:
    (known,) = (known for known in known_files() if known.kind == kind)
    return known.path, known.images


def test_facts_say_what_is_emulated(device: Arm64Device) -> None:
    facts = device.facts()
    assert facts.emulated
    assert not device.times
    assert facts.system.startswith("Linux aarch64 under qemu ")
    assert facts.system.endswith("(cortex-a76)")
    assert facts.runtimes["tflite litert"].available
    assert facts.versions["ai-edge-litert"] == setup.wheels()["ai-edge-litert"]
    assert device.conditions().load_1min is None


def test_files_give_the_hosts_answers(device: Arm64Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this shell's settings are."""
    monkeypatch.setenv("QEMU_CPU", "max")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/nowhere")
    with HostWorker() as here, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(np.__file__).parents[1]))  # modules of another processor
        with device.worker() as there:
            assert there.hello()["machine"] == "aarch64"
            for kind in ("int8", "int8 weight", "float32"):
                path, images = known_file(kind)
                images = np.random.default_rng(0).standard_normal((100, *images.shape[1:]), np.float32)
                session = there.open("tflite", path, "litert", 1)
                arm, host = session.infer(images), here.open("tflite", path, "litert", 1).infer(images)
                assert session.load_ms is not None
                assert np.array_equal(there.open("tflite", path, "litert", 2).infer(images[:4]), arm[:4])
                assert (arm.argmax(-1) == host.argmax(-1)).all()
                # Integers are the same on every processor; sums of floats come in another order.
                tolerance = 0 if kind == "int8" else 1e-5 * np.abs(host).max()
                assert np.abs(arm - host).max() <= tolerance


def test_wrong_processors_are_refused(emulation: Emulation) -> None:
    """QEMU's own default, and one without the instructions that the folder announces."""
    if not (emulation.folder / "qemu").is_dir():
        pytest.skip("another QEMU than the one whose default is known to be wrong")
    for cpu, message in (
        ("max", "the emulated max computes wrong int8 products: .* nothing is run"),
        ("cortex-a72", "SIGILL"),
    ):
        with pytest.raises(TargetError, match=message) as error, Arm64Worker(replace(emulation, cpu=cpu)):
            pytest.fail(f"{cpu} was taken")
        assert error.value.stage == "device"


def test_instructions_are_counted_exactly(emulation: Emulation) -> None:
    """int8: 115,200 products, of which the dot product instruction does 16 at once; int8 weight: 10,240."""
    path, images = known_file("int8")
    many = arm64.count(emulation, "tflite", path, "litert", images, 600, repeats=2)
    assert (many.repeats, many.spread) == (2, 0)
    assert many.counted_by.endswith(" cortex-a76")
    path, images = known_file("int8 weight")
    few = arm64.count(emulation, "tflite", path, "litert", images, 600, repeats=1)
    products = 115_200 - 10_240  # Python's part of an inference is in both
    assert products / 16 < many.per_inference - few.per_inference < products


def test_a_file_that_does_not_load_has_no_count(device: Arm64Device, tmp_path: Path) -> None:
    (tmp_path / "broken.tflite").write_bytes(b"no model")
    with pytest.raises(TargetError, match=r"litert refuses broken\.tflite") as error:
        device.count_instructions("tflite", tmp_path / "broken.tflite", "litert", np.zeros((1, 3, 8, 8), np.float32))
    assert error.value.stage == "load"


class ActsBeforeItReads:
    """A stream of replies; `act` is called when the reply is waited for, so that the request is with the worker."""

    def __init__(self, replies: BinaryIO, act: Callable[[], None]):
        self._replies, self._act = replies, act

    def readline(self, size: int) -> bytes:
        self._act()
        return self._replies.readline(size)

    def close(self) -> None:
        self._replies.close()


@pytest.mark.parametrize(
    ("fault", "message"), [(signal.SIGKILL, "signal SIGKILL"), (signal.SIGSTOP, "no answer within")]
)
def test_an_emulator_that_is_killed_or_stopped_gives_no_result(
    fault: signal.Signals, message: str, emulation: Emulation
) -> None:
    path, images = known_file("int8")
    with Arm64Worker(emulation) as worker:
        link = worker._link
        assert isinstance(link, ProcessLink)
        session = worker.open("tflite", path, "litert", 1)
        os.kill(link._process.pid, signal.SIGSTOP)  # so that no reply can be faster than the fault
        link.replies = ActsBeforeItReads(link.replies, lambda: os.kill(link._process.pid, fault))  # type: ignore[assignment]
        worker.timeout_s = 0.2 if fault == signal.SIGSTOP else worker.timeout_s
        with pytest.raises(TargetError, match=message) as error:
            session.infer(images)
    assert error.value.stage == "run"
