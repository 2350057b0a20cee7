"""Tables of latency: summaries of the raw samples next to the control, and instruction counts."""

from __future__ import annotations

from statistics import median

from pipeline.metrics import latency
from pipeline.records.latency import LatencyRecord
from pipeline.records.report import RunRecord
from pipeline.report import values as v
from pipeline.report.cells import place, run_cells, timed, times_float
from pipeline.report.tables.devices import circumstances
from pipeline.report.tables.table import Table, grouped
from pipeline.report.values import Value


def latencies(run: RunRecord) -> Table:
    """Summaries of the raw samples, and the control measured in the same rounds."""
    rows: list[tuple[Value, ...]] = []
    notes: list[tuple[str, str]] = []
    for cell in run_cells(run):
        record = cell.latency
        if cell.simulations:
            continue
        if record is None or record.rounds_ms is None:
            rows.append((place(cell), timed(record)[0], *[v.NOT_MEASURED] * 7, times_float(cell)))
            continue
        summary = latency.summarize([ms for samples in record.rounds_ms for ms in samples])
        control = v.NOT_MEASURED
        if record.control_rounds_ms is not None:
            control = v.median(latency.summarize([ms for samples in record.control_rounds_ms for ms in samples]))
        rows.append(
            (
                place(cell),
                v.median(summary),
                v.milliseconds(summary.p90_ms),
                v.milliseconds(summary.mad_ms),
                v.milliseconds(median(record.load_ms)) if record.load_ms else v.NOT_MEASURED,
                _rounds(record),
                v.count(record.threads),
                control,
                timed(record)[1],
                times_float(cell),
            )
        )
        if record.control_note:
            notes.append((f"{cell.place} {cell.variant}", f"control: {record.control_note}"))
        if record.float_note:
            notes.append((f"{cell.place} {cell.variant}", f"fp32: {record.float_note}"))
        notes += [(f"{cell.place} {cell.variant}", note) for note in circumstances(record)]
    return Table(
        title=f"{run.model}: latency",
        header=("Runtime", "Median", "p90", "MAD", "Load", "Rounds", "Threads", "Control", "× control", "× fp32"),
        rows=tuple(rows),
        notes=(
            "MAD: median absolute deviation from the median. One sample is one image. Load: opening the file as the "
            "first one of a fresh process, median; the system may have the file in memory already.",
            "× fp32: an int8 file over the float32 file of the same model in the same rounds; below 1 it is faster.",
            *grouped(notes),
        ),
    )


def _rounds(record: LatencyRecord) -> Value:
    """How many, over how many fresh processes."""
    spread = f" in {record.processes} processes" if record.processes > 1 else ""
    text = f"{len(record.rounds_ms or ())}{spread}\n{len(record.warmup_ms)} warm-up"
    return Value(text, sort=len(record.rounds_ms or ()))


def instructions(run: RunRecord) -> Table | None:
    """One row for each file that was counted; None for a run without."""
    if not run.instructions:
        return None
    rows: list[tuple[Value, ...]] = []
    for record in run.instructions:
        count = record.count
        rows.append(
            (
                v.words(record.key.label),
                v.outcome(record.outcome) if count is None else _millions(count.per_inference),
                v.NOT_MEASURED if count is None else Value(f"{count.spread:,} in {count.repeats}", sort=count.spread),
                v.NOT_MEASURED if count is None else v.words(count.counted_by),
            )
        )
    return Table(
        title=f"{run.model}: instructions of one inference",
        header=("Runtime", "Instructions", "Spread of counts", "Counted by"),
        rows=tuple(rows),
        notes=(
            "Instructions that an emulated processor executed for one image on one thread, without the start of the "
            "process. They are no time: a change tells that a file does other work than before, not how fast it is.",
        ),
    )


def _millions(count: int) -> Value:
    return Value(f"{count / 1e6:,.2f} M", sort=count)
