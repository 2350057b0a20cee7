"""Real repeats of the benchmark in; how the gate judges pairs of them, with and without an injected slowdown, out."""

from __future__ import annotations

import itertools
import json
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from converted import CONTROL, RUNTIME_OF, RUNTIMES, File, Runtime, Subject, convert_all
from gate_accuracy import Source

from pipeline.config import TimingPlan
from pipeline.files import write_atomic, write_json
from pipeline.gate.baseline import RATIO_DIGITS, RunFacts, Timing
from pipeline.gate.collect import baseline_text, read_baseline
from pipeline.gate.judge import judge
from pipeline.gate.records import worst
from pipeline.gate.settings import settings_of
from pipeline.metrics.latency import RoundRatios, round_ratios
from pipeline.models.build import build
from pipeline.progress import progress
from pipeline.records.latency import Rounds
from pipeline.rewrites.deploy import in_form
from pipeline.stages.timing import one_process
from targets import registry

MODEL, CLASSES = "t2t_vit_7", 10


@dataclass(frozen=True)
class Process:
    """One process of a benchmark of one runtime: its rounds, as `benchmark` times a cell."""

    runtime: str
    began_s: float
    seconds: float
    load: float | None
    own_ms: Rounds
    control_ms: Rounds
    own_cpu_ms: Rounds | None
    control_cpu_ms: Rounds | None


@dataclass(frozen=True)
class Repeat:
    """One whole benchmark of a cell. Repeats of one block took turns, so they saw the same minutes."""

    block: int
    processes: tuple[Process, ...]

    def ratios(self, clock: str = "cpu", slowdown: float = 1.0) -> RoundRatios:
        """By round, every sample of the model made `slowdown` times as long."""
        own: list[Sequence[float]] = []
        control: list[Sequence[float]] = []
        for process in self.processes:
            cpu = clock == "cpu" and process.own_cpu_ms is not None and process.control_cpu_ms is not None
            own += (process.own_cpu_ms if cpu else process.own_ms) or ()
            control += (process.control_cpu_ms if cpu else process.control_ms) or ()
        slow = [[ms * slowdown for ms in samples] for samples in own]
        return round_ratios(slow, control, len(self.processes))


def repeats_of(measured: Sequence[Process], processes: int, turns: int) -> list[Repeat]:
    """Benchmarks of `processes` each out of processes in the order of time.

    Args:
        turns: cells of a benchmark, which take turns process by process: a block of so many repeats.
    """
    size = processes * turns
    blocks = [measured[start : start + size] for start in range(0, len(measured) - size + 1, size)]
    return [Repeat(number, tuple(block[cell::turns])) for number, block in enumerate(blocks) for cell in range(turns)]


def files(folder: Path, side: int) -> dict[tuple[str, Runtime], Path]:
    """int8 files of the model and of its control with random weights; those in `folder` from before are taken."""
    suffix = {runtime: registry.get(runtime).suffix for runtime in RUNTIMES}
    known = {(n, r): folder / f"{n}.int8{suffix[r]}" for n in (MODEL, CONTROL) for r in RUNTIMES}
    if not all(path.is_file() for path in known.values()):
        made: dict[Any, File] = convert_all([_subject(n, side) for n in (MODEL, CONTROL)], folder, RUNTIMES, ["int8"])
        known = {(name, runtime): file.path for (name, runtime, _), file in made.items()}
    return known


def _subject(name: str, side: int) -> Subject:
    torch.manual_seed(0)
    model, _ = build(name, CLASSES, side)
    return Subject(name, in_form(model.eval(), "deploy"), (3, side, side))


def measure(known: dict[tuple[str, Runtime], Path], side: int, repeats: int, plan: TimingPlan, kept: Path) -> None:
    """As many processes of each runtime as `repeats` benchmarks have, in turn; `kept` is written after each,
    so that a stopped run is not lost."""
    images = np.random.default_rng(0).standard_normal((2, 3, side, side), dtype=np.float32)
    found: list[Process] = []
    with progress("timing", repeats * plan.processes * len(RUNTIMES), "processes") as bar:
        for number in range(repeats * plan.processes):
            for runtime in RUNTIMES:
                began, start = time.time(), time.monotonic()
                opened = {"own": known[MODEL, runtime], "control": known[CONTROL, runtime]}
                timed = one_process(runtime, RUNTIME_OF[runtime], opened, dict.fromkeys(opened, images), plan, number)
                own, control = timed["own"], timed["control"]
                found.append(
                    Process(
                        RUNTIME_OF[runtime],
                        began,
                        time.monotonic() - start,
                        _load(),
                        own.rounds_ms,
                        control.rounds_ms,
                        own.cpu_rounds_ms,
                        control.cpu_rounds_ms,
                    )
                )
                write_json(kept, {"processes": plan.processes, "side": side, "measured": [vars(p) for p in found]})
                bar.advance(1)


