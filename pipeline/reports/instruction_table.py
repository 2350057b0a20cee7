"""Instruction counts of a run in, their table out."""

from __future__ import annotations

from pipeline.reports import values as v
from pipeline.reports.schema import RunRecord
from pipeline.reports.table import Table
from pipeline.reports.values import Value


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
