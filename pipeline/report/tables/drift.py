"""A run in, tables of its accuracy and drift by stage out, and of the numbers that left their range in a simulation."""

from __future__ import annotations

from pipeline.records.keys import SIMULATED
from pipeline.records.report import RunRecord
from pipeline.report import cells as simulated
from pipeline.report import values as v
from pipeline.report.cells import Cell, place, qdq_only, run_cells, validated
from pipeline.report.tables.table import Table
from pipeline.report.values import Value
from targets.types import RangeEvent

RANGE_WORDS = {
    "nan": "not a number",
    "overflowed": "overflowed to infinity in half precision",
    "saturated": "clipped by int8",
    "vanished": "vanished to zero in half precision",
}
RANGE_ORDER = tuple(RANGE_WORDS)
STAGE_TITLES = {"float": "float, PyTorch", "fake_quant": "fake-quant, PyTorch", "qdq": "QDQ program, PyTorch"}


def drift_by_stage(run: RunRecord) -> Table:
    """The stages of one run, then each runtime: accuracy, and distance to the float and to the QDQ stage."""
    rows: list[tuple[Value, ...]] = []
    for stage in run.stages:
        is_float = stage.stage == "float"
        rows.append(
            (
                v.words(STAGE_TITLES[stage.stage]),
                v.top1(stage.accuracy),
                v.top5(stage.accuracy),
                v.NONE_HERE if is_float else v.same_class(stage.drift),
                v.NONE_HERE if is_float else v.sqnr(stage.drift),
                v.NONE_HERE,
                v.NONE_HERE,
            )
        )
    for cell in run_cells(run):
        if cell.simulations:
            rows.append((place(cell), *_simulated_drift(cell)))
            continue
        if cell.validation is None or cell.validation.accuracy is None:
            rows.append((place(cell), validated(cell), *[v.NOT_MEASURED] * 5))
            continue
        right, to_float, to_qdq = cell.validation.accuracy, cell.validation.drift_float, cell.validation.drift_qdq
        rows.append(
            (
                place(cell),
                v.top1(right),
                v.top5(right),
                v.same_class(to_float),
                v.sqnr(to_float),
                qdq_only(cell, v.same_class(to_qdq)),
                qdq_only(cell, v.sqnr(to_qdq)),
            )
        )
    return Table(
        title=f"{run.model}: accuracy and drift by stage",
        header=("Stage", "Top-1", "Top-5", "Same as float", "SQNR to float", "Same as QDQ", "SQNR to QDQ"),
        rows=tuple(rows),
        notes=("SQNR and the smallest cosine of one image are over the logits, on the same images at every stage.",),
    )


def range_events(run: RunRecord) -> Table | None:
    """Which operators left the range of their number format in a simulation; None if nothing was simulated."""
    simulations = [r for r in run.validations if r.key.simulated and r.range_events is not None]
    if not simulations:
        return None
    rows = []
    for record in simulations:
        place = v.words(f"{record.key.target} {record.key.precision}\n{record.key.runtime}")
        found: dict[tuple[str, str], list[RangeEvent]] = {}
        for event in record.range_events or ():
            found.setdefault((event.kind, event.op_type), []).append(event)
        for (kind, op_type), events in sorted(found.items(), key=lambda item: RANGE_ORDER.index(item[0][0])):
            total = sum(event.count for event in events)
            first = events[0].operator if len(events) == 1 else f"{events[0].operator} and {len(events) - 1} more"
            rows.append((place, v.words(RANGE_WORDS[kind]), v.count(total), v.words(op_type), v.words(first)))
        if not found:
            rows.append((place, v.words("nothing"), v.count(0), v.NONE_HERE, v.NONE_HERE))
    return Table(
        title=f"{run.model}: numbers that left their range, {SIMULATED}",
        header=("File and rounding model", "What happened", "Numbers", "Operator", "Where first"),
        rows=tuple(rows),
        label_columns=2,
        notes=("Over all images. NaN is counted where it first appears for an image.",),
    )


def _simulated_drift(cell: Cell) -> tuple[Value, ...]:
    records = cell.simulations
    if (why := simulated.outcome(records)) is not None:
        return why, *[v.NOT_MEASURED] * 5
    return (
        simulated.top1(records),
        simulated.top5(records),
        simulated.same_class(records, simulated.drift_float),
        simulated.sqnr(records, simulated.drift_float),
        qdq_only(cell, simulated.same_class(records, simulated.drift_qdq)),
        qdq_only(cell, simulated.sqnr(records, simulated.drift_qdq)),
    )
