"""The cells of a report, one for each model x target x runtime x precision x device, and how tables show them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

from pipeline.metrics.accuracy import Accuracy
from pipeline.metrics.drift import Drift
from pipeline.metrics.latency import RoundRatios, ratio_of
from pipeline.records.conversion import ConversionRecord
from pipeline.records.keys import HOST, SIMULATED, ArtifactKey, CellKey
from pipeline.records.latency import LatencyRecord
from pipeline.records.report import Report, RunRecord
from pipeline.records.validation import ValidationRecord
from pipeline.records.waterfall import WaterfallRecord, WaterfallStage
from pipeline.report import values as v
from pipeline.report.values import Value
from targets.words import plural


@dataclass(frozen=True)
class Cell:
    """Conversion, validation and latency of one artifact in one runtime; None where that step was not done.

    What the reference computed of an artifact is a cell of its own, with one record for each rounding model in
    `simulations` and nothing measured.

    Attributes:
        key: what records of other runs call it by; None for a simulation, and where no runtime was tried.
    """

    model: str
    file: ArtifactKey
    key: CellKey | None
    conversion: ConversionRecord | None
    validation: ValidationRecord | None
    latency: LatencyRecord | None
    simulations: tuple[ValidationRecord, ...] = ()

    @property
    def accuracy(self) -> Accuracy | None:
        """Of its runtime; a simulation has none."""
        return None if self.validation is None else self.validation.accuracy

    @property
    def records(self) -> tuple[ValidationRecord, ...]:
        """What was validated of it: one record of a runtime, or one for each rounding model."""
        return self.simulations or ((self.validation,) if self.validation else ())

    @property
    def place(self) -> str:
        """Target and runtime, named once where both have one name: "executorch", "tflite / litert on adb:0A1B"."""
        target = self.file.target
        if self.key is None:
            return f"{target}, {SIMULATED}" if self.simulations else target
        where = "" if self.key.device == HOST else f" on {self.key.device}"
        return (target if self.key.runtime == target else f"{target} / {self.key.runtime}") + where


def cells(report: Report) -> tuple[Cell, ...]:
    """All cells, run by run; within a run in the order of its conversions, then by first appearance."""
    return tuple(cell for run in report.runs for cell in run_cells(run))


def run_cells(run: RunRecord) -> tuple[Cell, ...]:
    """The cells of one run; an artifact that was not tried anywhere is one too."""
    validations: dict[CellKey | None, ValidationRecord] = {record.key: record for record in run.validations}
    latencies: dict[CellKey | None, LatencyRecord] = {record.key: record for record in run.latencies}
    conversions = {record.artifact: record for record in run.conversions}
    measured = [key for key in dict.fromkeys([*validations, *latencies]) if key is not None and not key.simulated]
    found: list[Cell] = []
    for file in dict.fromkeys([*conversions, *(key.artifact for key in measured)]):
        cell = partial(Cell, run.model, file, conversion=conversions.get(file))
        keys: list[CellKey | None] = [key for key in measured if key.artifact == file] or [None]
        found += [cell(key, validation=validations.get(key), latency=latencies.get(key)) for key in keys]
        simulations = tuple(r for r in run.validations if r.key.simulated and r.key.artifact == file)
        if simulations:
            found.append(cell(None, validation=None, latency=None, simulations=simulations))
    return tuple(found)


def control_model(report: Report) -> str | None:
    """The model that latencies are compared with; None if no latency has a control."""
    for run in report.runs:
        for record in run.latencies:
            if record.control is not None:
                return record.control.model
    return None


def control_title(report: Report) -> str:
    """Its name for a heading."""
    model = control_model(report)
    return {"mobilenet_v2": "MobileNetV2", None: "control"}.get(model, model or "control")


# What tables show of a cell. A simulation has one record for each rounding model: they show the lowest and highest.


def place(cell: Cell) -> Value:
    return v.words(f"{cell.place}\n{cell.file.variant}")


def validated(cell: Cell) -> Value:
    """Top-1, of a simulation as an interval over the rounding models; or why there is none."""
    if not cell.records:
        return v.NOT_MEASURED
    if all(record.accuracy is None for record in cell.records):
        return v.outcome(cell.records[0].outcome)
    return _counts(cell.simulations, lambda a: a.top1) if cell.accuracy is None else v.top1(cell.accuracy)


def top5(cell: Cell) -> Value:
    if cell.accuracy is None:
        return _counts(cell.simulations, lambda a: a.top5)
    return v.top5(cell.accuracy)


def to_float(cell: Cell) -> tuple[Value, Value]:
    """Answers that are the same as those of the float model, and SQNR to it."""
    return _distances(cell, [record.drift_float for record in cell.records])


def to_qdq(cell: Cell) -> tuple[Value, Value]:
    """To the QDQ program; a file made from the float program has no distance unless it was measured."""
    same, ratio = (
        v.NONE_HERE if cell.file.source == "float" and value == v.NOT_MEASURED else value
        for value in _distances(cell, [record.drift_qdq for record in cell.records])
    )
    return same, ratio


def _distances(cell: Cell, drifts: Sequence[Drift | None]) -> tuple[Value, Value]:
    measured = [drift for drift in drifts if drift is not None]
    if not measured:
        return v.NOT_MEASURED, v.NOT_MEASURED
    if cell.simulations:
        return _same_class(measured), _sqnr(measured)
    return v.same_class(measured[0]), v.sqnr(measured[0])


def file_size(record: ConversionRecord) -> Value:
    """Of the file, or why there is none."""
    if record.outcome.status != "ok" or record.facts is None:
        return v.outcome(record.outcome)
    return v.megabytes(record.facts.size_bytes)


def timed(record: LatencyRecord | None) -> Value:
    """Median of the samples, or why there are none."""
    if record is None:
        return v.NOT_MEASURED
    return v.outcome(record.outcome) if record.rounds_ms is None else v.median(record.rounds_ms)


def peak_memory(cell: Cell) -> Value:
    if cell.simulations:
        return v.NONE_HERE
    return v.measured(None if cell.validation is None else cell.validation.peak_bytes, v.peak_memory)


def load_time(cell: Cell) -> Value:
    """Median over fresh processes of a benchmark, else that of the process that was validated in."""
    if cell.latency is not None and cell.latency.load_ms:
        return v.milliseconds(median(cell.latency.load_ms))
    return v.measured(None if cell.validation is None else cell.validation.load_ms, v.milliseconds)


def times_control(record: LatencyRecord | None) -> Value:
    """Ratio to the control."""
    return v.measured(None if record is None else record.to_control, _times)


def times_float(cell: Cell) -> Value:
    """Ratio to the float32 file of the same model, timed in the same rounds."""
    if cell.file.precision != "int8":
        return v.NONE_HERE
    return v.measured(None if cell.latency is None else cell.latency.to_float, _times)


def _times(ratios: RoundRatios) -> Value:
    return v.times_control(ratio_of(ratios))


def _same_class(drifts: Sequence[Drift]) -> Value:
    low, high, n = min(d.agreement_same for d in drifts), max(d.agreement_same for d in drifts), drifts[0].n
    return Value(f"{_percent(low, high, n)}\n{_span(str(low), str(high))} of {n}", sort=low / n)


def _sqnr(drifts: Sequence[Drift]) -> Value:
    if worst := max(drift.nonfinite for drift in drifts):
        return Value("not measured", "not measured", f"NaN or infinity in up to {worst} of {drifts[0].n} images")
    decibels = sorted(d.sqnr_db for d in drifts if d.sqnr_db is not None)
    if len(decibels) < len(drifts):
        return Value("exact", sort=v.EXACT_DB) if not decibels and all(d.exact for d in drifts) else v.NOT_MEASURED
    text = f"{_span(f'{decibels[0]:.1f}', f'{decibels[-1]:.1f}')} dB\n{plural(len(drifts), 'model')}"
    return Value(text, sort=decibels[0])


def _counts(records: Sequence[ValidationRecord], count: Callable[[Accuracy], int | None]) -> Value:
    found = [(c, r.accuracy.n) for r in records if r.accuracy is not None and (c := count(r.accuracy)) is not None]
    if not found:
        return v.NOT_MEASURED
    low, high, n = min(found)[0], max(found)[0], found[0][1]
    return Value(f"{_percent(low, high, n)}\n{plural(len(found), 'model')}, n {n}", sort=low / n)


def _percent(low: int, high: int, n: int) -> str:
    return f"{_span(f'{100 * low / n:.2f}', f'{100 * high / n:.2f}')}%"


def _span(low: str, high: str) -> str:
    return low if low == high else f"{low}–{high}"


# What plots and tables call a stage of the waterfall.

TORCH_LABELS = {
    "official": "official",
    "deploy": "deploy form",
    "trained": "trained",
    "fake_quant": "fake-quant",
    "qdq": "QDQ",
}


def stage_label(stage: WaterfallStage, separator: str = " ") -> str:
    """Of a torch stage its name, of an artifact its runtime and variant: "QDQ", "mil-fp16 (simulated) int8 qat"."""
    if stage.cell is None:
        return TORCH_LABELS[stage.name]
    runtime = f"{stage.cell.runtime} (simulated)" if stage.cell.simulated else stage.cell.runtime
    return f"{runtime}{separator}{stage.cell.artifact.variant}"


def class_name(record: WaterfallRecord, label: int | None) -> str:
    """By its number; a top class of None has a NaN among its logits."""
    if label is None:
        return "no class (NaN)"
    return record.class_names[label] if label < len(record.class_names) else f"class {label}"
