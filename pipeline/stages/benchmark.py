"""Time a run's artifacts on one device, interleaved with what they are compared with (pipeline.stages.against).

A cell, its control (MobileNetV2 or another model, in the same runtime and precision) and, if it is int8, the float32
file of the same model are open in one worker process with the same number of threads, and take turns
(pipeline.stages.timing). On this host the cells take turns too, process by process: what changes on the machine in a
minute or two is then within each cell's spread. On a device that can be unplugged they follow each other, and each is
kept as soon as it is done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np

from pipeline.config import TimingPlan
from pipeline.metrics.latency import ratio_of, summarize
from pipeline.progress import Say, progress
from pipeline.records.conversion import ConversionRecord
from pipeline.records.keys import OK, CellKey, Outcome
from pipeline.records.latency import LatencyRecord
from pipeline.run.cells import artifact_path, cell_key, chosen, load_latency, save_cells
from pipeline.run.facts import CONTROL_MODEL
from pipeline.run.folder import Run
from pipeline.run.layout import LATENCY
from pipeline.stages.against import ok
from pipeline.stages.devices import Place
from pipeline.stages.timing import COLD_LOADS, Timed, TimingFailed, cold_load, joined, noise, one_process
from targets import registry
from targets.types import TargetError
from targets.words import plural
from targets.worker.facts import Conditions

OWN, CONTROL, FLOAT = "own", "control", "float"  # names of the files that take turns
IMAGES = 2  # that each is timed on in turn


@dataclass(frozen=True)
class Beside:
    """Another artifact that takes turns with a cell's."""

    key: CellKey
    path: Path
    images: np.ndarray


@dataclass
class _Job:
    """One artifact in one runtime while it is timed, process by process."""

    key: CellKey
    runtime: str
    path: Path
    sha256: str | None
    images: np.ndarray
    control: Beside | str
    floating: Beside | str
    outcome: Outcome = OK
    parts: list[dict[str, Timed]] = field(default_factory=list)
    conditions: list[Conditions] = field(default_factory=list)
    more_loads_ms: list[float] = field(default_factory=list)

    @property
    def beside(self) -> dict[str, Beside]:
        others = {CONTROL: self.control, FLOAT: self.floating}
        return {name: other for name, other in others.items() if isinstance(other, Beside)}

    @property
    def files(self) -> dict[str, Path]:
        return {OWN: self.path} | {name: other.path for name, other in self.beside.items()}

    def time(self, on: Place, plan: TimingPlan, number: int, advance: Callable[[int], None]) -> None:
        """One process of the plan; a cell that failed before is left out."""
        rounds = plan.rounds // plan.processes
        if not on.device.times:
            self.outcome = Outcome("unavailable", "run", "its instructions are emulated: latency is not measured there")
        if self.outcome.status == "ok":
            try:
                self.conditions.append(on.enter())
                images = {OWN: self.images} | {name: other.images for name, other in self.beside.items()}
                part = one_process(self.key.target, self.runtime, self.files, images, plan, number, on.device.worker)
                self.parts.append(part)
            except TimingFailed as failed:
                if failed.name == FLOAT and failed.error.stage != "device":
                    self.floating = f"the fp32 artifact failed: {failed.error}"
                    self.time(on, plan, number, advance)
                    return
                self.outcome = Outcome.of(failed.error)
            except TargetError as error:
                self.outcome = Outcome.of(error)
        advance(rounds)

    def finish(self, on: Place, plan: TimingPlan) -> None:
        """What is measured after the rounds: loads in processes of their own, if the rounds' were too few."""
        try:
            cold = sum(len(part[OWN].load_ms) for part in self.parts)
            for _ in range(COLD_LOADS - cold if self.outcome.status == "ok" else 0):
                ms = cold_load(self.key.target, self.runtime, self.path, plan.threads, on.device.worker)
                self.more_loads_ms += [] if ms is None else [ms]
            if self.outcome.status == "ok":
                self.conditions.append(on.device.conditions())
        except TargetError as error:
            self.outcome = Outcome.of(error)

    def record(self, on: Place, plan: TimingPlan) -> LatencyRecord:
        known = None if on.is_host else on.facts
        if self.outcome.status != "ok":
            return LatencyRecord(
                self.key, self.outcome, plan.threads, (), None, None, None, "", device=known,
                conditions=tuple(self.conditions), sha256=self.sha256,
            )  # fmt: skip
        timed = joined(self.parts, list(self.files))
        own, control, floating = timed[OWN], timed.get(CONTROL), timed.get(FLOAT)
        return LatencyRecord(
            key=self.key,
            outcome=OK,
            threads=plan.threads,
            warmup_ms=own.warmup_ms,
            rounds_ms=own.rounds_ms,
            control=self.control.key if isinstance(self.control, Beside) else None,
            control_rounds_ms=control.rounds_ms if control else None,
            control_note=self.control if isinstance(self.control, str) else "",
            processes=plan.processes,
            float_key=self.floating.key if isinstance(self.floating, Beside) else None,
            float_rounds_ms=floating.rounds_ms if floating else None,
            float_note=self.floating if isinstance(self.floating, str) else "",
            host=on.machine,
            cpu_rounds_ms=own.cpu_rounds_ms,
            control_cpu_rounds_ms=control.cpu_rounds_ms if control else None,
            float_cpu_rounds_ms=floating.cpu_rounds_ms if floating else None,
            sha256=self.sha256,
            device=known,
            conditions=tuple(self.conditions),
            cpus=on.cpus,
            load_ms=(*own.load_ms, *self.more_loads_ms),
            steady=own.steady,
            inferences_per_sample=own.per_sample,
        )


