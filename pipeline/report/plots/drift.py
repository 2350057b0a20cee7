"""A report in, top-1 and SQNR of every run from stage to stage out, as panels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipeline.metrics.accuracy import Accuracy, wilson_percent
from pipeline.metrics.drift import Drift
from pipeline.records.keys import SIMULATED
from pipeline.records.report import Report, RunRecord
from pipeline.report.cells import run_cells
from pipeline.report.plots.figure import Figure
from pipeline.report.plots.panels import HALO, Panel, colours, missing, one_axes, rows, span
from pipeline.report.plots.svg import MUTED, PAPER, inline_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STAGE_LABELS = {"float": "float", "fake_quant": "fake-quant", "qdq": "QDQ"}


LEAD = "Top-1 and distance of the logits, from float through fake-quant and QDQ to every runtime's int8."


def drift_by_stage(report: Report) -> Figure | None:
    """For each run without a waterfall; None if all have one."""
    palette = colours(report)
    panels = []
    for number, run in enumerate(report.runs):
        if run.waterfall is not None:
            continue
        stages = list(_waterfall(run))
        images = span(sorted({right.n for _, scored, *_ in stages for right in scored}))
        if not images:
            continue
        height = 0.7 + 0.36 * len(stages)
        with one_axes(height) as (figure, axes):
            _top1_rows(axes, stages, palette[run.model])
            svg = inline_svg(figure, f"drift-top1-{number}", f"Top-1 by stage of {run.model}")
        simulated = f"; hollow: {SIMULATED}" if any(len(scored) > 1 for _, scored, *_ in stages) else ""
        caption = f"n {images} images, 95% Wilson intervals; line: float{simulated}"
        panels.append(Panel(f"{run.model}: top-1", svg, caption))
        with one_axes(height) as (figure, axes):
            _sqnr_rows(axes, stages, palette[run.model])
            svg = inline_svg(figure, f"drift-sqnr-{number}", f"SQNR by stage of {run.model}")
        caption = f"n {images} images; filled: to float, hollow: to QDQ; right is closer"
        panels.append(Panel(f"{run.model}: SQNR of the logits", svg, caption))
    if all(run.waterfall is not None for run in report.runs):
        return None
    note = "python main.py validate --explain adds the waterfall: what each step lost and gained, by image and class."
    return Figure("Drift by stage", LEAD, tuple(panels), notes=(note,), legend="models")


# label, accuracies, drifts to float, drifts to QDQ, what to write where nothing was measured. A runtime has one of
# each, a simulation one for each rounding model.
_Row = tuple[str, list[Accuracy], list[Drift], list[Drift], str]


def _waterfall(run: RunRecord) -> Iterator[_Row]:
    for stage in run.stages:
        drifts = [stage.drift] if stage.drift else []
        yield STAGE_LABELS[stage.stage], [stage.accuracy], drifts, [], "not measured"
    for cell in run_cells(run):
        if cell.precision != "int8":
            continue
        records = cell.simulations or ((cell.validation,) if cell.validation else ())
        place = f"{cell.target}, simulated" if cell.simulations else cell.place
        label = f"{place}\n{cell.variant}"
        failed = cell.conversion is not None and cell.conversion.outcome.status != "ok"
        why = "not converted" if failed and not records else "not measured"
        if records and records[0].outcome.status != "ok":
            why = records[0].outcome.status
        yield (
            label,
            [r.accuracy for r in records if r.accuracy],
            [r.drift_float for r in records if r.drift_float],
            [r.drift_qdq for r in records if r.drift_qdq],
            why,
        )


def _top1_rows(axes: Axes, stages: list[_Row], colour: str) -> None:
    """A point with its Wilson interval; of a simulation a hollow point for each rounding model and all intervals."""
    intervals = [wilson_percent(right.top1, right.n) for _, scored, *_ in stages for right in scored]
    lows, highs = zip(*intervals, strict=True)
    for row, (label, scored, _, _, why) in enumerate(stages):
        if not scored:
            missing(axes, row, why)
            continue
        tops = sorted({right.top1_percent for right in scored})
        ends = [wilson_percent(right.top1, right.n) for right in scored]
        axes.plot([min(e[0] for e in ends), max(e[1] for e in ends)], [row, row], color=colour, linewidth=1.2)
        fill = PAPER if len(scored) > 1 else colour
        axes.plot(tops, [row] * len(tops), "o", color=colour, markerfacecolor=fill, markersize=6)
        text = "–".join(dict.fromkeys(f"{top:.2f}" for top in (tops[0], tops[-1])))
        middle = (sum(tops) / len(tops), row)
        axes.annotate(text, middle, (0, 5), textcoords="offset points", ha="center", bbox=HALO)
        if label == STAGE_LABELS["float"]:
            axes.axvline(tops[0], color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
    margin = 0.06 * (max(highs) - min(lows))
    axes.set_xlim(min(lows) - margin, max(highs) + margin)
    rows(axes, [label for label, *_ in stages])
    axes.set_xlabel("top-1, %")


def _sqnr_rows(axes: Axes, stages: list[_Row], colour: str) -> None:
    """Filled: to float, hollow: to QDQ; the worst and the best rounding model of a simulation, joined by a line."""
    measured = [d.sqnr_db for _, _, *both, _ in stages for drifts in both for d in drifts if d.sqnr_db is not None]
    lowest, highest = min(measured, default=0.0), max(measured, default=1.0)
    for row, (label, _, to_float, to_qdq, why) in enumerate(stages):
        named = {"float": to_float, "QDQ": to_qdq}
        exact = [name for name, drifts in named.items() if drifts and all(d.exact for d in drifts)]
        decibels = [sorted(d.sqnr_db for d in drifts if d.sqnr_db is not None) for drifts in (to_float, to_qdq)]
        if label == STAGE_LABELS["float"]:
            missing(axes, row, "the reference")
        elif not any(decibels) and not exact:
            missing(axes, row, why)
        for values, fill in zip(decibels, (colour, PAPER), strict=True):
            # Two intervals in a row would run into each other: that to QDQ lies a little lower, labelled below.
            lower = fill == PAPER and len(values) > 1
            height, label_pt = (row + 0.16, -11) if lower else (row, 5)
            for value in dict.fromkeys([values[0], values[-1]] if values else []):
                axes.plot(value, height, "o", color=colour, markerfacecolor=fill, markersize=6, zorder=3)
                offset = (0, label_pt)
                axes.annotate(f"{value:.1f}", (value, height), offset, textcoords="offset points", ha="center")
            if len(values) > 1:
                axes.plot([values[0], values[-1]], [height, height], color=colour, linewidth=1.2)
        if exact:
            text = f"equal to {' and '.join(exact)}"
            axes.text(1, row, text, transform=axes.get_yaxis_transform(), ha="right", va="center")
    axes.set_xlim(min(0.0, 1.1 * lowest), 1.15 * max(highest, 1.0))
    rows(axes, [label for label, *_ in stages])
    axes.set_xlabel("SQNR, dB")
