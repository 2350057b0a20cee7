"""Faults of a device behind SSH: a real server, real worker processes and a TCP proxy on this machine, and what breaks.

The runtime is tests/support/known_worker.py: the real worker with one more target whose answers can be worked out, so
that every reply is compared with what it must be.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "tests" / "support")]

import known_worker  # noqa: E402
from broken_workers import ended  # noqa: E402
from faults import Outcome  # noqa: E402
from ssh_server import SshServer  # noqa: E402
from tcp_proxy import Proxy  # noqa: E402

from targets.devices.ssh.device import SshWorker  # noqa: E402
from targets.types import TargetError  # noqa: E402

# Of each request once the worker is there, and of starting it, which depends on how busy this machine is.
LIMIT_S, START_LIMIT_S = 1.0, 60.0
CHUNKS, ROUNDS, SAMPLES = 6, 4, 10
IMAGES = np.random.default_rng(0).normal(size=(4, 3, 24, 24)).astype(np.float32)
ARTIFACT_BYTES = 300_000
# Far less than a chunk of 28 kB needs to go over within the limit.
SLOW_BYTES_PER_S = 3000.0

KINDS = {
    "server killed": "SIGKILL to the SSH server and with it to every connection",
    "worker killed": "SIGKILL to the worker on the device",
    "worker stopped": "SIGSTOP to the worker: it hangs",
    "disk full": "the disk of the device is full after a random number of bytes of the push",
    "link cut": "the connection is closed after a random number of bytes that came back",
    "link slow": f"the link slows down to {SLOW_BYTES_PER_S:.0f} bytes per second",
    "link silent": "nothing goes over the link any more, and nobody is told: a cable that was pulled",
}


class WrongReplyError(Exception):
    """A reply that is not what the file and the images give."""


class Bench:
    """What is kept from one fault to the next: a server that still runs, how long a session takes, what it gives back.

    A context manager.
    """

    def __init__(self) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="faults-")
        self._folder = Path(self._temporary.name)
        self._server: SshServer | None = None

    def __enter__(self) -> Bench:
        random_source = random.Random(0)
        self._session(Proxy(self.server.port), random_source, lambda pid, proxy: None)  # the first one pushes the code
        proxy = Proxy(self.server.port)
        began: list[float] = []
        self.session_s = (
            self._session(proxy, random_source, lambda pid, proxy: began.append(time.monotonic())) - began[0]
        )
        self.reply_bytes = proxy.passed
        return self

    def __exit__(self, *error: object) -> None:
        if self._server is not None:
            self._server.__exit__()
        self._temporary.cleanup()

    @property
    def server(self) -> SshServer:
        if self._server is None:
            self._server = SshServer(self._folder).__enter__()
        return self._server

    def inject(self, kind: str, seed: int) -> Outcome:
        """One session with one fault at a random moment of it."""
        source = random.Random(f"{kind} {seed}")
        # Only what would never end by itself has to reach its limit; a busy machine may need longer for the rest.
        limit_s = LIMIT_S if kind in ("worker stopped", "link slow", "link silent") else START_LIMIT_S
        moment_s = source.uniform(0, 0.9) * self.session_s
        happened: list[float] = []
        pids: list[int] = []
        timers: list[threading.Timer] = []

        def now(action: Callable[[], object]) -> None:
            moment = time.monotonic()
            with contextlib.suppress(ProcessLookupError):  # the session is over, and its worker has ended
                action()
                happened.append(moment)

        def later(action: Callable[[], object]) -> None:
            timers.append(threading.Timer(moment_s, now, (action,)))
            timers[0].start()

        def arm(pid: int, proxy: Proxy) -> None:
            pids.append(pid)
            actions: dict[str, Callable[[], object]] = {
                "server killed": lambda: later(self._kill_server),
                "worker killed": lambda: later(lambda: os.kill(pid, signal.SIGKILL)),
                "worker stopped": lambda: later(lambda: os.kill(pid, signal.SIGSTOP)),
                "disk full": lambda: now(lambda: self.server.fill_disk(source.randrange(ARTIFACT_BYTES))),
                "link cut": lambda: proxy.cut_after(source.randint(1, int(0.9 * self.session_bytes(proxy)))),
                "link slow": lambda: later(lambda: setattr(proxy, "bytes_per_s", SLOW_BYTES_PER_S)),
                "link silent": lambda: later(lambda: setattr(proxy, "silent", True)),
            }
            actions[kind]()

        proxy = Proxy(self.server.port)
        error = ""
        try:
            over = self._session(proxy, source, arm, limit_s)
        except TargetError as raised:
            over = time.monotonic()
            error = str(raised)
        finally:
            for timer in timers:
                timer.cancel()
        if kind == "link cut" and proxy.was_cut_s is not None:
            happened.append(proxy.was_cut_s)
        if kind == "disk full":
            self.server.fill_disk(None)
        injected = bool(happened) and happened[0] <= over
        left_over = bool(pids) and not ended(pids[0])
        return Outcome(injected, error, over - happened[0] if injected else 0.0, LIMIT_S, left_over)

    def session_bytes(self, proxy: Proxy) -> int:
        """What a whole session gives back after the worker was reached."""
        return max(self.reply_bytes - proxy.passed, 2)

    def _kill_server(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.__exit__()

    def _session(
        self,
        proxy: Proxy,
        source: random.Random,
        reached: Callable[[int, Proxy], object],
        limit_s: float = START_LIMIT_S,
    ) -> float:
        """Push a new file, open it, infer all chunks and time all rounds; when the last reply was there.

        Args:
            reached: called with the worker's process on the device when it is there, before the push.
            limit_s: of each request from then on.

        Raises:
            TargetError: as a benchmark would see it.
            WrongReplyError: a reply was taken for good that is not.
        """
        server = self.server
        with proxy, _artifact(source) as path:
            server.know(proxy.port)
            content = path.read_bytes()
            options = server.options(START_LIMIT_S)
            try:
                with SshWorker(server.address(proxy.port), options, _say, known_worker.COMMAND) as worker:
                    pid = worker.hello()["pid"]
                    worker.timeout_s = limit_s
                    assert worker._pusher is not None
                    worker._pusher = replace(worker._pusher, limit_s=limit_s)
                    reached(pid, proxy)
                    session = worker.open("known", path, "known", 1)
                    for _ in range(CHUNKS):
                        if not np.array_equal(session.infer(IMAGES), known_worker.logits(content, IMAGES)):
                            raise WrongReplyError("logits")
                    for _ in range(ROUNDS):
                        if session.samples(IMAGES, SAMPLES).wall_ms != known_worker.wall_ms(SAMPLES):
                            raise WrongReplyError("samples")
                    return time.monotonic()
            finally:
                for there in (server.home / ".cache/edge-t2t/files").iterdir():
                    there.unlink(missing_ok=True)


@contextmanager
def _artifact(source: random.Random) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="artifact-") as folder:
        path = Path(folder) / "a.tflite"
        path.write_bytes(source.randbytes(ARTIFACT_BYTES))
        yield path


def _say(line: str) -> None: ...


def bench() -> Bench:
    return Bench()
