"""The waterfall of a run as a plot: top-1 from stage to stage, what each step lost and gained."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.metrics.accuracy import wilson_percent
from pipeline.metrics.waterfall import StepRecord
from pipeline.records.keys import SIMULATED
from pipeline.records.report import Report, RunRecord
from pipeline.records.waterfall import WaterfallRecord, WaterfallStage
from pipeline.report import stage_names
from pipeline.report.plots import waterfall as waterfall_plot
from pipeline.report.plots.figure import Figure
from pipeline.report.plots.panels import Panel, one_axes, rows
from pipeline.report.plots.svg import FONT_PT, GAIN, INK, LOSS, MUTED, PAPER, inline_svg
from pipeline.report.tables import waterfall as waterfall_table
from pipeline.report.tables.table import Table
from pipeline.report.values import p_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes


LEAST_SPAN_PP = 2.0  # of the axis: a single image must not look like a cliff
ROW_IN = 0.4


def panels(report: Report) -> tuple[Panel, ...]:
    """None for a run without a waterfall; one for all of PyTorch where it has no artifact."""
    made: list[Panel] = []
    for run in report.runs:
        if run.waterfall is None:
            continue
        for target in dict.fromkeys(s.cell.target for s in run.waterfall.stages if s.cell) or {"PyTorch": None}:
            made.append(_panel(run.waterfall, target, f"waterfall-{len(made)}", f"{run.model}: {target}"))
    return tuple(made)


def _panel(record: WaterfallRecord, target: str, name: str, title: str) -> Panel:
    stages = [stage for stage in record.stages if stage.cell is None or stage.cell.target == target]
    row_of = {stage.name: row for row, stage in enumerate(stages)}
    top1 = {stage.name: stage.accuracy.top1_percent for stage in stages}
    with one_axes(0.6 + ROW_IN * len(stages)) as (figure, axes):
        for row, stage in enumerate(stages):
            if stage.to_previous is not None and stage.previous is not None:
                before = top1[stage.previous]
                _step(axes, row, row_of[stage.previous], before, stage.to_previous)
            hollow = stage.cell is not None and stage.cell.simulated
            axes.plot(
                top1[stage.name],
                row,
                "o",
                color=INK,
                markerfacecolor=PAPER if hollow else INK,
                markersize=6,
                zorder=4,
            )
            _beside(axes, row, stage)
        axes.set_xlim(*_window(record))
        rows(axes, [stage_names.label(stage) for stage in stages])
        axes.set_xlabel("top-1, %")
        svg = inline_svg(figure, name, f"Top-1 from stage to stage of {title}")
    return Panel(title, svg, _caption(record, stages))


def _step(axes: Axes, row: int, previous_row: int, before: float, step: StepRecord) -> None:
    """A line from the stage before; left by what was lost, from there right by what was gained; the drop's interval."""
    change = step.change
    lost, gained = 100 * change.lost / change.n, 100 * change.gained / change.n
    low, high = change.interval_pp()
    axes.plot([before, before], [previous_row, row], color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
    axes.barh(row - 0.13, -lost, left=before, height=0.26, color=LOSS)
    axes.barh(row + 0.13, gained, left=before - lost, height=0.26, color=GAIN)
    if high > low:
        axes.plot([before - high, before - low], [row + 0.36] * 2, color=MUTED, linewidth=1.6, solid_capstyle="butt")


def _window(record: WaterfallRecord) -> tuple[float, float]:
    """Ends of the axis, the same for all targets of a run: room for every bar and interval."""
    top1 = {stage.name: stage.accuracy.top1_percent for stage in record.stages}
    ends = list(top1.values())
    for stage in record.stages:
        if stage.to_previous is not None and stage.previous is not None:
            change, before = stage.to_previous.change, top1[stage.previous]
            low, high = change.interval_pp()
            ends += [before - 100 * change.lost / change.n, before - low, before - high]
    middle, span = (min(ends) + max(ends)) / 2, max(LEAST_SPAN_PP, 1.08 * (max(ends) - min(ends)))
    return middle - span / 2, middle + span / 2


def _beside(axes: Axes, row: int, stage: WaterfallStage) -> None:
    """On the right of the row: top-1; below it the counts of its step and McNemar's p, or the first's interval."""
    right = stage.accuracy
    low, high = wilson_percent(right.top1, right.n)
    second = f"{low:.1f}–{high:.1f}"
    if stage.to_previous is not None:
        change = stage.to_previous.change
        second = f"−{change.lost} +{change.gained}, p {p_text(change.p_value)}"
    for text, y, size, colour in (
        (f"{right.top1_percent:.2f}%", row - 0.2, FONT_PT - 1, INK),
        (second, row + 0.22, FONT_PT - 2, MUTED),
    ):
        axes.text(1.03, y, text, transform=axes.get_yaxis_transform(), va="center", fontsize=size, color=colour)


def _caption(record: WaterfallRecord, stages: list[WaterfallStage]) -> str:
    found = [s.to_previous.change.detectable_pp() for s in stages if s.to_previous is not None]
    measured = sorted(d for d in found if d is not None)
    parts = [f"n {record.n} images. Right: top-1; −lost +gained, exact McNemar p; of the first stage its 95% interval"]
    if measured:
        span = " to ".join(dict.fromkeys(f"{d:.1f}" for d in (measured[0], measured[-1])))
        parts.append(f"smallest drop of a step that so many images find with 80% power: {span} pp")
    if any(stage.cell is not None and stage.cell.simulated for stage in stages):
        parts.append(f"hollow: {SIMULATED}, no runtime was run")
    return ". ".join(part[0].upper() + part[1:] if i else part for i, part in enumerate(parts)) + "."


LEAD = (
    "Top-1 of the same images at every stage, from the float network in its published form down to each file in its "
    "runtime. Dotted lines lead from the stage that a stage is made from."
)


def waterfalls(report: Report) -> Figure | None:
    """None if no run has a waterfall."""
    panels = waterfall_plot.panels(report)
    if not panels:
        return None
    tables = tuple(table for run in report.runs if (table := stages(run)) is not None)
    return Figure("Where the accuracy goes", LEAD, panels, tables=tables, legend="steps", open_tables=True)


def stages(run: RunRecord) -> Table | None:
    """One row for each stage; below it, the drop of each artifact as the sum of its steps."""
    if run.waterfall is None:
        return None
    table = waterfall_table.stage_table(run.waterfall)
    return replace(
        table, title=f"{run.model}: waterfall", notes=(*table.notes, *waterfall_table.attribution(run.waterfall))
    )
