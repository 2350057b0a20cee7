"""Stands for worker processes in tests of timing: who is opened and timed in which process is kept, nothing is run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from targets.types import Samples, TargetError


@dataclass
class FakeWorkers:
    """Stands for HostWorker; keeps what was asked of which process. Times tell process and turn."""

    broken: str = ""
    cpu: bool = True
    processes: int = 0
    log: list[tuple[int, str, str]] = field(default_factory=list)

    def __call__(self, *options: object, **named: object) -> FakeWorkers:
        self.processes += 1
        return self

    def __enter__(self) -> FakeWorkers:
        return self

    def __exit__(self, *error: object) -> None: ...

    def open(self, target: str, path: Path, runtime: str, threads: int) -> Any:
        self.log.append((self.processes, path.name, "open"))
        if path.name == self.broken:
            raise TargetError("load", "broken")
        return FakeSession(self, path.name)


@dataclass
class FakeSession:
    workers: FakeWorkers
    name: str
    load_ms: float | None = 7.0

    def time(self, images: np.ndarray, n: int) -> list[float]:
        return [1.0] * n

    def samples(self, images: np.ndarray, n: int) -> Samples:
        self.workers.log.append((self.workers.processes, self.name, "time"))
        return Samples([float(len(self.workers.log))] * n, [0.5] * n if self.workers.cpu else None)
