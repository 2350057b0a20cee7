"""Files in; their times round by round, all open in one process and taking turns, out."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np

from targets.worker.host import HostWorker

WARMUP = 3
Name = TypeVar("Name", bound=Hashable)


def take_turns(
    files: Mapping[Name, tuple[Path, tuple[int, int, int]]],
    target: str,
    runtime: str,
    threads: int,
    rounds: int,
    samples: int,
    advance: Callable[[int], None],
) -> dict[Name, list[list[float]]]:
    """Milliseconds by name: `rounds` lists of `samples` inferences; within a round every file has its turn.

    Args:
        files: path and image shape by name.

    Raises:
        TargetError: a file does not load or run.
    """
    random = np.random.default_rng(0)
    times: dict[Name, list[list[float]]] = {name: [] for name in files}
    with HostWorker() as worker:
        sessions = {name: worker.open(target, path, runtime, threads) for name, (path, _) in files.items()}
        images = {n: random.standard_normal((2, *shape), dtype=np.float32) for n, (_, shape) in files.items()}
        for name, session in sessions.items():
            session.time(images[name], WARMUP)
        for _ in range(rounds):
            for name, session in sessions.items():
                times[name].append(session.time(images[name], samples))
            advance(1)
    return times
