"""The cells of a report: one for each model x target x runtime x precision x device, and how tables show them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.metrics import latency
from pipeline.metrics.accuracy import Accuracy
from pipeline.metrics.drift import Drift
from pipeline.records.conversion import ConversionRecord
from pipeline.records.keys import HOST, SIMULATED, CellKey, Source
from pipeline.records.latency import LatencyRecord
from pipeline.records.report import Report, RunRecord
from pipeline.records.validation import ValidationRecord
from pipeline.report import values as v
from pipeline.report.values import Value
from targets.types import Precision


def place(cell: Cell) -> Value:
    return v.words(f"{cell.place}\n{cell.variant}")


def qdq_only(cell: Cell, value: Value) -> Value:
    """A distance to the QDQ program; a file made from the float program has none unless it was measured."""
    return v.NONE_HERE if cell.source == "float" and value == v.NOT_MEASURED else value


def validated(cell: Cell) -> Value:
    """What stands in the accuracy column where there is no accuracy."""
    return v.NOT_MEASURED if cell.validation is None else v.outcome(cell.validation.outcome)


def timed(record: LatencyRecord | None) -> tuple[Value, Value]:
    """Median, and ratio to the control."""
    if record is None:
        return v.NOT_MEASURED, v.NOT_MEASURED
    if record.rounds_ms is None:
        return v.outcome(record.outcome), v.NOT_MEASURED
    median = v.median(latency.summarize([ms for samples in record.rounds_ms for ms in samples]))
    ratios = record.to_control
    return median, v.NOT_MEASURED if ratios is None else v.times_control(latency.ratio_of(ratios))


def times_float(cell: Cell) -> Value:
    """Ratio to the float32 file of the same model, timed in the same rounds."""
    if cell.precision != "int8":
        return v.NONE_HERE
    ratios = None if cell.latency is None else cell.latency.to_float
    return v.NOT_MEASURED if ratios is None else v.times_control(latency.ratio_of(ratios))


@dataclass(frozen=True)
class Cell:
    """Conversion, validation and latency of one artifact in one runtime; None where that step was not done.

    `runtime` and `device` are None for an artifact that no runtime was tried on. What the reference computed of an
    artifact is a cell of its own, with one record for each rounding model in `simulations` and nothing measured.
    """

    run_id: str
    model: str
    target: str
    precision: Precision
    source: Source
    runtime: str | None
    device: str | None
    conversion: ConversionRecord | None
    validation: ValidationRecord | None
    latency: LatencyRecord | None
    simulations: tuple[ValidationRecord, ...] = ()

    @property
    def variant(self) -> str:
        """Precision, and for int8 where the scales come from: "fp32", "int8 qat", "int8 ptq"."""
        return variant_name(self.precision, self.source)

    @property
    def key(self) -> CellKey | None:
        """What records of other runs call it by; None if no runtime was tried."""
        if self.runtime is None or self.device is None or self.simulations:
            return None
        return CellKey(self.model, self.target, self.runtime, self.precision, self.source, self.device)

    @property
    def place(self) -> str:
        """Target and runtime, named once where both have one name: "executorch", "tflite / litert on adb:0A1B"."""
        if self.simulations:
            return f"{self.target}, {SIMULATED}"
        where = "" if self.device in (None, HOST) else f" on {self.device}"
        if self.runtime is None or self.runtime == self.target:
            return self.target + where
        return f"{self.target} / {self.runtime}{where}"


def variant_name(precision: Precision, source: Source) -> str:
    """ "fp32", "int8 qat"."""
    return precision if source == "float" else f"{precision} {source}"


def cells(report: Report) -> tuple[Cell, ...]:
    """All cells, run by run; within a run in the order of its conversions, then by first appearance."""
    return tuple(cell for run in report.runs for cell in run_cells(run))


def run_cells(run: RunRecord) -> tuple[Cell, ...]:
    """The cells of one run."""
    validations = {record.key: record for record in run.validations}
    latencies = {record.key: record for record in run.latencies}
    keys: dict[tuple[str, Precision, Source], list[CellKey]] = {
        (c.target, c.precision, c.source): [] for c in run.conversions
    }
    measured = [key for key in dict.fromkeys([*validations, *latencies]) if not key.simulated]
    for tried_key in measured:
        keys.setdefault((tried_key.target, tried_key.precision, tried_key.source), []).append(tried_key)
    conversions = {(c.target, c.precision, c.source): c for c in run.conversions}
    found: list[Cell] = []
    for (target, precision, source), tried in keys.items():
        conversion = conversions.get((target, precision, source))
        each: list[CellKey | None] = [*tried] or [None]  # an artifact that was not tried anywhere is a cell too
        for key in each:
            found.append(
                Cell(
                    run_id=run.run_id,
                    model=run.model,
                    target=target,
                    precision=precision,
                    source=source,
                    runtime=key.runtime if key else None,
                    device=key.device if key else None,
                    conversion=conversion,
                    validation=validations.get(key) if key else None,
                    latency=latencies.get(key) if key else None,
                )
            )
        if simulations := _simulations(run, target, precision, source):
            found.append(
                Cell(
                    run.run_id,
                    run.model,
                    target,
                    precision,
                    source,
                    SIMULATED,
                    SIMULATED,
                    conversion,
                    None,
                    None,
                    simulations,
                )
            )
    return tuple(found)


def _simulations(run: RunRecord, target: str, precision: Precision, source: Source) -> tuple[ValidationRecord, ...]:
    return tuple(
        r
        for r in run.validations
        if r.key.simulated and (r.key.target, r.key.precision, r.key.source) == (target, precision, source)
    )


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


Records = Sequence[ValidationRecord]


def outcome(records: Records) -> Value | None:
    """Why there are no figures; None if there are some."""
    if any(r.accuracy is not None for r in records):
        return None
    return v.outcome(records[0].outcome)


def top1(records: Records) -> Value:
    return _counts(records, lambda a: a.top1)


def top5(records: Records) -> Value:
    return _counts(records, lambda a: a.top5)


def drift_float(record: ValidationRecord) -> Drift | None:
    return record.drift_float


def drift_qdq(record: ValidationRecord) -> Drift | None:
    return record.drift_qdq


def same_class(records: Records, drift: Callable[[ValidationRecord], Drift | None]) -> Value:
    found = [d for r in records if (d := drift(r)) is not None]
    if not found:
        return v.NOT_MEASURED
    low, high, n = min(d.agreement_same for d in found), max(d.agreement_same for d in found), found[0].n
    return Value(f"{_percent(low, high, n)}\n{_span(str(low), str(high))} of {n}", sort=low / n)


def sqnr(records: Records, drift: Callable[[ValidationRecord], Drift | None]) -> Value:
    found = [d for r in records if (d := drift(r)) is not None]
    if not found:
        return v.NOT_MEASURED
    if broken := [d for d in found if d.nonfinite]:
        worst = max(d.nonfinite for d in broken)
        return Value("not measured", "not measured", f"NaN or infinity in up to {worst} of {found[0].n} images")
    decibels = sorted(d.sqnr_db for d in found if d.sqnr_db is not None)
    if len(decibels) < len(found):
        return Value("exact", sort=v.EXACT_DB) if not decibels and all(d.exact for d in found) else v.NOT_MEASURED
    text = f"{_span(f'{decibels[0]:.1f}', f'{decibels[-1]:.1f}')} dB\n{_models(len(found))}"
    return Value(text, sort=decibels[0])


def _counts(records: Records, count: Callable[[Accuracy], int | None]) -> Value:
    found = [(c, r.accuracy.n) for r in records if r.accuracy is not None and (c := count(r.accuracy)) is not None]
    if not found:
        return v.NOT_MEASURED
    counts = [c for c, _ in found]
    n = found[0][1]
    text = f"{_percent(min(counts), max(counts), n)}\n{_models(len(found))}, n {n}"
    return Value(text, sort=min(counts) / n)


def _percent(low: int, high: int, n: int) -> str:
    return f"{_span(f'{100 * low / n:.2f}', f'{100 * high / n:.2f}')}%"


def _span(low: str, high: str) -> str:
    return low if low == high else f"{low}–{high}"


def _models(count: int) -> str:
    return f"{count} model{'' if count == 1 else 's'}"
