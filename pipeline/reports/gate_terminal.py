"""Tables of the gate in, printed on stdout; readable without colour."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from pipeline.reports.table import Table
from pipeline.reports.terminal import WIDTH, table_renderable


def show(tables: Sequence[Table]) -> None:
    """A narrow terminal wraps the lines of a table, its columns stay whole."""
    console = Console(width=max(WIDTH, Console().width))
    for table in tables:
        console.print(table_renderable(table))
