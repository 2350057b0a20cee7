"""The parent's side of a worker on this machine: calls in, results or TargetErrors out, whatever the worker does."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, cast

import numpy as np

from targets import wire
from targets.types import (
    Artifact,
    GraphFacts,
    PackageOptions,
    Precision,
    Probe,
    QuantizedTensor,
    RangeEvent,
    Samples,
    Stage,
    TargetError,
    Unavailable,
)
from targets.wire import Message

# Conversion of a large model is the longest request; minutes on a slow machine.
TIMEOUT_S = 1800.0
# How long a worker that was asked to end, or whose pipe closed, may take before it is killed.
EXIT_GRACE_S = 10.0
STDERR_TAIL_LINES = 6
STDERR_TAIL_CHARS = 800

_SOURCE_ROOT = Path(__file__).resolve().parents[2]


class HostWorker:
    """A worker process on this machine, as a context manager.

    Several sessions can be open in it at once. A worker that crashed or ran out of time is gone: every later call
    raises TargetError, and the caller starts a new one.

    Args:
        timeout_s: for each request.
        command: the program that speaks the protocol; `python -m targets.worker` if None.
    """

    def __init__(self, timeout_s: float = TIMEOUT_S, command: Sequence[str] | None = None):
        self.timeout_s = timeout_s
        # -P: the current folder must not shadow modules of the worker.
        self._command = list(command) if command else [sys.executable, "-P", "-m", "targets.worker"]
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr: BinaryIO | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._end: str | None = None  # why there is no worker any more
        self._lock = threading.Lock()

    def __enter__(self) -> HostWorker:
        path = os.pathsep.join(filter(None, (str(_SOURCE_ROOT), os.environ.get("PYTHONPATH"))))
        self._stderr = cast(BinaryIO, tempfile.TemporaryFile(prefix="worker-stderr-"))
        # The worker ends without its exit handlers: what its SDKs leave in the temporary folder is removed here.
        self._folder = tempfile.TemporaryDirectory(prefix="worker-", ignore_cleanup_errors=True)
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env={**os.environ, "PYTHONPATH": path, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), self._folder.name)},
            start_new_session=True,  # its own group: Ctrl-C is ours, and a kill reaches its children too
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process, self._process = self._process, None
        if process is not None:
            _finish(process, politely=error is None)
        if self._stderr is not None:
            self._stderr.close()
        if self._folder is not None:
            self._folder.cleanup()

    def hello(self) -> Message:
        """pid, usable CPUs, machine and versions of the worker."""
        return self._call("probe", {"op": "hello"})[0]

    def probe(self, target: str) -> Probe:
        """What `target` can do in the worker."""
        return wire.decode_probe(self._call("probe", {"op": "probe", "target": target})[0])

    def convert(
        self,
        target: str,
        program: Path,
        sha256: str,
        precision: Precision,
        output: Path,
        metadata: Mapping[str, str] | None = None,
        options: PackageOptions | None = None,
    ) -> Artifact:
        """Convert the `.pt2` at `program`, whose digest must be `sha256`, into `output`."""
        reply, _ = self._call(
            "convert",
            {
                "op": "convert",
                "target": target,
                "program": str(program.resolve()),
                "sha256": sha256,
                "precision": precision,
                "output": str(output.resolve()),
                "metadata": dict(metadata or {}),
                "options": wire.encode_options(options or PackageOptions()),
            },
        )
        return Artifact(target, precision, Path(reply["path"]))

    def inspect(self, target: str, path: Path) -> GraphFacts:
        """Facts read from the file at `path`."""
        reply, _ = self._call("inspect", {"op": "inspect", "target": target, "path": str(path.resolve())})
        return wire.decode_facts({key: value for key, value in reply.items() if key != "ok"})

    def open(self, target: str, path: Path, runtime: str, threads: int) -> RemoteSession:
        """Load the file at `path`; a targets.types.Session whose work happens in the worker."""
        request = {
            "op": "open",
            "target": target,
            "path": str(path.resolve()),
            "runtime": runtime,
            "threads": threads,
        }
        return RemoteSession(self, self._call("load", request)[0]["session"])

    def _call(
        self, stage: Stage, request: Message, batch: np.ndarray | None = None
    ) -> tuple[Message, np.ndarray | None]:
        """Send one request and wait for its reply; `stage` is where a crash is put down to."""
        with self._lock:
            process = self._process
            if process is None or self._end is not None:
                raise TargetError(stage, self._end or "the worker is not running: use HostWorker in a `with` block")
            assert process.stdin is not None
            assert process.stdout is not None
            timed_out = threading.Event()
            watchdog = threading.Timer(self.timeout_s, _give_up, (process, timed_out))
            watchdog.daemon = True
            watchdog.start()
            try:
                wire.write_message(cast(BinaryIO, process.stdin), request, batch)
                answer = wire.read_message(cast(BinaryIO, process.stdout))
            except (OSError, wire.ProtocolError):
                answer = None
            except BaseException:  # Ctrl-C: the reply would be taken for that of the next request
                self._end = "the worker was killed, because a request to it was interrupted"
                _kill(process)
                raise
            finally:
                watchdog.cancel()
            if answer is None or timed_out.is_set():
                self._end = self._describe_end(process, timed_out.is_set())
                raise TargetError(stage, self._end)
        reply, array = answer
        if not reply["ok"]:
            raise (Unavailable if reply["unavailable"] else TargetError)(reply["stage"], reply["cause"])
        return reply, array

    def _describe_end(self, process: subprocess.Popen[bytes], timed_out: bool) -> str:
        """Wait for the worker's end and say what happened, with the last lines of its standard error."""
        try:
            status = process.wait(EXIT_GRACE_S)
        except subprocess.TimeoutExpired:
            _kill(process)
            status = process.wait()
        if timed_out:
            cause = f"no answer within {self.timeout_s:g} s, the worker was killed"
        elif status < 0:
            cause = f"the runtime aborted: signal {signal.Signals(-status).name}"
        else:
            cause = f"the worker ended with status {status}"
        return f"{cause}; last lines of its stderr: {self._stderr_tail()}"

    def _stderr_tail(self) -> str:
        assert self._stderr is not None
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - 4 * STDERR_TAIL_CHARS))
        text = self._stderr.read().decode(errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()][-STDERR_TAIL_LINES:]
        return " | ".join(lines)[-STDERR_TAIL_CHARS:] or "(empty)"


