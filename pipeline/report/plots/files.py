"""Plots of the files: how much of each runs inside a delegate, and what it takes on disk."""

from __future__ import annotations

from pipeline.records.conversion import ConversionRecord
from pipeline.records.report import Report, RunRecord
from pipeline.report import values as v
from pipeline.report.cells import run_cells, variant_name
from pipeline.report.plots.figure import Figure
from pipeline.report.plots.panels import Panel, colours, missing, one_axes, rows
from pipeline.report.plots.svg import FONT_PT, MUTED, PAPER, inline_svg
from pipeline.report.tables.table import Table

LEAD = (
    "Operators inside of a delegate (the accelerated part) and outside of it, read from each file; 1 partition is best."
)


def coverage(report: Report) -> Figure:
    """Empty if nothing was converted."""
    palette = colours(report)
    panels = [_panel(run, f"coverage-{i}", palette[run.model]) for i, run in enumerate(report.runs) if _read(run)]
    tables = [table for run in report.runs if (table := _outside(run)) is not None]
    return Figure("Delegate coverage", LEAD, tuple(panels), tables=tuple(tables), how="python main.py convert")


def _read(run: RunRecord) -> list[ConversionRecord]:
    return [record for record in run.conversions if record.facts is not None]


def _name(record: ConversionRecord) -> str:
    return f"{record.target} {variant_name(record.precision, record.source)}"


def _panel(run: RunRecord, name: str, colour: str) -> Panel:
    records = _read(run)
    with one_axes(0.6 + 0.3 * len(records)) as (figure, axes):
        for row, record in enumerate(records):
            facts = record.facts
            assert facts is not None  # _read
            if facts.delegated is None or facts.fallback is None:
                missing(axes, row, "not in the file: the device decides")
                continue
            outside = sum(facts.fallback.values())
            axes.barh(row, facts.delegated, height=0.6, color=colour)
            axes.barh(row, outside, left=facts.delegated, height=0.6, facecolor=PAPER, edgecolor=MUTED, linewidth=1)
            parts = (
                "" if facts.partitions is None else f", {facts.partitions} part{'' if facts.partitions == 1 else 's'}"
            )
            axes.text(
                1.03,
                row,
                f"{facts.delegated} + {outside}{parts}",
                transform=axes.get_yaxis_transform(),
                va="center",
                fontsize=FONT_PT - 2,
            )
        rows(axes, [_name(record) for record in records])
        axes.set_xlim(left=0)
        axes.set_xlabel("operators")
        svg = inline_svg(figure, name, f"Delegate coverage of {run.model}")
    return Panel(run.model, svg, f"n {len(records)} artifacts; right: operators inside + outside (hollow), partitions")


def _outside(run: RunRecord) -> Table | None:
    """Operators outside of delegates, one row each; None if there are none."""
    rows = tuple(
        (v.words(_name(record)), v.words(kind), v.count(count))
        for record in _read(run)
        if record.facts is not None and record.facts.fallback
        for kind, count in sorted(record.facts.fallback.items(), key=lambda item: (-item[1], item[0]))
    )
    if not rows:
        return None
    return Table(
        f"{run.model}: operators outside of delegates", ("Artifact", "Operator", "Count"), rows, label_columns=2
    )


SIZE_LEAD = "What each file or package takes on disk; bars of all models have one scale."


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
    return Figure("Size", SIZE_LEAD, tuple(panels), how="python main.py convert")
