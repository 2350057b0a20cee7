"""Latency on this host: a run's artifacts in, raw samples interleaved with MobileNetV2's out.

A cell and its control (MobileNetV2 in the same runtime and precision) are open in one worker process with the same
number of threads, and take turns round by round: what slows the machine for a while slows both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import UsageError
from pipeline.metrics.latency import ratio, summarize
from pipeline.progress import progress
from pipeline.reports.records import OK, CellKey, ConversionRecord, LatencyRecord, Outcome
from pipeline.rundir import Run
from pipeline.stages.artifacts import artifact_path, load_conversions
from pipeline.stages.cell_file import load_cells, save_cells
from pipeline.stages.validate import cell_key, chosen
from targets import registry
from targets.coreml.units import ALL
from targets.devices.host import HostWorker
from targets.types import Session, TargetError

LATENCY = "latency.json"
CONTROL_MODEL = "mobilenet_v2"


@dataclass(frozen=True)
class TimingPlan:
    """How a cell is timed: `warmup` inferences that are kept apart, then `rounds` of `samples` each, in turn."""

    threads: int = 1
    warmup: int = 5
    rounds: int = 10
    samples: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low in (("threads", 1), ("warmup", 0), ("rounds", 1), ("samples", 1)):
            if getattr(self, name) < low:
                raise UsageError(f"--{name} is {getattr(self, name)}: give at least {low}")


@dataclass(frozen=True)
class Control:
    """The MobileNetV2 artifact that a cell is timed against."""

    key: CellKey
    path: Path


def benchmark_run(
    run: Run,
    control_run: Run | None,
    targets: Sequence[str],
    plan: TimingPlan,
    say: Callable[[str], None],
    compute_units: str = ALL,
) -> tuple[LatencyRecord, ...]:
    """Time every artifact of `targets` in every runtime and write latency.json (other targets' cells are kept).

    Args:
        control_run: a run of MobileNetV2 with artifacts; None when there is none, then the records say so.
        compute_units: of Core ML (targets.coreml.units); each choice is a runtime, and cells, of its own.

    Raises:
        UsageError: nothing was converted.
    """
    cells = [
        (c, runtime)
        for c in chosen(run, targets, "benchmark")
        for runtime in registry.runtimes(c.target, compute_units)
    ]
    records = []
    with progress("timing", len(cells) * plan.rounds, "rounds") as bar:
        for conversion, runtime in cells:
            control = _control(run, control_run, conversion, runtime)
            record = _time(run, conversion, runtime, control, plan, bar.advance)
            say(_line(record))
            records.append(record)
    save_cells(run, LATENCY, LatencyRecord, records)
    return tuple(records)


def load_latency(run: Run) -> tuple[LatencyRecord, ...]:
    """Records of earlier benchmarks; empty when there were none."""
    return load_cells(run, LATENCY, LatencyRecord)


def _control(run: Run, control_run: Run | None, conversion: ConversionRecord, runtime: str) -> Control | str:
    """The control's artifact for this cell, or why there is none."""
    if run.model == CONTROL_MODEL:
        return "this model is the control"
    if control_run is None:
        return f"no run of {CONTROL_MODEL} beside this one"
    fitting = [
        r
        for r in load_conversions(control_run)
        if (r.target, r.precision) == (conversion.target, conversion.precision) and r.outcome.status == "ok"
    ]
    same_source = [r for r in fitting if r.source == conversion.source]
    if not fitting:
        return f"run {control_run.id} has no {conversion.precision} artifact for {conversion.target}"
    record = (same_source or fitting)[0]  # trained or calibrated scales make no difference to the time
    return Control(cell_key(record, runtime), artifact_path(control_run, record))


def _time(
    run: Run,
    conversion: ConversionRecord,
    runtime: str,
    control: Control | str,
    plan: TimingPlan,
    advance: Callable[[int], None],
) -> LatencyRecord:
    key = cell_key(conversion, runtime)
    assert conversion.facts is not None
    images = _noise(conversion.facts.inputs[0].shape, plan.seed)
    rounds: list[tuple[float, ...]] = []
    control_rounds: list[tuple[float, ...]] = []
    try:
        with HostWorker() as worker:
            session = worker.open(conversion.target, artifact_path(run, conversion), runtime, plan.threads)
            beside: Session | None = None
            if isinstance(control, Control):
                beside = worker.open(conversion.target, control.path, runtime, plan.threads)
                beside.time(images, plan.warmup)
            warmup = session.time(images, plan.warmup)
            for _ in range(plan.rounds):
                rounds.append(tuple(session.time(images, plan.samples)))
                if beside is not None:
                    control_rounds.append(tuple(beside.time(images, plan.samples)))
                advance(1)
    except TargetError as error:
        advance(plan.rounds - len(rounds))
        return LatencyRecord(key, Outcome.of(error), plan.threads, (), None, None, None, "")
    return LatencyRecord(
        key=key,
        outcome=OK,
        threads=plan.threads,
        warmup_ms=tuple(warmup),
        rounds_ms=tuple(rounds),
        control=control.key if isinstance(control, Control) else None,
        control_rounds_ms=tuple(control_rounds) if isinstance(control, Control) else None,
        control_note=control if isinstance(control, str) else "",
    )


def _noise(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Two images of normalised noise [2, 3, H, W]: the time of these networks does not depend on the picture."""
    return np.random.default_rng(seed).standard_normal((2, *shape[1:]), dtype=np.float32)


def _line(record: LatencyRecord) -> str:
    what = record.key.label
    if record.rounds_ms is None:
        return f"{what}: {record.outcome.status}: {record.outcome.reason}"
    summary = summarize([ms for samples in record.rounds_ms for ms in samples])
    line = (
        f"{what}: median {summary.median_ms:.2f} ms, p90 {summary.p90_ms:.2f} ms "
        f"(n={summary.n}, {record.threads} thread{'s' if record.threads > 1 else ''})"
    )
    if record.control_rounds_ms is None:
        return f"{line}; no control: {record.control_note}"
    beside = ratio(record.rounds_ms, record.control_rounds_ms)
    return f"{line}; {beside.ratio:.2f} x {CONTROL_MODEL} in {beside.rounds} interleaved rounds"
