"""Workers that run on this machine: started as child processes, and killed with their children."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, cast

from targets.worker.client import EXIT_GRACE_S, TIMEOUT_S, WorkerClient

STDERR_TAIL_LINES = 6
STDERR_TAIL_CHARS = 800

SOURCE_ROOT = Path(__file__).resolve().parents[2]


class HostWorker(WorkerClient):
    """A worker process on this machine, as a context manager.

    Args:
        timeout_s: for each request.
        command: the program that speaks the protocol; `python -m targets.worker` if None.
        environment: added to this process's own for it.
        cpus: cores that its runtimes use; empty: as the system likes.
    """

    def __init__(
        self,
        timeout_s: float = TIMEOUT_S,
        command: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
        cpus: Sequence[int] = (),
    ):
        super().__init__(timeout_s, cpus)
        # -P: the current folder must not shadow modules of the worker.
        self._command = list(command) if command else [sys.executable, "-P", "-m", "targets.worker"]
        self._environment = dict(environment or {})

    def _start(self) -> ProcessLink:
        path = os.pathsep.join(filter(None, (str(SOURCE_ROOT), os.environ.get("PYTHONPATH"))))
        return ProcessLink(self._command, {"PYTHONPATH": path, **self._environment})


class ProcessLink:
    """A process of this machine and its streams, a targets.worker.client.Link.

    Args:
        environment: added to this process's own.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]):
        self._stderr = cast(BinaryIO, tempfile.TemporaryFile(prefix="worker-stderr-"))  # noqa: SIM115  closed by finish
        # The worker ends without its exit handlers: what its SDKs leave in the temporary folder is removed here.
        self._folder = tempfile.TemporaryDirectory(prefix="worker-", ignore_cleanup_errors=True)
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env={**os.environ, **environment, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), self._folder.name)},
            start_new_session=True,  # its own group: Ctrl-C is ours, and a kill reaches its children too
        )
        self.requests = cast(BinaryIO, self._process.stdin)
        self.replies = cast(BinaryIO, self._process.stdout)

    def kill(self) -> None:
        """Kill the process group, and nothing if the worker was already reaped."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def how_it_ended(self) -> str:
        self._wait()
        status = self._process.returncode
        if status < 0:
            return f"the runtime aborted: signal {signal.Signals(-status).name}"
        return f"the worker ended with status {status}"

    def last_words(self) -> str:
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - 4 * STDERR_TAIL_CHARS))
        return tail(self._stderr.read().decode(errors="replace"))

    def finish(self, politely: bool) -> None:
        if not politely:
            self.kill()
        for stream in (self.requests, self.replies):
            with contextlib.suppress(OSError):  # unsent bytes of a broken pipe
                stream.close()
        self._wait()
        self._stderr.close()
        self._folder.cleanup()

    def _wait(self) -> None:
        try:
            self._process.wait(EXIT_GRACE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()


def run(
    command: Sequence[str], timeout_s: float, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A program to its end, without input, in a process group of its own; `environment` is added to this process's.

    The group is killed on any exception: Ctrl-C does not reach it, and a program may have started others.

    Raises:
        OSError, subprocess.TimeoutExpired: it does not start, or not end.
    """
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, **(environment or {})},
        start_new_session=True,
    ) as process:
        try:
            output, said = process.communicate(timeout=timeout_s)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
    return subprocess.CompletedProcess(command, process.returncode, output, said)


def tail(text: str) -> str:
    """The last lines of `text` in one line; "(empty)" where there are none."""
    lines = [line.strip() for line in text.splitlines() if line.strip()][-STDERR_TAIL_LINES:]
    return " | ".join(lines)[-STDERR_TAIL_CHARS:] or "(empty)"