def benchmark_run(
    run: Run,
    control_run: Run | None,
    targets: Sequence[str],
    plan: TimingPlan,
    say: Say,
    compute_units: str = registry.ALL_UNITS,
    on: Place | None = None,
    resume: bool = False,
    floating: bool = True,
) -> tuple[LatencyRecord, ...]:
    """Time every artifact of `targets` in every runtime and write latency.json (other cells of it are kept).

    Args:
        control_run: a run of MobileNetV2, or of another model, with artifacts; None when there is none, then the
            records say so.
        compute_units: a choice of hardware, where a target has it; each choice is a runtime, and cells, of its own.
        on: the device; None: this host.
        resume: leave out cells that were timed there before, with this file and this plan.
        floating: an int8 file takes turns with the float32 file of the same model.

    Raises:
        UsageError: nothing was converted.
        TargetError: stage "device", the device cannot be reached at all.
    """
    on = on or Place.host()
    on.reach(say)
    cells = []
    for conversion, runtime in on.runtimes(chosen(run, targets, "benchmark"), compute_units):
        cell = _Job(
            key=cell_key(conversion, runtime, on.label),
            runtime=runtime,
            path=artifact_path(run, conversion),
            sha256=conversion.sha256,
            images=noise(run, conversion, IMAGES, plan.seed),
            control=_control(run, control_run, conversion, runtime, on.label, plan.seed),
            floating=(
                _float(run, conversion, runtime, on.label, plan.seed) if floating else "not asked for (--against float)"
            ),
        )
        cells.append(cell)
    before = {record.key: record for record in load_latency(run)} if resume else {}
    kept = {cell.key: before[cell.key] for cell in cells if _is_done(before.get(cell.key), cell, on, plan)}
    for key in kept:
        say(f"{key.label}: timed before, left as it is")
    left = [cell for cell in cells if cell.key not in kept]
    made: dict[CellKey, LatencyRecord] = {}

    def finish(cell: _Job) -> None:
        cell.finish(on, plan)
        made[cell.key] = cell.record(on, plan)
        say(_line(made[cell.key]))
        save_cells(run, LATENCY, LatencyRecord, [made[cell.key]])

    def take(advance: Callable[[int], None]) -> None:
        if on.is_host:
            for number, cell in product(range(plan.processes), left):
                cell.time(on, plan, number, advance)
        for cell in left:
            if not on.is_host:
                for number in range(plan.processes):
                    cell.time(on, plan, number, advance)
            finish(cell)

    if on.device.times:
        with progress(f"timing on {on.label}", len(left) * plan.rounds, "rounds") as bar:
            take(bar.advance)
    else:
        take(lambda rounds: None)
    return tuple(kept.get(cell.key) or made[cell.key] for cell in cells)


