"""A gate's result in, Markdown for $GITHUB_STEP_SUMMARY out."""

from __future__ import annotations

from pipeline.reports.gate_record import GateResult
from pipeline.reports.gate_table import tables
from pipeline.reports.markdown import table_lines


def render(result: GateResult) -> str:
    """GitHub-flavoured Markdown; names from outside can neither break a table nor smuggle in markup."""
    title = f"# Gate: {result.verdict or 'nothing was judged'}\n"
    return "\n".join([title, *map(table_lines, tables(result))])
