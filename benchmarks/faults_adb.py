"""Faults of a phone behind adb: Debian's real adbd and adb server in namespaces of their own, and what breaks.

The runtimes' program is the stand-in of tests/support/phone: its answers can be worked out, so that every reply is
compared with what it must be.
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
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "tests" / "support")]

from adb_phone import ADB_DATA, Phone, missing, stand_in_facts, stand_in_logits  # noqa: E402
from faults import Outcome  # noqa: E402

from targets.devices.adb import session as adb_session  # noqa: E402
from targets.devices.adb.device import AdbDevice  # noqa: E402
from targets.types import TargetError  # noqa: E402

LIMIT_S = 1.5
CHUNKS, ROUNDS, SAMPLES = 3, 3, 4
IMAGES = np.random.default_rng(0).normal(size=(3, 3, 32, 32)).astype(np.float32)
ARTIFACT_BYTES = 300_000
SLOW_BYTES_PER_S = 2000.0
DISK_MB = 32

KINDS = {
    "unplugged": "SIGKILL to adbd",
    "program killed": "SIGKILL to the runtime's program while it runs",
    "program stopped": "SIGSTOP to the runtime's program: it hangs",
    "disk full": "the rest of the phone's disk is filled from one moment to the next",
    "link cut": "every connection to the adb server is closed after a random number of bytes that came back",
    "link slow": f"the link slows down to {SLOW_BYTES_PER_S:.0f} bytes per second",
    "link silent": "nothing goes over the link any more, and nobody is told",
}


class WrongReplyError(Exception):
    """A reply that is not what the file and the images give."""


class Bench:
    """The phone, kept from one fault to the next and put right again in between; a context manager."""

    def __init__(self) -> None:
        if reason := missing():
            raise SystemExit(f"no phone can be made here: {reason}")
        adb_session._inspected = lambda target, path: stand_in_facts()
        self._temporary = tempfile.TemporaryDirectory(prefix="faults-")
        self._phone = Phone(Path(self._temporary.name), megabytes=DISK_MB)

    def __enter__(self) -> Bench:
        self._phone.__enter__()
        (self._phone.folder / "socket/restart").touch()
        self._session(random.Random(0), lambda: None)
        assert self._phone.link is not None
        before, began = self._phone.link.passed, time.monotonic()
        self.session_s = self._session(random.Random(1), lambda: None) - began
        self.reply_bytes = self._phone.link.passed - before
        return self

    def __exit__(self, *error: object) -> None:
        self._phone.__exit__()
        self._temporary.cleanup()

    def inject(self, kind: str, seed: int) -> Outcome:
        """One session with one fault at a random moment of it."""
        source = random.Random(f"{kind} {seed}")
        # The disk is written to in the first part of a session only, by the push and by the images.
        moment_s = source.uniform(0.02, 0.25 if kind == "disk full" else 0.9) * self.session_s
        link = self._phone.link
        assert link is not None
        happened: list[float] = []
        killed: list[int] = []

        def to_program(number: int) -> bool:
            """Whether one was running then: looked for over a few milliseconds, for it is short-lived."""
            end = time.monotonic() + 0.3
            while time.monotonic() < end:
                for pid in self._phone.processes("--graph="):
                    # Stopped first: a signal to one that has just ended is taken without a word, and does nothing.
                    with contextlib.suppress(OSError):
                        os.kill(pid, signal.SIGSTOP)
                        if _stopped(pid):
                            os.kill(pid, number)
                            killed.append(pid)
                if killed:
                    return True
            return False

        def fill() -> bool:
            ballast = self._phone.inside(f"{ADB_DATA}/ballast")
            with contextlib.suppress(OSError), ballast.open("wb") as stream:
                while True:
                    stream.write(bytes(1 << 20))
            with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as stream:
                while True:
                    stream.write(bytes(512))
            return True

        actions: dict[str, Callable[[], object]] = {
            "unplugged": self._phone.unplug,
            "program killed": lambda: to_program(signal.SIGKILL),
            "program stopped": lambda: to_program(signal.SIGSTOP),
            "disk full": fill,
            "link slow": lambda: setattr(link, "bytes_per_s", SLOW_BYTES_PER_S),
            "link silent": lambda: setattr(link, "silent", True),
        }

        def act() -> None:
            moment = time.monotonic()
            if actions[kind]() is not False:
                happened.append(time.monotonic() if kind == "disk full" else moment)

        timer: threading.Timer | None = None

        def arm() -> None:
            nonlocal timer
            if kind == "link cut":
                link.cut_after(source.randint(1, max(int(0.9 * self.reply_bytes), 2)))
                return
            timer = threading.Timer(moment_s, act)
            timer.start()

        error = ""
        try:
            over = self._session(source, arm)
        except TargetError as raised:
            over = time.monotonic()
            error = str(raised)
        finally:
            if timer is not None:
                timer.cancel()
                timer.join()
        if kind == "link cut" and link.was_cut_s is not None:
            happened.append(link.was_cut_s)
        # Of a full disk nothing is learned unless something was still to be written.
        injected = bool(happened) and happened[0] <= (min(over, self._last_write_s) if kind == "disk full" else over)
        left_over = self._left_over() if injected else False
        self._repair()
        return Outcome(injected, error, over - happened[0] if injected else 0.0, LIMIT_S, left_over)

    def _left_over(self) -> bool:
        """Whether a program still runs 10 s later; where the link is gone nothing can end it from here."""
        end = time.monotonic() + 10
        while self._phone.processes("--graph="):
            if time.monotonic() > end:
                return True
            time.sleep(0.05)
        return False

    def _repair(self) -> None:
        link = self._phone.link
        assert link is not None
        link.mend()
        for pid in self._phone.processes("--graph="):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for path in self._phone.inside(ADB_DATA).iterdir():
            if path.name == "ballast" or path.stat().st_size == ARTIFACT_BYTES:
                path.unlink()
        self._phone.reconnect()

    def _session(self, source: random.Random, reached: Callable[[], object]) -> float:
        """Push a new file, open it, infer all chunks and time all rounds; when the last reply was there.

        Raises:
            TargetError: as a benchmark would see it.
            WrongReplyError: a reply was taken for good that is not.
        """
        self._last_write_s = float("inf")
        device = AdbDevice(self._phone.address(), self._phone.options(LIMIT_S), lambda line: None)
        worker = device.worker()
        reached()
        with tempfile.TemporaryDirectory(prefix="artifact-") as folder:
            path = Path(folder) / "a.tflite"
            path.write_bytes(source.randbytes(ARTIFACT_BYTES))
            session = worker.open("tflite", path, "litert", 1)
            for _ in range(CHUNKS):
                self._last_write_s = time.monotonic()
                if not np.allclose(session.infer(IMAGES), stand_in_logits(IMAGES, ARTIFACT_BYTES), rtol=1e-6):
                    raise WrongReplyError("logits")
            for _ in range(ROUNDS):
                if session.samples(IMAGES, SAMPLES).per_sample != SAMPLES:
                    raise WrongReplyError("samples")
            return time.monotonic()


def _stopped(pid: int) -> bool:
    """Whether a process that was told to stop did, and had not ended before."""
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        if state in "TZX":
            return state == "T"
        time.sleep(0.001)
    return False


def bench() -> Bench:
    return Bench()
