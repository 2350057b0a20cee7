"""The side of a worker that callers see: methods that become requests, and a TargetError whatever goes wrong there.

Where the worker runs is a Link's business: on this machine (targets.worker.host), behind SSH, or under emulation.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, Self

from targets.codec import from_dict
from targets.target import ComputePlan
from targets.types import (
    GraphFacts,
    PackageOptions,
    Precision,
    Probe,
    QuantizedTensor,
    RangeEvent,
    Samples,
    Session,
    TargetError,
    Unavailable,
)
from targets.worker import wire
from targets.worker.facts import Conditions, DeviceFacts
from targets.worker.wire import Message

if TYPE_CHECKING:
    import numpy as np

# Conversion of a large model is the longest request; minutes on a slow machine.
TIMEOUT_S = 1800.0
# How long a worker that was asked to end, or whose pipe closed, may take before it is killed.
EXIT_GRACE_S = 10.0


class Link(Protocol):
    """A worker that was started, and the two streams to it."""

    requests: BinaryIO
    replies: BinaryIO

    def kill(self) -> None:
        """End the worker and what it started, at once; from any thread, also if it has ended already.

        Blocked reads of `replies` and writes of `requests` return.
        """
        ...

    def how_it_ended(self) -> str:
        """Wait at most EXIT_GRACE_S for its end, kill it if it takes longer, and say what happened: a clause."""
        ...

    def last_words(self) -> str:
        """The last lines of its standard error."""
        ...

    def finish(self, politely: bool) -> None:
        """Let it end by closing its input, or kill it; then free what belongs to the link."""
        ...


class WorkerClient(ABC):
    """A worker process, as a context manager.

    Several sessions can be open in it at once. A worker that crashed or ran out of time is gone: every later call
    raises TargetError, and the caller starts a new one.

    Args:
        timeout_s: for each request.
        cpus: cores that its runtimes use; empty: as the system likes.
    """

    def __init__(self, timeout_s: float = TIMEOUT_S, cpus: Sequence[int] = ()):
        self.timeout_s = timeout_s
        self._cpus = cpus
        self._link: Link | None = None
        self._end: str | None = None  # why there is no worker any more
        self._lock = threading.Lock()

    @abstractmethod
    def _start(self) -> Link:
        """Start the worker.

        Raises:
            TargetError: stage "device", it cannot be started.
        """

    def _sent(self, path: Path) -> str:
        """Where the worker finds the file at `path` of this machine; devices bring it there first.

        Raises:
            TargetError: stage "device".
        """
        return str(path.resolve())

    def _images(self, batch: np.ndarray) -> tuple[Message, np.ndarray | None]:
        """How images [N, ...] go to the worker: what is added to the request, and what follows it on the stream.

        Raises:
            TargetError: stage "device".
        """
        return {}, batch

    def _prepare(self) -> None:
        """Done once in a worker that was just started, before it is handed out; the worker ends if this raises."""
        if self._cpus:
            self.bind(self._cpus)

    def __enter__(self) -> Self:
        self._link = self._start()
        try:
            self._prepare()
        except BaseException as error:
            self.__exit__(error)
            raise
        return self

    def __exit__(self, *error: object) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.finish(politely=not any(error))

    def hello(self) -> Message:
        """pid, usable CPUs, machine and versions of the worker."""
        return self._call("hello")[0]

    def probe(self, target: str) -> Probe:
        """What `target` can do in the worker."""
        return from_dict(Probe, self._call("probe", target=target)[0]["probe"])

    def convert(
        self,
        target: str,
        program: Path,
        sha256: str,
        precision: Precision,
        output: Path,
        metadata: Mapping[str, str] | None = None,
        options: PackageOptions | None = None,
    ) -> None:
        """Convert the `.pt2` at `program`, whose digest must be `sha256`, into `output`."""
        self._call(
            "convert",
            target=target,
            program=str(program.resolve()),
            sha256=sha256,
            precision=precision,
            output=str(output.resolve()),
            metadata=dict(metadata or {}),
            options=asdict(options or PackageOptions()),
        )

    def inspect(self, target: str, path: Path) -> GraphFacts:
        """Facts read from the file at `path`."""
        return from_dict(GraphFacts, self._call("inspect", target=target, path=str(path.resolve()))[0]["facts"])

    def plan(self, target: str, path: Path, compute_units: str) -> ComputePlan:
        """What the framework of `target` plans for the file at `path`, given the choice of compute units."""
        reply, _ = self._call("plan", target=target, path=str(path.resolve()), compute_units=compute_units)
        return from_dict(ComputePlan, reply["plan"])

    def open(self, target: str, path: Path, runtime: str, threads: int) -> RemoteSession:
        """Load the file at `path`; its work happens in the worker."""
        reply, _ = self._call("open", target=target, path=self._sent(path), runtime=runtime, threads=threads)
        return RemoteSession(self, reply["session"], reply["load_ms"])

    def facts(self) -> DeviceFacts:
        """What the machine is that the worker runs on."""
        return from_dict(DeviceFacts, self._call("facts")[0]["facts"])

    def conditions(self) -> Conditions:
        """The state that it is in now."""
        return from_dict(Conditions, self._call("conditions")[0]["conditions"])

    def bind(self, cpus: Sequence[int]) -> None:
        """Bind the worker, and with it every runtime that it opens from now on, to these cores.

        Raises:
            TargetError: stage "device", its system cannot, or has no such core.
        """
        self._call("bind", cpus=list(cpus))

    def _call(self, op: str, batch: np.ndarray | None = None, **request: Any) -> tuple[Message, np.ndarray | None]:
        """Send one request and wait for its reply; a crash is put down to the stage of `op`."""
        stage = wire.OPERATIONS.get(op, "run")
        with self._lock:
            link = self._link
            if link is None or self._end is not None:
                name = type(self).__name__
                raise TargetError(stage, self._end or f"the worker is not running: use {name} in a `with` block")
            timed_out = threading.Event()
            watchdog = threading.Timer(self.timeout_s, _give_up, (link, timed_out))
            watchdog.daemon = True
            watchdog.start()
            try:
                wire.write_message(link.requests, {"op": op, **request}, batch)
                answer = wire.read_message(link.replies)
            except (OSError, wire.ProtocolError):
                answer = None
            except BaseException:  # Ctrl-C: the reply would be taken for that of the next request
                self._end = "the worker was killed, because a request to it was interrupted"
                link.kill()
                raise
            finally:
                watchdog.cancel()
            if answer is None or timed_out.is_set():
                ended = link.how_it_ended()
                if timed_out.is_set():
                    ended = f"no answer within {self.timeout_s:g} s, the worker was killed"
                self._end = f"{ended}; last lines of its stderr: {link.last_words()}"
                raise TargetError(stage, self._end)
        reply, array = answer
        if not reply["ok"]:
            raise (Unavailable if reply["unavailable"] else TargetError)(reply["stage"], reply["cause"])
        return reply, array


class RemoteSession(Session):
    """A session in a worker."""

    def __init__(self, worker: WorkerClient, number: int, load_ms: float | None):
        self._worker = worker
        self._number = number
        self.load_ms = load_ms

    def infer(self, batch: np.ndarray) -> np.ndarray:
        """One request for the whole batch: pass 16 or so images at a time to be able to show progress."""
        where, payload = self._worker._images(batch)
        _, logits = self._ask("infer", payload, **where)
        assert logits is not None
        return logits

    def samples(self, batch: np.ndarray, n: int) -> Samples:
        return Samples(**self._ask("time", batch, n=n)[0]["samples"])

    def peak_bytes(self, image: np.ndarray) -> int | None:
        peak: int | None = self._ask("peak_bytes", image)[0]["peak_bytes"]
        return peak

    def range_events(self) -> tuple[RangeEvent, ...] | None:
        events = self._ask("range_events")[0]["events"]
        return None if events is None else tuple(from_dict(RangeEvent, event) for event in events)

    def quantized_tensors(self, image: np.ndarray) -> tuple[QuantizedTensor, ...] | None:
        reply, values = self._ask("quantized_tensors", image)
        return None if reply["tensors"] is None or values is None else wire.decode_tensors(reply, values)

    def close(self) -> None:
        self._ask("close")

    def _ask(self, op: str, batch: np.ndarray | None = None, **more: Any) -> tuple[Message, np.ndarray | None]:
        return self._worker._call(op, batch, session=self._number, **more)


def _give_up(link: Link, timed_out: threading.Event) -> None:
    timed_out.set()
    link.kill()
