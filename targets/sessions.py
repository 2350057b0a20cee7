"""What every session checks of its input, and how single calls are timed: by the wall clock and by the processor."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from targets.types import Samples, TargetError


def check_threads(threads: int) -> None:
    """
    Raises:
        TargetError: stage "load", no thread at all.
    """
    if threads < 1:
        raise TargetError("load", f"threads is {threads}: at least 1 is needed")


def check_batch(batch: np.ndarray, size: Sequence[int], name: str, is_open: bool) -> None:
    """
    Args:
        size: (3, H, W) of the images that the artifact takes.
        name: of the artifact.
        is_open: whether its session is.

    Raises:
        TargetError: stage "run", the session is closed or the images are not of this size and float32.
    """
    if not is_open:
        raise TargetError("run", f"{name}: the session is closed")
    if batch.dtype != np.float32 or not len(batch) or batch.shape[1:] != tuple(size):
        raise TargetError("run", f"{name} takes float32 images of {list(size)}, not {batch.dtype} {list(batch.shape)}")


class Stopwatch:
    """Times one call after the other.

    Processor time is that of all threads of the process. Where other programs want the same processor, a call waits for
    its turn: that is in the time on the wall, and not in this one.
    """

    def __init__(self) -> None:
        self._wall_ms: list[float] = []
        self._cpu_ms: list[float] = []

    def run(self, call: Callable[[], object]) -> None:
        cpu_ns, start_ns = time.process_time_ns(), time.perf_counter_ns()
        call()
        wall_ns, end_ns = time.perf_counter_ns() - start_ns, time.process_time_ns()
        self._wall_ms.append(wall_ns / 1e6)
        self._cpu_ms.append((end_ns - cpu_ns) / 1e6)

    @property
    def samples(self) -> Samples:
        """Without processor time where its clock is too coarse for one of the calls."""
        return Samples(self._wall_ms, self._cpu_ms if all(ms > 0 for ms in self._cpu_ms) else None)
