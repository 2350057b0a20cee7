"""A report in, its first table out: one row for each cell of every run."""

from __future__ import annotations

from pipeline.metrics import latency
from pipeline.records.conversion import ConversionRecord
from pipeline.records.keys import SIMULATED, CellKey
from pipeline.records.latency import Rounds
from pipeline.records.report import Report
from pipeline.report import cells as simulated
from pipeline.report import values as v
from pipeline.report.cells import cells, control_model, control_title, place, qdq_only, timed, validated
from pipeline.report.tables.table import Table
from pipeline.report.values import Value

SIMULATION_NOTE = (
    f"{SIMULATED}: the file's operators computed on this machine under several models of rounding, lowest to highest "
    "figure; no runtime was run, and what a device does inside of an operator is not documented."
)


def overview(report: Report) -> Table:
    """One row for each cell: size, top-1, agreement with the QDQ program, latency, ratio to the control."""
    rows = []
    as_control: dict[CellKey | None, Rounds | None] = {
        t.control: t.control_rounds_ms for run in report.runs for t in run.latencies if t.control
    }
    for cell in cells(report):
        validation = cell.validation
        right, same = validated(cell), v.NOT_MEASURED
        if validation is not None and validation.accuracy is not None:
            right = v.top1(validation.accuracy)
            same = qdq_only(cell, v.same_class(validation.drift_qdq))
        if cell.simulations:
            right = simulated.outcome(cell.simulations) or simulated.top1(cell.simulations)
            same = qdq_only(cell, simulated.same_class(cell.simulations, simulated.drift_qdq))
        time, times = timed(cell.latency)
        if cell.latency is None and (rounds := as_control.get(cell.key)):  # timed in another run's rounds
            time = v.median(latency.summarize([ms for samples in rounds for ms in samples]))
        if times == v.NOT_MEASURED and time.kind == "figure" and cell.model == control_model(report):
            times = v.words("control")
        rows.append((v.words(cell.model), place(cell), _size(cell.conversion), right, same, time, times))
    return Table(
        title="Overview",
        header=("Model", "Runtime", "Size", "Top-1", "Same class as QDQ", "Median", f"× {control_title(report)}"),
        rows=tuple(rows),
        label_columns=2,
        notes=(
            "Top-1 with 95% Wilson interval over n images. Median over n single-image samples. × is the middle over n "
            "processes of the ratio of the fastest inferences (of processor time where it was counted; of one process: "
            "over n rounds, of medians), with 95% interval. 1 MB = 10^6 bytes.",
            *([SIMULATION_NOTE] if any(cell.simulations for cell in cells(report)) else []),
        ),
    )


def _size(record: ConversionRecord | None) -> Value:
    if record is None:
        return v.NOT_MEASURED
    if record.outcome.status != "ok" or record.facts is None:
        return v.outcome(record.outcome)
    return v.megabytes(record.facts.size_bytes)
