"""A comparison of two runs in, its tables for a terminal out; readable without colour."""

from __future__ import annotations

import io

from rich.console import Console, Group
from rich.text import Text

from pipeline.reports.compare_record import Comparison
from pipeline.reports.compare_tables import all_tables
from pipeline.reports.terminal import WIDTH, table_renderable
from pipeline.reports.values import printable


def show(comparison: Comparison) -> None:
    """Print on stdout; a narrow terminal wraps the lines of a table, its columns stay whole."""
    Console(width=max(WIDTH, Console().width)).print(_renderable(comparison))


def render(comparison: Comparison) -> str:
    """The same as plain text."""
    buffer = io.StringIO()
    Console(file=buffer, width=WIDTH, color_system=None, force_terminal=False).print(_renderable(comparison))
    return buffer.getvalue()


def _renderable(comparison: Comparison) -> Group:
    lines = [
        f"{side}: {run.run_id}, {run.model}, {run.data}, {run.images} images scored"
        for side, run in (("A", comparison.a), ("B", comparison.b))
    ]
    head = "\n".join([*lines, *comparison.notes])
    return Group(Text(printable(head)), *map(table_renderable, all_tables(comparison)))
