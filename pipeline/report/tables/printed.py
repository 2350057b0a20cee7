"""Print tables on the terminal; readable without colour."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from pipeline.report.tables.table import Table, reasons
from pipeline.report.values import Value, printable

WIDTH = 110
LABEL_WIDTH = 11  # a column that names the row must not be squeezed away by the figures beside it
STYLES = {"figure": "", "text": "", "not measured": "dim", "unavailable": "yellow", "failed": "bold red"}


def console() -> Console:
    """On stdout; a narrow terminal wraps the lines of a table, its columns stay whole."""
    return Console(width=max(WIDTH, Console().width))


def print_tables(tables: Iterable[Table]) -> None:
    """Print on stdout."""
    out = console()
    for table in tables:
        out.print(table_renderable(table))


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
