"""Plots of the files: how much of each runs inside a delegate, and what it takes on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.records.conversion import ConversionRecord
from pipeline.records.report import Report, RunRecord
from pipeline.report import values as v
from pipeline.report.plots.figure import Figure, Panel, colours
from pipeline.report.plots.panels import MUTED, PAPER, beside, missing, row_panel
from pipeline.report.tables.table import Column, Columns, Table
from targets.words import plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COVERAGE_LEAD = (
    "Operators inside of a delegate (the accelerated part) and outside of it, read from each file; 1 partition is best."
)
SIZE_LEAD = "What each file or package takes on disk; bars of all models have one scale."


def coverage(report: Report) -> Figure:
    """Empty if nothing was converted."""
    palette = colours(report)
    panels = [_coverage(run, f"coverage-{i}", palette[run.model]) for i, run in enumerate(report.runs) if _read(run)]
    tables = [table for run in report.runs if (table := _outside(run)) is not None]
    return Figure("Delegate coverage", COVERAGE_LEAD, tuple(panels), tables=tuple(tables), how="python main.py convert")


def _read(run: RunRecord) -> list[ConversionRecord]:
    return [record for record in run.conversions if record.facts is not None]


def _name(record: ConversionRecord) -> str:
    return f"{record.target} {record.artifact.variant}"


def _coverage(run: RunRecord, name: str, colour: str) -> Panel:
    def draw(axes: Axes, row: int, record: ConversionRecord) -> str:
        facts = record.facts
        if facts is None or facts.delegated is None or facts.fallback is None:
            missing(axes, row, "not in the file: the device decides")
            return _name(record)
        outside = sum(facts.fallback.values())
        axes.barh(row, facts.delegated, height=0.6, color=colour)
        axes.barh(row, outside, left=facts.delegated, height=0.6, facecolor=PAPER, edgecolor=MUTED, linewidth=1)
        parts = "" if facts.partitions is None else f", {plural(facts.partitions, 'part')}"
        beside(axes, row, f"{facts.delegated} + {outside}{parts}")
        return _name(record)

    records = _read(run)
    caption = f"n {len(records)} artifacts; right: operators inside + outside (hollow), partitions"
    says = f"Delegate coverage of {run.model}"
    return row_panel(
        run.model, caption, name, says, records, draw, "operators", 0.3, finish=lambda axes: axes.set_xlim(left=0)
    )


def _outside(run: RunRecord) -> Table | None:
    """Operators outside of delegates, one row each; None if there are none."""
    rows = [
        (_name(record), kind, count)
        for record in _read(run)
        if record.facts is not None and record.facts.fallback
        for kind, count in sorted(record.facts.fallback.items(), key=lambda item: (-item[1], item[0]))
    ]
    columns: Columns[tuple[str, str, int]] = (
        Column("Artifact", lambda row: row[0]),
        Column("Operator", lambda row: row[1]),
        Column("Count", lambda row: row[2], v.count),
    )
    title = f"{run.model}: operators outside of delegates"
    return Table.of(title, columns, rows, label_columns=2) if rows else None


def sizes(report: Report) -> Figure:
    """Empty if nothing was converted."""
    largest = max((c.facts.size_bytes for run in report.runs for c in run.conversions if c.facts), default=0)
    palette = colours(report)
    panels = []
    for number, run in enumerate(report.runs):
        measured = [(_name(record), record.facts.size_bytes) for record in run.conversions if record.facts]
        if measured:
            panels.append(_sizes(run.model, f"size-{number}", measured, largest, palette[run.model]))
    return Figure("Size", SIZE_LEAD, tuple(panels), how="python main.py convert")


def _sizes(model: str, name: str, measured: list[tuple[str, int]], largest: int, colour: str) -> Panel:
    def draw(axes: Axes, row: int, file: tuple[str, int]) -> str:
        label, size = file[0], file[1] / 1e6
        axes.barh(row, size, height=0.65, color=colour)
        axes.annotate(f"{size:.2f}", (size, row), (4, 0), textcoords="offset points", va="center")
        return label

    def finish(axes: Axes) -> None:
        axes.set_xlim(0, 1.18 * largest / 1e6)

    caption, says = f"n {len(measured)} artifacts, one file or package each", f"Artifact sizes of {model}"
    return row_panel(model, caption, name, says, measured, draw, "MB (10^6 bytes)", 0.3, 0.7, finish)
