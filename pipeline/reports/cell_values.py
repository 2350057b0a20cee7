"""A cell in, the values of it that several tables show out: its place, its outcome, its latency."""

from __future__ import annotations

from pipeline.metrics import latency
from pipeline.reports import values as v
from pipeline.reports.cells import Cell
from pipeline.reports.records import LatencyRecord
from pipeline.reports.values import Value


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
