"""A report and a width in, tables for a terminal out; readable without colour."""

from __future__ import annotations

import io

from rich import box
from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from pipeline.reports.artifact_table import artifacts
from pipeline.reports.drift_table import drift_by_stage, range_events
from pipeline.reports.latency_table import latencies
from pipeline.reports.mixed_table import mixed_precision
from pipeline.reports.overview_table import overview
from pipeline.reports.schema import Report
from pipeline.reports.table import Table, reasons
from pipeline.reports.values import Value, printable
from pipeline.reports.waterfall_figure import stages

WIDTH = 110
LABEL_WIDTH = 11  # a column that names the row must not be squeezed away by the figures beside it
STYLES = {"figure": "", "text": "", "not measured": "dim", "unavailable": "yellow", "failed": "bold red"}


def renderable(report: Report) -> Group:
    """What a rich console prints: the overview, then the report's first run; the files have the rest."""
    run = report.runs[0]
    makers = (stages, mixed_precision, drift_by_stage, range_events, artifacts, latencies)
    tables = (overview(report), *(make(run) for make in makers))
    return Group(*(table_renderable(table) for table in tables if table is not None))


def show(report: Report) -> None:
    """Print on stdout; a narrow terminal wraps the lines of the table, its columns stay whole."""
    console = Console()
    Console(width=max(WIDTH, console.width)).print(renderable(report))


def show_table(table: Table) -> None:
    """Print one table on stdout."""
    console = Console()
    Console(width=max(WIDTH, console.width)).print(table_renderable(table))


def render(report: Report, width: int = WIDTH) -> str:
    """The same as plain text."""
    buffer = io.StringIO()
    Console(file=buffer, width=width, color_system=None, force_terminal=False).print(renderable(report))
    return buffer.getvalue()


def table_renderable(table: Table) -> Group:
    """One table with its notes and the reasons of what is not ok."""
    grid = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for index, name in enumerate(table.header):
        if index < table.label_columns:
            grid.add_column(_text(name), overflow="fold", min_width=LABEL_WIDTH)
        else:
            width = _width(name, [row[index] for row in table.rows])
            grid.add_column(_text(name), justify="right", width=width, overflow="fold")
    for row in table.rows:
        grid.add_row(*(_text(value.text, STYLES[value.kind]) for value in row))
    notes = (*reasons(table), *table.notes)
    return Group(
        _text(f"\n{table.title}", "bold"), grid, *(Padding(_text(note, "dim"), (0, 0, 0, 2)) for note in notes)
    )


def _text(text: str, style: str = "") -> Text:
    return Text(printable(text), style)  # Text, not str: no markup is read from names


def _width(header: str, column: list[Value]) -> int:
    """Characters that a column needs: words may wrap, a figure may not (broken over two lines it reads as two)."""
    pieces = header.split()
    for value in column:
        pieces += value.text.split("\n") if value.kind == "figure" else value.text.split()
    return max(map(len, pieces))
