"""The report on the terminal: the overview, then the tables of its first run."""

from __future__ import annotations

import io

from rich.console import Console, Group

from pipeline.records.report import Report
from pipeline.report.plots.waterfall import stages
from pipeline.report.tables.artifacts import artifacts
from pipeline.report.tables.drift import drift_by_stage, range_events
from pipeline.report.tables.latency import latencies
from pipeline.report.tables.mixed import mixed_precision
from pipeline.report.tables.overview import overview
from pipeline.report.tables.printed import WIDTH, console, table_renderable


def renderable(report: Report) -> Group:
    """What a rich console prints: the overview, then the report's first run; the files have the rest."""
    run = report.runs[0]
    makers = (stages, mixed_precision, drift_by_stage, range_events, artifacts, latencies)
    tables = (overview(report), *(make(run) for make in makers))
    return Group(*(table_renderable(table) for table in tables if table is not None))


def show(report: Report) -> None:
    """Print on stdout."""
    console().print(renderable(report))


def render(report: Report, width: int = WIDTH) -> str:
    """The same as plain text."""
    buffer = io.StringIO()
    Console(file=buffer, width=width, color_system=None, force_terminal=False).print(renderable(report))
    return buffer.getvalue()
