"""Time single calls, by the clock on the wall and by the processor."""

from __future__ import annotations

import time
from collections.abc import Callable

from targets.types import Samples


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