class RemoteSession:
    """A targets.types.Session in a worker."""

    def __init__(self, worker: HostWorker, number: int):
        self._worker = worker
        self._number = number

    def infer(self, batch: np.ndarray) -> np.ndarray:
        """One request for the whole batch: pass 16 or so images at a time to be able to show progress."""
        _, logits = self._worker._call("run", {"op": "infer", "session": self._number}, batch)
        assert logits is not None
        return logits

    def time(self, batch: np.ndarray, n: int) -> list[float]:
        return self.samples(batch, n).wall_ms

    def samples(self, batch: np.ndarray, n: int) -> Samples:
        """As `time`, with the processor time of the same calls where the runtime computes in the worker."""
        reply, _ = self._worker._call("run", {"op": "time", "session": self._number, "n": n}, batch)
        cpu_ms = reply.get("cpu_ms")
        wall_ms = [float(sample) for sample in reply["samples_ms"]]
        return Samples(wall_ms, None if cpu_ms is None else [float(sample) for sample in cpu_ms])

    def range_events(self) -> tuple[RangeEvent, ...] | None:
        """What the session counted so far; None where the runtime does not tell."""
        reply, _ = self._worker._call("run", {"op": "range_events", "session": self._number})
        return None if reply["events"] is None else tuple(RangeEvent(**event) for event in reply["events"])

    def quantized_tensors(self, image: np.ndarray) -> tuple[QuantizedTensor, ...] | None:
        """The int8 tensors inside of the artifact for one image [1, 3, H, W]; None where the runtime shows none."""
        request = {"op": "quantized_tensors", "session": self._number}
        reply, values = self._worker._call("run", request, image)
        return None if reply["tensors"] is None or values is None else wire.decode_tensors(reply, values)

    def close(self) -> None:
        self._worker._call("run", {"op": "close", "session": self._number})


def _finish(process: subprocess.Popen[bytes], politely: bool) -> None:
    """Let the worker end by closing its input, or kill it."""
    if not politely:
        _kill(process)
    for stream in (process.stdin, process.stdout):
        try:
            if stream is not None:
                stream.close()
        except OSError:  # unsent bytes of a broken pipe
            pass
    try:
        process.wait(EXIT_GRACE_S)
    except subprocess.TimeoutExpired:
        _kill(process)
        process.wait()


def _give_up(process: subprocess.Popen[bytes], timed_out: threading.Event) -> None:
    timed_out.set()
    _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the worker's process group, and nothing if the worker was already reaped."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
