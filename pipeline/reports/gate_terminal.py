"""A gate's result in, its tables and findings printed on stdout; readable without colour."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, Group
from rich.padding import Padding
from rich.text import Text

from pipeline.reports.gate_record import Finding, GateResult
from pipeline.reports.gate_table import KINDS, open_findings, verdicts
from pipeline.reports.gate_values import detail, verdict_words
from pipeline.reports.records import CellKey
from pipeline.reports.table import Table
from pipeline.reports.terminal import STYLES, WIDTH, table_renderable
from pipeline.reports.values import printable


def show(result: GateResult) -> None:
    """The table of verdicts; below it each finding that is more than a pass, worst first, with what to do."""
    console = _console()
    console.print(table_renderable(verdicts(result)))
    for cells, found in open_findings(result):
        console.print(_finding(cells, found))


def show_tables(tables: Sequence[Table]) -> None:
    """A narrow terminal wraps the lines of a table, its columns stay whole."""
    console = _console()
    for table in tables:
        console.print(table_renderable(table))


def _console() -> Console:
    return Console(width=max(WIDTH, Console().width))


def _finding(cells: Sequence[CellKey], found: Finding) -> Group:
    head = Text(f"\n{verdict_words(found)}", STYLES[KINDS[found.verdict]])
    head.append(printable(f"  {found.rule}: {'; '.join(key.label for key in cells)}"), "bold")
    lines = filter(None, (found.sentence, detail(found), found.next_step and f"→ {found.next_step}"))
    return Group(head, *(Padding(Text(printable(line)), (0, 0, 0, 4)) for line in lines))
