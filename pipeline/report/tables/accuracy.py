"""Tables of accuracy: the overview of all cells, and of one run its drift by stage and what left its range."""

from __future__ import annotations

from pipeline.records.keys import SIMULATED, CellKey
from pipeline.records.latency import Rounds
from pipeline.records.report import Report, RunRecord
from pipeline.records.validation import StageRecord
from pipeline.report import cells as shown
from pipeline.report import values as v
from pipeline.report.cells import Cell, cells, control_model, control_title, run_cells
from pipeline.report.tables.table import Column, Columns, Table
from pipeline.report.values import Value
from targets.types import RangeEvent
from targets.words import first

SIMULATION_NOTE = (
    f"{SIMULATED}: the file's operators computed on this machine under several models of rounding, lowest to highest "
    "figure; no runtime was run, and what a device does inside of an operator is not documented."
)
OVERVIEW_NOTE = (
    "Top-1 with 95% Wilson interval over n images. Median over n single-image samples. × is the middle over n "
    "processes of the ratio of the fastest inferences (of processor time where it was counted; of one process: "
    "over n rounds, of medians), with 95% interval. 1 MB = 10^6 bytes. Peak memory: largest resident set of the worker "
    "process with the file, first inference included, above that with the runtime alone."
)
STAGE_TITLES = {"float": "float, PyTorch", "fake_quant": "fake-quant, PyTorch", "qdq": "QDQ program, PyTorch"}
RANGE_WORDS = {
    "nan": "not a number",
    "overflowed": "overflowed to infinity in half precision",
    "saturated": "clipped by int8",
    "vanished": "vanished to zero in half precision",
}


def overview(report: Report) -> Table:
    """One row for each cell: size, top-1, agreement with the QDQ program, latency, ratio to the control."""
    control = control_model(report)
    as_control: dict[CellKey | None, Rounds | None] = {
        t.control: t.control_rounds_ms for run in report.runs for t in run.latencies if t.control
    }

    def median(cell: Cell) -> Value:
        if cell.latency is None and (rounds := as_control.get(cell.key)):  # timed in another run's rounds
            return v.median(rounds)
        return shown.timed(cell.latency)

    def times(cell: Cell) -> Value:
        found = shown.times_control(cell.latency)
        is_control = found == v.NOT_MEASURED and cell.model == control and median(cell).kind == "figure"
        return v.words("control") if is_control else found

    columns: Columns[Cell] = (
        Column("Model", lambda cell: cell.model),
        Column("Runtime", shown.place),
        Column("Size", lambda cell: cell.conversion, shown.file_size),
        Column("Peak memory", shown.peak_memory),
        Column("Top-1", shown.validated),
        Column("Same class as QDQ", _same_as_qdq),
        Column("Median", median),
        Column(f"× {control_title(report)}", times),
    )
    found = cells(report)
    notes = (OVERVIEW_NOTE, *([SIMULATION_NOTE] if any(cell.simulations for cell in found) else []))
    return Table.of("Overview", columns, found, label_columns=2, notes=notes)


def _same_as_qdq(cell: Cell) -> Value:
    return shown.to_qdq(cell)[0] if cell.simulations or cell.accuracy else v.NOT_MEASURED


def drift_by_stage(run: RunRecord) -> Table:
    """The stages of one run, then each runtime: accuracy, and distance to the float and to the QDQ stage."""
    return Table(
        title=f"{run.model}: accuracy and drift by stage",
        header=("Stage", "Top-1", "Top-5", "Same as float", "SQNR to float", "Same as QDQ", "SQNR to QDQ"),
        rows=(*map(_stage_row, run.stages), *((shown.place(cell), *_drift_row(cell)) for cell in run_cells(run))),
        notes=("SQNR and the smallest cosine of one image are over the logits, on the same images at every stage.",),
    )


def _stage_row(stage: StageRecord) -> tuple[Value, ...]:
    to_float = [v.NONE_HERE] * 2
    if stage.stage != "float":
        to_float = [v.measured(stage.drift, distance) for distance in (v.same_class, v.sqnr)]
    right = stage.accuracy
    return v.words(STAGE_TITLES[stage.stage]), v.top1(right), v.top5(right), *to_float, *[v.NONE_HERE] * 2


def _drift_row(cell: Cell) -> tuple[Value, ...]:
    if not any(record.accuracy for record in cell.records):
        return shown.validated(cell), *[v.NOT_MEASURED] * 5
    return shown.validated(cell), shown.top5(cell), *shown.to_float(cell), *shown.to_qdq(cell)


def range_events(run: RunRecord) -> Table | None:
    """Which operators left the range of their number format in a simulation; None if nothing was simulated."""
    simulations = [r for r in run.validations if r.key.simulated and r.range_events is not None]
    if not simulations:
        return None
    rows: list[tuple[Value, ...]] = []
    for record in simulations:
        where = v.words(f"{record.key.target} {record.key.precision}\n{record.key.runtime}")
        found: dict[tuple[str, str], list[RangeEvent]] = {}
        for event in record.range_events or ():
            found.setdefault((event.kind, event.op_type), []).append(event)
        for (kind, op_type), events in sorted(found.items(), key=lambda item: list(RANGE_WORDS).index(item[0][0])):
            total = sum(event.count for event in events)
            operators = first([event.operator for event in events], 1)
            rows.append((where, v.words(RANGE_WORDS[kind]), v.count(total), v.words(op_type), v.words(operators)))
        if not found:
            rows.append((where, v.words("nothing"), v.count(0), v.NONE_HERE, v.NONE_HERE))
    return Table(
        title=f"{run.model}: numbers that left their range, {SIMULATED}",
        header=("File and rounding model", "What happened", "Numbers", "Operator", "Where first"),
        rows=tuple(rows),
        label_columns=2,
        notes=("Over all images. NaN is counted where it first appears for an image.",),
    )
