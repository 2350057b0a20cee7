"""A report in, the text of report.md out; names from outside can neither break a table nor smuggle in markup."""

from __future__ import annotations

import html
import re

from pipeline.reports.schema import Report
from pipeline.reports.table import Table
from pipeline.reports.tables import all_tables
from pipeline.reports.values import Value, printable

# `_` only at the edge of a word: inside one (t2t_vit_10) it is no emphasis in GitHub's Markdown
SPECIAL = re.compile(r"([\\`*\[\]|~#$]|(?<!\w)_|_(?!\w))")


def render(report: Report) -> str:
    """GitHub-flavoured Markdown."""
    title = f"# Report of {_escaped(report.runs[0].model)}\n\nMade {_escaped(report.generated_utc)}.\n"
    return "\n".join([title, *map(_table, all_tables(report))])


def _table(table: Table) -> str:
    align = ["---" if i < table.label_columns else "---:" for i in range(len(table.header))]
    rows = [[_escaped(name) for name in table.header], align, *([_cell(value) for value in row] for row in table.rows)]
    lines = [f"## {_escaped(table.title)}", "", *("| " + " | ".join(row) + " |" for row in rows), ""]
    if table.notes:
        lines += [*(f"- {_escaped(note)}" for note in table.notes), ""]
    return "\n".join(lines)


def _cell(value: Value) -> str:
    return "<br>".join(map(_escaped, value.full.split("\n")))


def _escaped(text: str) -> str:
    return SPECIAL.sub(r"\\\1", html.escape(" ".join(printable(text).split()), quote=False))
