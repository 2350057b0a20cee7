"""Files that are to be timed side by side and a plan in; samples of each by round, over several fresh processes, out.

What slows the machine for a while slows all of them in a round; what a process has for its whole life (where its memory
lies, which pages are shared) differs between processes, so the rounds are spread over several.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import median

import numpy as np

from pipeline.config import TimingPlan
from pipeline.records.conversion import ConversionRecord
from pipeline.records.latency import Rounds
from pipeline.run.cells import boundary_of
from pipeline.run.folder import Run
from targets.devices.device import DeviceWorker
from targets.types import Samples, Session, TargetError
from targets.worker.host import HostWorker

COLD_LOADS = 3  # each in a fresh process: one says nothing about the spread
#: Warm-up goes on until two batches of it in a row have medians that are this near to each other, or for so many
#: batches. Phones take seconds to raise their clock; a fixed number of inferences is over by then.
STEADY_WITHIN = 0.03
WARMUP_BATCHES = 10


def noise(run: Run, record: ConversionRecord, n: int, seed: int) -> np.ndarray:
    """`n` pictures of random pixels as the file takes them: the time of these networks does not depend on them."""
    boundary = boundary_of(run, record)
    pixels = np.random.default_rng(seed).integers(0, 256, (n, *boundary.size, 3), np.uint8)
    return boundary.feed(pixels)


@dataclass(frozen=True)
class Timed:
    """Samples of one file in ms; one round after the other, processes one after the other.

    Attributes:
        cpu_rounds_ms: processor time of the same inferences; None where it was not measured, and for several threads,
            whose processor time is no latency.
        load_ms: of opening the file as the first one of a fresh process; empty where the runtime does not tell.
        steady: whether the warm-up ended because its time was steady, in every process; None without a warm-up.
        per_sample: inferences that a sample is the mean of.
    """

    warmup_ms: tuple[float, ...]
    rounds_ms: Rounds
    cpu_rounds_ms: Rounds | None
    load_ms: tuple[float, ...] = ()
    steady: bool | None = None
    per_sample: int = 1


class TimingFailed(Exception):
    """One of the files could not be opened or run: its name, and the runtime's error."""

    def __init__(self, name: str, error: TargetError):
        super().__init__(f"{name}: {error}")
        self.name = name
        self.error = error


def one_process(
    target: str,
    runtime: str,
    files: Mapping[str, Path],
    images: Mapping[str, np.ndarray],
    plan: TimingPlan,
    number: int,
    start: Callable[[], DeviceWorker] | None = None,
) -> dict[str, Timed]:
    """The share of process `number` of the plan: `files`, given by name, are timed on `images` [N, ...] of each.

    Who comes first changes from round to round, and who is opened first from process to process.

    Args:
        start: a worker on the device; None: one on this host.

    Raises:
        TimingFailed: with the name of the first file that failed.
    """
    order = list(files)[:: -1 if number % 2 else 1]
    warmed: dict[str, Warmup] = {}
    rounds: dict[str, list[Samples]] = {name: [] for name in files}
    with (start or HostWorker)() as worker:
        sessions: dict[str, Session] = {}
        for name in order:
            try:
                sessions[name] = worker.open(target, files[name], runtime, plan.threads)
                warmed[name] = warm_up(sessions[name], images[name], plan.warmup)
            except TargetError as error:
                raise TimingFailed(name, error) from error
        for turn in range(plan.rounds // plan.processes):
            first = turn % len(order)
            for name in (*order[first:], *order[:first]):
                try:
                    rounds[name].append(sessions[name].samples(images[name], plan.samples))
                except TargetError as error:
                    raise TimingFailed(name, error) from error
    cold = order[0]  # what is opened after it finds the runtime set up
    loads = {cold: sessions[cold].load_ms}
    return {name: _timed(warmed[name], rounds[name], plan.threads, loads.get(name)) for name in files}


def cold_load(
    target: str, runtime: str, path: Path, threads: int, start: Callable[[], DeviceWorker] | None = None
) -> float | None:
    """Milliseconds to open the file in a fresh process that opens nothing else; None where the runtime does not tell.

    Raises:
        TargetError: it cannot be opened.
    """
    with (start or HostWorker)() as worker:
        return worker.open(target, path, runtime, threads).load_ms


@dataclass(frozen=True)
class Warmup:
    """Samples in ms before the rounds, and whether they ended steady; None without any."""

    samples_ms: tuple[float, ...]
    steady: bool | None


def warm_up(session: Session, images: np.ndarray, batch: int) -> Warmup:
    """Batches of `batch` inferences until their time is steady, at most WARMUP_BATCHES of them; 0: none at all."""
    if not batch:
        return Warmup((), None)
    samples_ms: list[float] = []
    before: float | None = None
    for _ in range(WARMUP_BATCHES):
        found = session.time(images, batch)
        samples_ms += found
        now = median(found)
        if before is not None and abs(now - before) <= STEADY_WITHIN * before:
            return Warmup(tuple(samples_ms), True)
        before = now
    return Warmup(tuple(samples_ms), False)


def joined(parts: Sequence[Mapping[str, Timed]], names: Sequence[str]) -> dict[str, Timed]:
    """The processes' shares in their order, of the files in `names`."""
    return {name: _joined([part[name] for part in parts]) for name in names}


def _joined(parts: Sequence[Timed]) -> Timed:
    cpu = [part.cpu_rounds_ms for part in parts]
    counted = [rounds for rounds in cpu if rounds is not None]
    return Timed(
        warmup_ms=tuple(chain.from_iterable(part.warmup_ms for part in parts)),
        rounds_ms=tuple(chain.from_iterable(part.rounds_ms for part in parts)),
        cpu_rounds_ms=tuple(chain.from_iterable(counted)) if len(counted) == len(parts) else None,
        load_ms=tuple(chain.from_iterable(part.load_ms for part in parts)),
        steady=None if any(part.steady is None for part in parts) else all(part.steady for part in parts),
        per_sample=max(part.per_sample for part in parts),
    )


def _timed(warmup: Warmup, rounds: list[Samples], threads: int, load_ms: float | None) -> Timed:
    cpu_ms = [tuple(samples.cpu_ms) for samples in rounds if samples.cpu_ms is not None]
    counted = threads == 1 and len(cpu_ms) == len(rounds)
    return Timed(
        warmup_ms=warmup.samples_ms,
        rounds_ms=tuple(tuple(samples.wall_ms) for samples in rounds),
        cpu_rounds_ms=tuple(cpu_ms) if counted else None,
        load_ms=() if load_ms is None else (load_ms,),
        steady=warmup.steady,
        per_sample=max(samples.per_sample for samples in rounds),
    )
