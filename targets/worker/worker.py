"""The worker process: reads requests from standard input, does what they ask, and writes replies to standard output.

Converters and runtimes run in it, so that a crash of their native code ends this process and not the command that
started it (targets.worker.client). Messages and operations are those of targets.worker.wire: every request has an
"op"; the reply has "ok": true and the results, or "ok": false with "stage", "cause" and "unavailable". What native code
prints to standard output goes to standard error. The worker ends when its input ends, also in the middle of a request.
"""

from __future__ import annotations

import hashlib
import os
import platform
import queue
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

import numpy as np

from targets import registry
from targets.codec import from_dict
from targets.types import ConvertRequest, PackageOptions, Session, TargetError, Unavailable
from targets.worker import readings, wire
from targets.worker.readings import linux, memory
from targets.worker.wire import Message

Reply = tuple[Message, np.ndarray | None]


class Worker:
    """Answers requests, one at a time; keeps the open sessions."""

    def __init__(self) -> None:
        self._sessions: dict[int, Session] = {}
        self._opened = 0
        self._idle_bytes: int | None = None

    def answer(self, request: Message, batch: np.ndarray | None) -> Reply:
        """The reply to one request; errors become replies too."""
        op = request.get("op")
        if op not in wire.OPERATIONS:
            known = ", ".join((*wire.OPERATIONS, "quit"))
            return _failure(TargetError("run", f"the worker knows no operation {op!r} (known: {known})"))
        try:
            message, array = getattr(self, op)(request, batch)
        except TargetError as error:
            return _failure(error)
        except (Exception, SystemExit) as error:  # one request may fail alone, whatever an SDK raises
            return _failure(TargetError(wire.OPERATIONS[op], f"{type(error).__name__}: {error}"))
        return {"ok": True, **message}, array

    def hello(self, request: Message, batch: np.ndarray | None) -> Reply:
        versions = {"python": platform.python_version(), "numpy": np.__version__}
        return {
            "pid": os.getpid(),
            "cpus": linux.cores() or 1,
            "machine": platform.machine(),
            "versions": versions,
        }, None

    def facts(self, request: Message, batch: np.ndarray | None) -> Reply:
        return {"facts": asdict(readings.facts())}, None

    def conditions(self, request: Message, batch: np.ndarray | None) -> Reply:
        return {"conditions": asdict(readings.conditions())}, None

    def bind(self, request: Message, batch: np.ndarray | None) -> Reply:
        readings.bind(request["cpus"])
        return {}, None

    def probe(self, request: Message, batch: np.ndarray | None) -> Reply:
        return {"probe": asdict(registry.get(request["target"]).probe())}, None

    def convert(self, request: Message, batch: np.ndarray | None) -> Reply:
        program = Path(request["program"])
        with program.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != request["sha256"]:
            raise TargetError(
                "convert",
                f"{program.name} has sha256 {found[:12]}..., not the {request['sha256'][:12]}... that was asked for: "
                "the file was changed since it was recorded; write it again",
            )
        from targets.program import load_program

        registry.get(request["target"]).convert(
            ConvertRequest(
                load_program(program),
                request["precision"],
                Path(request["output"]),
                request["metadata"],
                from_dict(PackageOptions, request["options"]),
            )
        )
        return {}, None

    def inspect(self, request: Message, batch: np.ndarray | None) -> Reply:
        return {"facts": asdict(registry.get(request["target"]).inspect(Path(request["path"])))}, None

    def plan(self, request: Message, batch: np.ndarray | None) -> Reply:
        plan = registry.get(request["target"]).plan
        if plan is None:
            raise TargetError("load", f"the framework of {request['target']} cannot be asked for a compute plan")
        return {"plan": asdict(plan(Path(request["path"]), request["compute_units"]))}, None

    def open(self, request: Message, batch: np.ndarray | None) -> Reply:
        target = registry.get(request["target"])
        if not self._opened:
            target.cannot_run(request["runtime"])  # imports the runtime, which is no part of what the file takes
            self._idle_bytes = memory.mark()
        session = target.load(Path(request["path"]), request["runtime"], request["threads"])
        self._opened += 1
        self._sessions[self._opened] = session
        return {"session": self._opened, "load_ms": session.load_ms}, None

    def infer(self, request: Message, batch: np.ndarray | None) -> Reply:
        if "images" in request:  # brought here before, by hash
            batch = np.load(request["images"], allow_pickle=False)
        return {}, self._session(request).infer(_required(batch))

    def time(self, request: Message, batch: np.ndarray | None) -> Reply:
        samples = self._session(request).samples(_required(batch), request["n"])
        return {"samples": asdict(samples)}, None

    def peak_bytes(self, request: Message, batch: np.ndarray | None) -> Reply:
        self._session(request).infer(_required(batch))
        return {"peak_bytes": memory.above(self._idle_bytes) if self._opened == 1 else None}, None

    def range_events(self, request: Message, batch: np.ndarray | None) -> Reply:
        events = self._session(request).range_events()
        return {"events": None if events is None else [asdict(event) for event in events]}, None

    def quantized_tensors(self, request: Message, batch: np.ndarray | None) -> Reply:
        tensors = self._session(request).quantized_tensors(_required(batch))
        return ({"tensors": None}, None) if tensors is None else wire.encode_tensors(tensors)

    def close(self, request: Message, batch: np.ndarray | None) -> Reply:
        self._session(request).close()
        del self._sessions[request["session"]]
        return {}, None

    def _session(self, request: Message) -> Session:
        try:
            return self._sessions[request["session"]]
        except KeyError:
            raise TargetError(
                "run", f"no open session {request.get('session')!r}: it was closed or never opened"
            ) from None


def _failure(error: TargetError) -> Reply:
    unavailable = isinstance(error, Unavailable)
    return {"ok": False, "stage": error.stage, "cause": error.cause, "unavailable": unavailable}, None


def _required(batch: np.ndarray | None) -> np.ndarray:
    if batch is None:
        raise TargetError("run", "the request carries no images: send them as its payload")
    return batch


def _read_requests(stream: BinaryIO, requests: queue.SimpleQueue[tuple[Message, np.ndarray | None]]) -> None:
    """Feed the queue; end the process when the parent is gone, even if a request is still being answered."""
    try:
        while (message := wire.read_message(stream)) is not None:
            requests.put(message)
    except wire.ProtocolError as error:
        print(f"worker: {error}", file=sys.stderr)
        os._exit(2)
    os._exit(0)


def main() -> None:
    """Serve until "quit" or the end of standard input."""
    # Private copies of the protocol's descriptors; natives and child processes get /dev/null and stderr instead.
    requests_in = os.fdopen(os.dup(0), "rb")
    replies_out = os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)

    requests: queue.SimpleQueue[tuple[Message, np.ndarray | None]] = queue.SimpleQueue()
    threading.Thread(target=_read_requests, args=(requests_in, requests), daemon=True).start()
    worker = Worker()
    while True:
        request, batch = requests.get()
        if request.get("op") == "quit":
            # Without the interpreter's shutdown: destructors of half-closed native runtimes are known to abort.
            os._exit(0)
        wire.write_message(replies_out, *worker.answer(request, batch))
