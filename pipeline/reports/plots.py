"""A report in, the figures of its page out, in reading order."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.reports.accuracy_plot import accuracy_against_latency
from pipeline.reports.agreement_matrix import agreements
from pipeline.reports.class_plot import by_class
from pipeline.reports.coverage_plot import coverage
from pipeline.reports.drift_plot import drift_by_stage
from pipeline.reports.figure import Figure
from pipeline.reports.flipped_images import flipped
from pipeline.reports.latency_plot import latency_samples
from pipeline.reports.layer_plot import layers
from pipeline.reports.schema import Report
from pipeline.reports.size_plot import sizes
from pipeline.reports.waterfall_figure import waterfalls

FIGURES: tuple[Callable[[Report], Figure | None], ...] = (
    waterfalls,
    drift_by_stage,
    accuracy_against_latency,
    agreements,
    by_class,
    flipped,
    layers,
    coverage,
    sizes,
    latency_samples,
)


def figures(report: Report) -> tuple[Figure, ...]:
    """Those that this report has something to say about, and those that were not measured."""
    made = (make(report) for make in FIGURES)
    return tuple(figure for figure in made if figure is not None)
