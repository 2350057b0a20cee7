"""Tables as Markdown; names from outside can neither break a table nor smuggle in markup."""

from __future__ import annotations

import html
import re

from pipeline.report.tables.table import Table
from pipeline.report.values import Value, printable

# `_` only at the edge of a word: inside one (t2t_vit_10) it is no emphasis in GitHub's Markdown
SPECIAL = re.compile(r"([\\`*\[\]|~#$]|(?<!\w)_|_(?!\w))")


def table_lines(table: Table) -> str:
    """One table with its title and notes."""
    align = ["---" if i < table.label_columns else "---:" for i in range(len(table.header))]
    rows = [[escaped(name) for name in table.header], align, *([_cell(value) for value in row] for row in table.rows)]
    lines = [f"## {escaped(table.title)}", "", *("| " + " | ".join(row) + " |" for row in rows), ""]
    if table.notes:
        lines += [*(f"- {escaped(note)}" for note in table.notes), ""]
    return "\n".join(lines)


def _cell(value: Value) -> str:
    return "<br>".join(map(escaped, value.full.split("\n")))


def escaped(text: str) -> str:
    """Outside text that is neither markup nor the end of a table's cell."""
    return SPECIAL.sub(r"\\\1", html.escape(" ".join(printable(text).split()), quote=False))
