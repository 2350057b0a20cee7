"""A run's waterfall in, on how many images any two of its stages give the same top class out."""

from __future__ import annotations

from pipeline.metrics.accuracy import wilson_percent
from pipeline.reports import stage_names
from pipeline.reports.figure import Figure, Matrix
from pipeline.reports.schema import Report
from pipeline.reports.waterfall_record import WaterfallRecord

LEAD = "On how many images two stages give the same top class, right or wrong: more colour, more that differ."


def agreements(report: Report) -> Figure | None:
    """None if no run has a waterfall."""
    matrices = tuple(_matrix(run.model, run.waterfall) for run in report.runs if run.waterfall is not None)
    return Figure("Agreement", LEAD, matrices=matrices) if matrices else None


def _matrix(model: str, record: WaterfallRecord) -> Matrix:
    labels = tuple(stage_names.label(stage, " ") for stage in record.stages)
    fewest = min(count for row in record.agreement for count in row)
    low, high = wilson_percent(fewest, record.n)
    return Matrix(
        title=model,
        labels=labels,
        counts=record.agreement,
        n=record.n,
        caption=f"n {record.n} images. The two furthest apart agree on {fewest}: {100 * fewest / record.n:.2f}%, "
        f"95% Wilson interval {low:.1f}–{high:.1f}.",
    )