def _is_done(record: LatencyRecord | None, cell: _Job, on: Place, plan: TimingPlan) -> bool:
    """Whether an earlier record is what this plan would measure."""
    return (
        record is not None
        and record.rounds_ms is not None
        and record.sha256 == cell.sha256
        and (record.threads, record.processes, record.cpus) == (plan.threads, plan.processes, on.cpus)
        and len(record.rounds_ms) == plan.rounds
        and all(len(samples) * record.inferences_per_sample >= plan.samples for samples in record.rounds_ms)
        and dict(record.host) == on.machine
    )


def _control(
    run: Run, control_run: Run | None, conversion: ConversionRecord, runtime: str, device: str, seed: int
) -> Beside | str:
    """The control's artifact for this cell, or why there is none."""
    if control_run is None:
        return (
            "this model is the control" if run.model == CONTROL_MODEL else f"no run of {CONTROL_MODEL} beside this one"
        )
    wanted = (conversion.target, conversion.precision)
    fitting = [r for r in ok(control_run) if (r.target, r.precision) == wanted]
    same_source = [r for r in fitting if r.source == conversion.source]
    if not fitting:
        return f"run {control_run.id} has no {conversion.precision} artifact for {conversion.target}"
    record = (same_source or fitting)[0]  # trained or calibrated scales make no difference to the time
    return _beside(control_run, record, runtime, device, seed)


def _beside(run: Run, record: ConversionRecord, runtime: str, device: str, seed: int) -> Beside:
    key = cell_key(record, runtime, device)
    return Beside(key, artifact_path(run, record), noise(run, record, IMAGES, seed))


def _float(run: Run, conversion: ConversionRecord, runtime: str, device: str, seed: int) -> Beside | str:
    """The float32 file of the same model for an int8 cell, or why there is none."""
    if conversion.precision != "int8":
        return "this file is not int8"
    for record in ok(run):
        if (record.target, record.precision) == (conversion.target, "fp32"):
            return _beside(run, record, runtime, device, seed)
    return f"run {run.id} has no fp32 artifact for {conversion.target}: `convert` makes it"


def _line(record: LatencyRecord) -> str:
    what = record.key.label
    if record.rounds_ms is None:
        return f"{what}: {record.outcome.status}: {record.outcome.reason}"
    summary = summarize([ms for samples in record.rounds_ms for ms in samples])
    line = (
        f"{what}: median {summary.median_ms:.2f} ms, p90 {summary.p90_ms:.2f} ms "
        f"(n={summary.n}, {plural(record.threads, 'thread')})"
    )
    slowing = record.throttling
    if slowing is not None and slowing.flagged:
        line += (
            f"; THROTTLED: {slowing.slowdown:.2f} x slower at the end ({slowing.shape} from round {slowing.at_round})"
        )
    times_float = f"; {ratio_of(record.to_float).ratio:.2f} x fp32" if record.to_float else ""
    if record.to_control is None or record.control is None:
        return f"{line}{times_float}; no control: {record.control_note}"
    beside = ratio_of(record.to_control)
    spread = "" if beside.low is None else f" ({beside.low:.2f}-{beside.high:.2f})"
    over = f"{record.processes} processes" if record.processes > 1 else f"{beside.rounds} interleaved rounds"
    return f"{line}; {beside.ratio:.2f} x {record.control.model}{spread} over {over}{times_float}"
