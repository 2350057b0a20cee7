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
from typing import Any

import numpy as np
import torch
from converted import CONTROL, RUNTIME_OF, RUNTIMES, File, Runtime, Subject, convert_all
from gate_accuracy import Source

from pipeline.gate.judge import judge
from pipeline.gate.settings import settings_of
from pipeline.metrics.latency import round_ratios
from pipeline.models.build import build
from pipeline.progress import progress
from pipeline.reports.baseline_record import RATIO_DIGITS, RunFacts, Timing
from pipeline.reports.gate_record import worst
from pipeline.reports.records import Rounds
from pipeline.rewrites.deploy import in_form
from pipeline.rundir import write_json
from pipeline.stages.baseline import read_baseline, write_baseline
from pipeline.stages.timing import TimingPlan, take_turns
from targets import registry

MODEL, CLASSES = "t2t_vit_7", 10


@dataclass(frozen=True)
class Repeat:
    """One whole benchmark of one runtime, as `benchmark` times a cell."""

    runtime: str
    began_s: float
    seconds: float
    load: float | None
    own_ms: Rounds
    control_ms: Rounds
    own_cpu_ms: Rounds | None
    control_cpu_ms: Rounds | None

    def ratios(self, processes: int, slowdown: float = 1.0, clock: str = "cpu") -> tuple[float, ...]:
        """By round, every sample of the model made `slowdown` times as long."""
        own, control = self.own_cpu_ms, self.control_cpu_ms
        if clock == "wall" or own is None or control is None:
            own, control = self.own_ms, self.control_ms
        slow = [[ms * slowdown for ms in samples] for samples in own]
        return round_ratios(slow, control, processes).ratios


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


def measure(
    known: dict[tuple[str, Runtime], Path], side: int, repeats: int, plan: TimingPlan, kept: Path
) -> list[Repeat]:
    """`repeats` of each runtime, in turn; written to `kept` after each, so that a stopped run is not lost."""
    images = np.random.default_rng(0).standard_normal((2, 3, side, side), dtype=np.float32)
    found: list[Repeat] = []
    with progress("benchmark repeats", repeats * len(RUNTIMES) * plan.rounds, "rounds") as bar:
        for _ in range(repeats):
            for runtime in RUNTIMES:
                began, start = time.time(), time.monotonic()
                opened = {"own": known[MODEL, runtime], "control": known[CONTROL, runtime]}
                timed = take_turns(runtime, RUNTIME_OF[runtime], opened, images, plan, bar.advance)
                own, control = timed["own"], timed["control"]
                found.append(
                    Repeat(
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
                write_json(kept, {"processes": plan.processes, "side": side, "repeats": [vars(r) for r in found]})
    return found


def _load() -> float | None:
    """Runnable tasks on average over the last minute."""
    try:
        return float(Path("/proc/loadavg").read_text().split()[0])
    except OSError:
        return None


SLOWDOWNS = (1.0, 1.05, 1.10, 1.20)
PAIRS = 200


def calibrate(source: Source, repeats: Sequence[Repeat], processes: int, seed: int = 0) -> list[dict[str, Any]]:
    """One row for each runtime (and for both in one check), clock and slowdown.

    Every two repeats of a runtime are a pair, PAIRS of them are drawn, and which of the two is the baseline too. Pairs
    share repeats, so they are no independent trials.
    """
    settings, rows = settings_of({}, {}), []
    runtimes = list(dict.fromkeys(r.runtime for r in repeats))
    groups = [[runtime] for runtime in runtimes] + ([runtimes] if len(runtimes) > 1 else [])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "baseline.json"
        for group, clock, slowdown in itertools.product(groups, ("cpu", "wall"), SLOWDOWNS):
            sides = [[r for r in repeats if r.runtime == runtime] for runtime in group]
            pairs = list(itertools.combinations(range(min(map(len, sides))), 2))
            random = np.random.default_rng(seed)
            drawn = [pairs[i] for i in random.permutation(len(pairs))[:PAIRS]]
            verdicts: Counter[str] = Counter()
            for pair in drawn:
                one, other = random.permutation(pair)
                base = _facts(source, [side[one].ratios(processes, 1.0, clock) for side in sides], processes, clock)
                # the first runtime is the one that became slower
                factors = [slowdown, *[1.0] * (len(group) - 1)]
                slow = [side[other].ratios(processes, f, clock) for side, f in zip(sides, factors, strict=True)]
                write_baseline(path, base)
                result = judge(_facts(source, slow, processes, clock), read_baseline(path), settings)
                found = [f.verdict for cell in result.cells for f in cell.findings if f.rule == "latency"]
                verdicts[worst(found) or "none"] += 1
            rows.append(
                {
                    "runtime": " and ".join(group),
                    "clock": clock,
                    "slowdown": slowdown,
                    "repeats": min(map(len, sides)),
                    "pairs": len(drawn),
                    "verdicts": dict(verdicts),
                }
            )
    return rows


def spread(repeats: Sequence[Repeat], processes: int) -> list[dict[str, Any]]:
    """How far ratios are apart: of rounds within a process, of processes, of whole repeats; in percent."""
    rows = []
    for runtime, clock in itertools.product(dict.fromkeys(r.runtime for r in repeats), ("cpu", "wall")):
        logs = np.log([r.ratios(processes, 1.0, clock) for r in repeats if r.runtime == runtime])
        by_process = logs.reshape(len(logs), processes, -1)  # [repeats, processes, rounds of each]
        medians = np.median(by_process, axis=2)
        rounds = by_process.shape[2]
        rows.append(
            {
                "runtime": runtime,
                "clock": clock,
                "ratio": float(np.exp(medians.mean())),
                "rounds_percent": 100 * float(np.sqrt(by_process.var(axis=2, ddof=1).mean())),
                "processes_percent": 100 * float(np.sqrt(medians.var(axis=1, ddof=1).mean())),
                "repeats_percent": 100 * float(medians.mean(axis=1).std(ddof=1)),
                # of repeats if processes were all that differs
                "repeats_expected_percent": 100 * float(np.sqrt(medians.var(axis=1, ddof=1).mean() / processes)),
                "rounds_of_a_process": rounds,
            }
        )
    return rows


def read(kept: Path) -> tuple[list[Repeat], int]:
    """What `measure` wrote: the repeats, and how many processes each has."""
    data = json.loads(kept.read_text())
    return [Repeat(**r) for r in data["repeats"]], int(data["processes"])


def _facts(source: Source, ratios: Sequence[tuple[float, ...]], processes: int, clock: str) -> RunFacts:
    """The source's cell, once for each runtime, with these latencies."""
    host = {"processor": "this", "vector_extensions": "this"}
    cells = []
    for number, each in enumerate(ratios):
        timing = Timing(1, processes, tuple(float(f"{r:.{RATIO_DIGITS}g}") for r in each), None, host, clock=clock)
        key = replace(source.cell.key, device=f"host {number}")
        cells.append(replace(source.cell, key=key, timing=timing))
    return replace(source.facts, cells=tuple(cells))
