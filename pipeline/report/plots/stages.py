"""Plots from stage to stage: the waterfall of top-1 with what each step lost and gained; without it, top-1 and SQNR."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.metrics.accuracy import Accuracy, wilson_percent
from pipeline.metrics.drift import Drift, StepRecord
from pipeline.records.keys import SIMULATED
from pipeline.records.report import Report, RunRecord
from pipeline.records.waterfall import WaterfallRecord, WaterfallStage
from pipeline.report.cells import run_cells, stage_label
from pipeline.report.plots.figure import Figure, Panel, colours, span
from pipeline.report.plots.panels import FONT_PT, GAIN, HALO, INK, LOSS, MUTED, PAPER, beside, missing, row_panel
from pipeline.report.tables.waterfall import waterfall_of_run
from pipeline.report.values import p_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WATERFALL_LEAD = (
    "Top-1 of the same images at every stage, from the float network in its published form down to each file in its "
    "runtime. Dotted lines lead from the stage that a stage is made from."
)
DRIFT_LEAD = "Top-1 and distance of the logits, from float through fake-quant and QDQ to every runtime's int8."
STAGE_LABELS = {"float": "float", "fake_quant": "fake-quant", "qdq": "QDQ"}
LEAST_SPAN_PP = 2.0  # of the axis: a single image must not look like a cliff
ROW_IN = 0.4


def waterfalls(report: Report) -> Figure | None:
    """A panel for each target of a run, one for all of PyTorch where it has no artifact; None if no run has a
    waterfall.
    """
    panels: list[Panel] = []
    for run in report.runs:
        if run.waterfall is None:
            continue
        for target in dict.fromkeys(s.cell.target for s in run.waterfall.stages if s.cell) or {"PyTorch": None}:
            panels.append(_waterfall(run.waterfall, target, f"waterfall-{len(panels)}", f"{run.model}: {target}"))
    if not panels:
        return None
    tables = tuple(table for run in report.runs if (table := waterfall_of_run(run)) is not None)
    return Figure(
        "Where the accuracy goes", WATERFALL_LEAD, tuple(panels), tables=tables, legend="steps", open_tables=True
    )


def _waterfall(record: WaterfallRecord, target: str, name: str, title: str) -> Panel:
    stages = [stage for stage in record.stages if stage.cell is None or stage.cell.target == target]
    row_of = {stage.name: row for row, stage in enumerate(stages)}
    top1 = {stage.name: stage.accuracy.top1_percent for stage in stages}

    def draw(axes: Axes, row: int, stage: WaterfallStage) -> str:
        if stage.to_previous is not None and stage.previous is not None:
            _step(axes, row, row_of[stage.previous], top1[stage.previous], stage.to_previous)
        fill = PAPER if stage.cell is not None and stage.cell.simulated else INK
        axes.plot(top1[stage.name], row, "o", color=INK, markerfacecolor=fill, markersize=6, zorder=4)
        _figures(axes, row, stage)
        return stage_label(stage, "\n")

    says, caption = f"Top-1 from stage to stage of {title}", _caption(record, stages)
    return row_panel(
        title, caption, name, says, stages, draw, "top-1, %", ROW_IN,
        finish=lambda axes: axes.set_xlim(*_window(record)),
    )  # fmt: skip


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


def _figures(axes: Axes, row: int, stage: WaterfallStage) -> None:
    """On the right of the row: top-1; below it the counts of its step and McNemar's p, or the first's interval."""
    right = stage.accuracy
    low, high = wilson_percent(right.top1, right.n)
    second = f"{low:.1f}–{high:.1f}"
    if stage.to_previous is not None:
        change = stage.to_previous.change
        second = f"−{change.lost} +{change.gained}, p {p_text(change.p_value)}"
    beside(axes, row - 0.2, f"{right.top1_percent:.2f}%", FONT_PT - 1)
    beside(axes, row + 0.22, second, colour=MUTED)


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


def drift_by_stage(report: Report) -> Figure | None:
    """For each run without a waterfall; None if all have one."""
    runs = [(number, run) for number, run in enumerate(report.runs) if run.waterfall is None]
    if not runs:
        return None
    palette = colours(report)
    panels = [panel for number, run in runs for panel in _drift(run, number, palette[run.model])]
    note = "python main.py validate --explain adds the waterfall: what each step lost and gained, by image and class."
    return Figure("Drift by stage", DRIFT_LEAD, tuple(panels), notes=(note,), legend="models")


@dataclass(frozen=True)
class _Stage:
    """A torch stage, or an int8 cell: a runtime has one of each figure, a simulation one for each rounding model.

    `why` says what to write where nothing was measured.
    """

    label: str
    scored: list[Accuracy]
    to_float: list[Drift]
    to_qdq: list[Drift]
    why: str


def _stages(run: RunRecord) -> Iterator[_Stage]:
    for stage in run.stages:
        drifts = [stage.drift] if stage.drift else []
        yield _Stage(STAGE_LABELS[stage.stage], [stage.accuracy], drifts, [], "not measured")
    for cell in run_cells(run):
        if cell.file.precision != "int8":
            continue
        place = f"{cell.file.target}, simulated" if cell.simulations else cell.place
        failed = cell.conversion is not None and cell.conversion.outcome.status != "ok"
        why = "not converted" if failed and not cell.records else "not measured"
        if cell.records and cell.records[0].outcome.status != "ok":
            why = cell.records[0].outcome.status
        yield _Stage(
            f"{place}\n{cell.file.variant}",
            [r.accuracy for r in cell.records if r.accuracy],
            [r.drift_float for r in cell.records if r.drift_float],
            [r.drift_qdq for r in cell.records if r.drift_qdq],
            why,
        )


def _drift(run: RunRecord, number: int, colour: str) -> Iterator[Panel]:
    """Top-1, then SQNR; nothing of a run that was not scored."""
    stages = list(_stages(run))
    images = span(sorted({right.n for stage in stages for right in stage.scored}))
    if not images:
        return
    simulated = f"; hollow: {SIMULATED}" if any(len(stage.scored) > 1 for stage in stages) else ""
    yield row_panel(
        f"{run.model}: top-1",
        f"n {images} images, 95% Wilson intervals; line: float{simulated}",
        f"drift-top1-{number}",
        f"Top-1 by stage of {run.model}",
        stages,
        lambda axes, row, stage: _top1_row(axes, row, stage, colour),
        "top-1, %",
        0.36,
        0.7,
        lambda axes: axes.set_xlim(*_top1_window(stages)),
    )
    yield row_panel(
        f"{run.model}: SQNR of the logits",
        f"n {images} images; filled: to float, hollow: to QDQ; right is closer",
        f"drift-sqnr-{number}",
        f"SQNR by stage of {run.model}",
        stages,
        lambda axes, row, stage: _sqnr_row(axes, row, stage, colour),
        "SQNR, dB",
        0.36,
        0.7,
        lambda axes: axes.set_xlim(*_sqnr_window(stages)),
    )


def _top1_row(axes: Axes, row: int, stage: _Stage, colour: str) -> str:
    """A point with its Wilson interval; of a simulation a hollow point for each rounding model and all intervals."""
    if not stage.scored:
        missing(axes, row, stage.why)
        return stage.label
    tops = sorted({right.top1_percent for right in stage.scored})
    ends = [wilson_percent(right.top1, right.n) for right in stage.scored]
    axes.plot([min(e[0] for e in ends), max(e[1] for e in ends)], [row, row], color=colour, linewidth=1.2)
    fill = PAPER if len(stage.scored) > 1 else colour
    axes.plot(tops, [row] * len(tops), "o", color=colour, markerfacecolor=fill, markersize=6)
    text = "–".join(dict.fromkeys(f"{top:.2f}" for top in (tops[0], tops[-1])))
    middle = (sum(tops) / len(tops), row)
    axes.annotate(text, middle, (0, 5), textcoords="offset points", ha="center", bbox=HALO)
    if stage.label == STAGE_LABELS["float"]:
        axes.axvline(tops[0], color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
    return stage.label


def _top1_window(stages: list[_Stage]) -> tuple[float, float]:
    intervals = [wilson_percent(right.top1, right.n) for stage in stages for right in stage.scored]
    low, high = min(low for low, _ in intervals), max(high for _, high in intervals)
    margin = 0.06 * (high - low)
    return low - margin, high + margin


def _sqnr_row(axes: Axes, row: int, stage: _Stage, colour: str) -> str:
    """Filled: to float, hollow: to QDQ; the worst and the best rounding model of a simulation, joined by a line."""
    named = {"float": stage.to_float, "QDQ": stage.to_qdq}
    exact = [name for name, drifts in named.items() if drifts and all(d.exact for d in drifts)]
    decibels = [sorted(d.sqnr_db for d in drifts if d.sqnr_db is not None) for drifts in named.values()]
    if stage.label == STAGE_LABELS["float"]:
        missing(axes, row, "the reference")
    elif not any(decibels) and not exact:
        missing(axes, row, stage.why)
    for values, fill in zip(decibels, (colour, PAPER), strict=True):
        # Two intervals in a row would run into each other: that to QDQ lies a little lower, labelled below.
        lower = fill == PAPER and len(values) > 1
        height, label_pt = (row + 0.16, -11) if lower else (row, 5)
        for value in dict.fromkeys([values[0], values[-1]] if values else []):
            axes.plot(value, height, "o", color=colour, markerfacecolor=fill, markersize=6, zorder=3)
            axes.annotate(f"{value:.1f}", (value, height), (0, label_pt), textcoords="offset points", ha="center")
        if len(values) > 1:
            axes.plot([values[0], values[-1]], [height, height], color=colour, linewidth=1.2)
    if exact:
        text = f"equal to {' and '.join(exact)}"
        axes.text(1, row, text, transform=axes.get_yaxis_transform(), ha="right", va="center")
    return stage.label


def _sqnr_window(stages: list[_Stage]) -> tuple[float, float]:
    drifts = [drift for stage in stages for drift in (*stage.to_float, *stage.to_qdq)]
    measured = [drift.sqnr_db for drift in drifts if drift.sqnr_db is not None]
    return min(0.0, 1.1 * min(measured, default=0.0)), 1.15 * max([1.0, *measured])
