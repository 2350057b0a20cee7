"""The first table of a run: each file beside the float32 file of the same model in the same runtime."""

from __future__ import annotations

from dataclasses import replace

from pipeline.records.report import Report
from pipeline.report import cells as shown
from pipeline.report import values as v
from pipeline.report.cells import Cell, control_title, run_cells
from pipeline.report.tables.table import Column, Columns, Table
from pipeline.report.values import Value

NOTE = (
    "Beside each file the float32 file of the same model in the same runtime. Top-1 is of the same images, latency of "
    "the same interleaved rounds: below 1× the file is faster. `convert` makes the float32 files."
)


def beside_float(report: Report) -> Table | None:
    """Accuracy, size and speed of every file that is not float32, of the report's first run; None without any."""
    run = report.runs[0]
    found = run_cells(run)
    floats = {_where(cell): cell for cell in found if cell.file.precision == "fp32"}
    files = {record.target: record for record in run.conversions if record.precision == "fp32"}
    rows = [cell for cell in found if cell.file.precision != "fp32"]
    if not rows:
        return None

    def top1(cell: Cell) -> Value:
        float32 = floats.get(_where(cell))
        return v.NOT_MEASURED if float32 is None else shown.validated(float32)

    def size(cell: Cell) -> Value:
        own, float32 = (v.measured(file, shown.file_size) for file in (cell.conversion, files.get(cell.file.target)))
        return _above(own, float32)

    def median(cell: Cell) -> Value:
        float32 = floats.get(_where(cell))
        of_float = v.NOT_MEASURED if float32 is None else shown.timed(float32.latency)
        if cell.latency is not None and cell.latency.float_rounds_ms is not None:  # in the same rounds
            of_float = v.median(cell.latency.float_rounds_ms)
        return _above(shown.timed(cell.latency), of_float)

    columns: Columns[Cell] = (
        Column("Runtime", shown.place),
        Column("Top-1", shown.validated),
        Column("Top-1 of float32", top1),
        Column("Size / float32", size),
        Column("Median / float32", median),
        Column("× float32", shown.times_float),
        Column(f"× {control_title(report)}", lambda cell: shown.times_control(cell.latency)),
    )
    return Table.of(f"{run.model}: beside float32", columns, rows, notes=(NOTE,))


def _above(own: Value, float32: Value) -> Value:
    """One figure above the other, which leaves room for the other columns; what else is said of the first below."""
    if own == float32 == v.NOT_MEASURED:
        return v.NOT_MEASURED
    figure, *more = own.text.split("\n")
    return replace(own, text="\n".join((figure, float32.text.split("\n")[0], *more)))


def _where(cell: Cell) -> tuple[str, str | None, str | None, bool]:
    runtime, device = (cell.key.runtime, cell.key.device) if cell.key else (None, None)
    return cell.file.target, runtime, device, bool(cell.simulations)
