"""Worker processes that crash, hang, print or lie: the parent gets one clear error and goes on."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from broken_workers import broken, ended, gone, hanging, started

from targets.types import TargetError
from targets.worker.host import HostWorker, ProcessLink, run


def test_a_real_worker_says_who_it_is_and_ends() -> None:
    with HostWorker() as worker:
        hello = worker.hello()
        assert hello["pid"] != os.getpid()
        assert hello["cpus"] >= 1
    assert gone(hello["pid"])
    with pytest.raises(TargetError, match="is not running"):
        worker.hello()


def test_a_wrong_request_is_answered_and_the_worker_lives_on(tmp_path: Path) -> None:
    with HostWorker() as worker:
        with pytest.raises(TargetError, match="unknown target 'tflight'; did you mean 'tflite'") as error:
            worker.inspect("tflight", tmp_path)
        assert error.value.stage == "inspect"
        with pytest.raises(TargetError, match="no operation 'fly'"):
            worker._call("fly")
        with pytest.raises(TargetError, match="no open session 5"):
            worker._call("infer", np.zeros(1), session=5)
        program = tmp_path / "qdq.pt2"
        program.write_bytes(b"changed")
        with pytest.raises(TargetError, match=r"qdq\.pt2 has sha256 .* not the 0000"):
            worker.convert("tflite", program, "0" * 64, "int8", tmp_path / "x.tflite")
        assert worker.hello()["pid"]


def test_an_abort_is_told_with_its_signal_and_last_words() -> None:
    with HostWorker(command=broken("print('F 0000 check failed', file=sys.stderr, flush=True)\nos.abort()")) as worker:
        with pytest.raises(TargetError, match=r"the runtime aborted: signal SIGABRT.*check failed") as error:
            worker.hello()
        assert error.value.stage == "probe"
        with pytest.raises(TargetError, match="SIGABRT"):  # later calls say why there is no worker
            worker.probe("tflite")


def test_a_worker_that_just_ends_is_told_with_its_status() -> None:
    with HostWorker(command=broken("sys.exit(3)")) as worker, pytest.raises(TargetError, match="ended with status 3"):
        worker.hello()


def test_a_worker_that_prints_on_the_protocol_is_no_reply() -> None:
    command = broken("print('INFO: delegate created', flush=True)")
    with HostWorker(command=command) as worker, pytest.raises(TargetError, match="ended with status 0"):
        worker.hello()


def test_a_worker_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with HostWorker(0.2, hanging(pids)) as worker:
        worker_pid, child = started(pids)
        with pytest.raises(TargetError, match=r"no answer within 0\.2 s"):
            worker.hello()
    assert gone(worker_pid)
    assert ended(child)


def test_an_error_of_ours_ends_the_worker_too() -> None:
    worker = HostWorker()

    def fail() -> None:
        with worker:
            pids.append(worker.hello()["pid"])
            raise KeyError("ours")

    pids: list[int] = []
    with pytest.raises(KeyError):
        fail()
    assert gone(pids[0])


def test_cores_that_are_not_there_leave_no_worker_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    links: list[ProcessLink] = []
    start = HostWorker._start
    monkeypatch.setattr(HostWorker, "_start", lambda self: links.append(start(self)) or links[-1])
    with pytest.raises(TargetError, match="no core 4096"):
        HostWorker(cpus=(4096,)).__enter__()
    (link,) = links
    assert link._process.returncode is not None
    assert link.requests.closed


@pytest.mark.parametrize("ending", ["without exit handlers", "by an abort"])
def test_what_a_worker_leaves_in_its_temporary_folder_is_removed(ending: str, tmp_path: Path) -> None:
    where = tmp_path / "where"
    leave = (
        f"import pathlib, tempfile\npathlib.Path({str(where)!r}).write_text(tempfile.mkdtemp(suffix='.mlpackage'))\n"
    )
    with HostWorker(
        command=broken(leave + "os._exit(0)" if ending == "without exit handlers" else leave + "os.abort()")
    ) as worker:
        with pytest.raises(TargetError):
            worker.hello()
        left = Path(where.read_text())
        assert left.is_dir()
    assert not left.exists()
    assert not left.parent.exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), subprocess.TimeoutExpired("sh", 1.0)], ids=["ctrl-c", "late"])
def test_a_program_that_is_interrupted_ends_with_what_it_started(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive = tmp_path / "alive"
    os.mkfifo(alive)
    seen: list[tuple[subprocess.Popen[str], BinaryIO]] = []

    def interrupted(process: subprocess.Popen[str], *_: object, **__: object) -> None:
        lines = alive.open("rb")
        seen.append((process, lines))
        assert lines.readline() == b"started\n"
        raise error

    monkeypatch.setattr(subprocess.Popen, "communicate", interrupted)
    with pytest.raises(type(error)):
        run(["sh", "-c", f"(echo started; sleep 60; echo left alone) > {alive} & wait"], 60)
    ((process, lines),) = seen
    with lines:
        assert lines.read() == b""  # ends once no process is left that could write
    assert process.returncode == -signal.SIGKILL
