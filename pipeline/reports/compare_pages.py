"""A comparison of two runs in, its Markdown and its self-contained HTML page out."""

from __future__ import annotations

from pipeline.reports import markdown as layout
from pipeline.reports.compare_record import Comparison
from pipeline.reports.compare_tables import all_tables
from pipeline.reports.html import environment


def markdown(comparison: Comparison) -> str:
    """GitHub-flavoured Markdown."""
    head = ["# Two runs side by side", "", "| | run | model | data | images scored |", "|---|---|---|---|---:|"]
    for side, run in (("A", comparison.a), ("B", comparison.b)):
        words = (run.run_id, run.model, run.data, str(run.images))
        head.append(f"| {side} | {' | '.join(map(layout.escaped, words))} |")
    notes = [f"- {layout.escaped(note)}" for note in comparison.notes]
    return "\n".join([*head, "", *notes, "", *map(layout.table_lines, all_tables(comparison))])


def html(comparison: Comparison) -> str:
    """One page that opens offline, light and dark. All text is escaped by the template engine."""
    template = environment().get_template("compare.html.j2")
    return template.render(comparison=comparison, tables=all_tables(comparison))