def _load() -> float | None:
    """Runnable tasks on average over the last minute."""
    try:
        return float(Path("/proc/loadavg").read_text().split()[0])
    except OSError:
        return None


SLOWDOWNS = {"cpu": (1.0, 1.05, 1.10, 1.20), "wall": (1.0, 1.10)}
TURNS = (1, 4)  # a benchmark of a single cell; and of two models' worth of files, int8 and float32
PAIRS = 200


def calibrate(source: Source, measured: Sequence[Process], processes: int, seed: int = 0) -> list[dict[str, Any]]:
    """One row for each runtime (and for both in one check), number of cells in turn, clock and slowdown.

    PAIRS pairs of a baseline and a later (or earlier) repeat are drawn from all that are not of one block. Pairs share
    repeats, so they are no independent trials.
    """
    settings, rows = settings_of({}, {}), []
    runtimes = list(dict.fromkeys(p.runtime for p in measured))
    groups = [[runtime] for runtime in runtimes] + ([runtimes] if len(runtimes) > 1 else [])
    clocks = [(clock, slowdown) for clock, slowdowns in SLOWDOWNS.items() for slowdown in slowdowns]
    cases = [(*case, *clock) for case in itertools.product(groups, TURNS) for clock in clocks]
    with tempfile.TemporaryDirectory() as folder, progress("gate on latency", len(cases), "cases") as bar:
        path = Path(folder) / "baseline.json"
        for group, turns, clock, slowdown in cases:
            sides = [repeats_of([p for p in measured if p.runtime == r], processes, turns) for r in group]
            blocks = [repeat.block for repeat in sides[0]]
            pairs = [(a, b) for a, b in itertools.permutations(range(len(blocks)), 2) if blocks[a] != blocks[b]]
            random = np.random.default_rng(seed)
            drawn = [pairs[i] for i in random.permutation(len(pairs))[:PAIRS]]
            verdicts: Counter[str] = Counter()
            for one, other in drawn:
                base = [side[one].ratios(clock) for side in sides]
                # the first runtime is the one that became slower
                now = [side[other].ratios(clock, 1.0 if n else slowdown) for n, side in enumerate(sides)]
                write_atomic(path, baseline_text(_facts(source, base, clock)))
                result = judge(_facts(source, now, clock), read_baseline(path), settings)
                found = [f.verdict for cell in result.cells for f in cell.findings if f.rule == "latency"]
                verdicts[worst(found) or "none"] += 1
            rows.append(
                {
                    "runtime": " and ".join(group),
                    "cells_in_turn": turns,
                    "clock": clock,
                    "slowdown": slowdown,
                    "repeats": len(blocks),
                    "pairs": len(drawn),
                    "verdicts": dict(verdicts),
                }
            )
            bar.advance(1)
    return rows


def spread(measured: Sequence[Process], processes: int) -> list[dict[str, Any]]:
    """How far ratios are apart, in percent: rounds in a process, processes in a repeat, repeats; beside what repeats
    would be if processes were all that differs."""
    rows = []
    for runtime, turns, clock in itertools.product(dict.fromkeys(p.runtime for p in measured), TURNS, ("cpu", "wall")):
        repeats = repeats_of([p for p in measured if p.runtime == runtime], processes, turns)
        logs = np.log([r.ratios(clock).ratios for r in repeats])  # [repeats, processes]
        rounds = np.log([Repeat(0, (p,)).ratios(clock).ratios for r in repeats for p in r.processes])
        within = float(logs.var(axis=1, ddof=1).mean())
        rows.append(
            {
                "runtime": runtime,
                "cells_in_turn": turns,
                "clock": clock,
                "ratio": float(np.exp(logs.mean())),
                "rounds_percent": 100 * float(np.sqrt(rounds.var(axis=1, ddof=1).mean())),
                "processes_percent": 100 * float(np.sqrt(within)),
                "repeats_percent": 100 * float(logs.mean(axis=1).std(ddof=1)),
                "repeats_expected_percent": 100 * float(np.sqrt(within / processes)),
            }
        )
    return rows


def read(kept: Path) -> tuple[list[Process], int]:
    """What `measure` wrote: the processes in the order of time, and how many a benchmark has."""
    data = json.loads(kept.read_text())
    return [Process(**p) for p in data["measured"]], int(data["processes"])


def _facts(source: Source, ratios: Sequence[RoundRatios], clock: Literal["cpu", "wall"]) -> RunFacts:
    """The source's cell, once for each runtime, with these latencies."""
    host = {"processor": "this", "vector_extensions": "this"}
    cells = []
    for number, each in enumerate(ratios):
        rounded = tuple(float(f"{r:.{RATIO_DIGITS}g}") for r in each.ratios)
        timing = Timing(1, each.processes, rounded, None, host, clock=clock)
        key = replace(source.cell.key, device=f"host {number}")
        cells.append(replace(source.cell, key=key, timing=timing))
    return replace(source.facts, cells=tuple(cells))
