"""A report in, bytes of every artifact out, one panel for each run on one scale for all."""

from __future__ import annotations

from pipeline.reports.cells import run_cells
from pipeline.reports.figure import Figure
from pipeline.reports.panels import Panel, colours, one_axes, rows
from pipeline.reports.schema import Report
from pipeline.reports.svg import inline_svg

LEAD = "What each file or package takes on disk; bars of all models have one scale."


def sizes(report: Report) -> Figure:
    """Empty if nothing was converted."""
    panels = []
    largest = max((c.facts.size_bytes for run in report.runs for c in run.conversions if c.facts), default=0)
    palette = colours(report)
    for number, run in enumerate(report.runs):
        found = {(c.target, c.variant): c.conversion.facts for c in run_cells(run) if c.conversion}
        measured = [(f"{target} {variant}", facts) for (target, variant), facts in found.items() if facts]
        if not measured:
            continue
        with one_axes(0.7 + 0.3 * len(measured)) as (figure, axes):
            for row, (_, facts) in enumerate(measured):
                axes.barh(row, facts.size_bytes / 1e6, height=0.65, color=palette[run.model])
                axes.annotate(
                    f"{facts.size_bytes / 1e6:.2f}",
                    (facts.size_bytes / 1e6, row),
                    (4, 0),
                    textcoords="offset points",
                    va="center",
                )
            rows(axes, [label for label, _ in measured])
            axes.set_xlim(0, 1.18 * largest / 1e6)
            axes.set_xlabel("MB (10^6 bytes)")
            svg = inline_svg(figure, f"size-{number}", f"Artifact sizes of {run.model}")
        panels.append(Panel(run.model, svg, f"n {len(measured)} artifacts, one file or package each"))
    return Figure("Size", LEAD, tuple(panels), how="python main.py convert")
