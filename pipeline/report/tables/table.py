"""Tables: columns over rows make a table of values, which the terminal, Markdown and HTML lay out."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from pipeline.report.values import Value, measured, printable, words

WIDTH = 110
LABEL_WIDTH = 11  # a column that names the row must not be squeezed away by the figures beside it
STYLES = {"figure": "", "text": "", "not measured": "dim", "unavailable": "yellow", "failed": "bold red"}

# `_` only at the edge of a word: inside one (t2t_vit_10) it is no emphasis in GitHub's Markdown
SPECIAL = re.compile(r"([\\`*\[\]|~#$]|(?<!\w)_|_(?!\w))")

Row = TypeVar("Row")


@dataclass(frozen=True)
class Column(Generic[Row]):
    """One column of a table.

    Attributes:
        of: a figure of the row; None where it was not measured. A Value stands in the table as it is.
        shown: how the figure is rendered.
    """

    header: str
    of: Callable[[Row], Any]
    shown: Callable[[Any], Value] = words

    def value(self, row: Row) -> Value:
        found = self.of(row)
        return found if isinstance(found, Value) else measured(found, self.shown)


Columns = tuple[Column[Row], ...]


@dataclass(frozen=True)
class Table:
    """`label_columns` columns of words on the left, figures on the right; `notes` stand below."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    label_columns: int = 1
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if any(len(row) != len(self.header) for row in self.rows):
            raise ValueError(f"table {self.title!r} has rows that do not fit its {len(self.header)} columns")

    @classmethod
    def of(
        cls, title: str, columns: Columns[Row], rows: Iterable[Row], label_columns: int = 1, notes: Iterable[str] = ()
    ) -> Table:
        """Every column of every row."""
        header = tuple(column.header for column in columns)
        values = tuple(tuple(column.value(row) for column in columns) for row in rows)
        return cls(title, header, values, label_columns, tuple(notes))


def grouped(notes: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """(label, note) pairs -> one line for each note, with all labels that it holds for in front."""
    labels: dict[str, list[str]] = {}
    for label, note in notes:
        labels.setdefault(note, []).append(label)
    return tuple(f"{', '.join(dict.fromkeys(names))}: {note}" for note, names in labels.items())


def reasons(table: Table) -> tuple[str, ...]:
    """Why values of the table are missing: "tflite int8 qat: failed at load: ..."."""
    found = []
    for row in table.rows:
        label = " ".join(value.text for value in row[: table.label_columns]).replace("\n", " ")
        found += [(label, value.full) for value in row if value.detail]
    return grouped(found)


def print_tables(parts: Iterable[Table | RenderableType]) -> None:
    """Print tables, and lines of text between them, on stdout, readable without colour. A narrow terminal wraps the
    lines of a table; its columns stay whole.
    """
    _print(Console(width=max(WIDTH, Console().width)), parts)


def as_text(parts: Iterable[Table | RenderableType], width: int = WIDTH) -> str:
    """What `print_tables` prints, as plain text."""
    buffer = io.StringIO()
    _print(Console(file=buffer, width=width, color_system=None, force_terminal=False), parts)
    return buffer.getvalue()


def table_lines(table: Table) -> str:
    """One table as Markdown, with its title and notes; names from outside cannot smuggle in markup."""
    align = ["---" if i < table.label_columns else "---:" for i in range(len(table.header))]
    rows = [
        [escaped(name) for name in table.header],
        align,
        *(["<br>".join(map(escaped, value.full.split("\n"))) for value in row] for row in table.rows),
    ]
    lines = [f"## {escaped(table.title)}", "", *("| " + " | ".join(row) + " |" for row in rows), ""]
    if table.notes:
        lines += [*(f"- {escaped(note)}" for note in table.notes), ""]
    return "\n".join(lines)


def escaped(text: str) -> str:
    """Outside text that is neither markup nor the end of a table's cell."""
    return SPECIAL.sub(r"\\\1", html.escape(" ".join(printable(text).split()), quote=False))


def _print(console: Console, parts: Iterable[Table | RenderableType]) -> None:
    for part in parts:
        if isinstance(part, Table):
            part = _laid_out(part)
        console.print(_text(part) if isinstance(part, str) else part)


def _laid_out(table: Table) -> Group:
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
