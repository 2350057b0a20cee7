"""A report in, top-1 and SQNR of every run from stage to stage out, as panels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipeline.metrics.accuracy import Accuracy, wilson_percent
from pipeline.metrics.drift import Drift
from pipeline.reports.cells import run_cells
from pipeline.reports.panels import Panel, colours, missing, one_axes, rows, span
from pipeline.reports.schema import Report, RunRecord
from pipeline.reports.svg import MUTED, PAPER, inline_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STAGE_LABELS = {"float": "float", "fake_quant": "fake-quant", "qdq": "QDQ"}


def drift_by_stage(report: Report) -> tuple[Panel, ...]:
    """For each run top-1 and SQNR, from float through fake-quant and QDQ to every runtime's int8."""
    palette = colours(report)
    panels = []
    for number, run in enumerate(report.runs):
        stages = list(_waterfall(run))
        images = span(sorted({right.n for _, right, *_ in stages if right is not None}))
        if not images:
            continue
        height = 0.7 + 0.36 * len(stages)
        with one_axes(height) as (figure, axes):
            _top1_rows(axes, stages, palette[run.model])
            svg = inline_svg(figure, f"drift-top1-{number}", f"Top-1 by stage of {run.model}")
        panels.append(Panel(f"{run.model}: top-1", svg, f"n {images} images, 95% Wilson intervals; line: float"))
        with one_axes(height) as (figure, axes):
            _sqnr_rows(axes, stages, palette[run.model])
            svg = inline_svg(figure, f"drift-sqnr-{number}", f"SQNR by stage of {run.model}")
        caption = f"n {images} images; filled: to float, hollow: to QDQ; right is closer"
        panels.append(Panel(f"{run.model}: SQNR of the logits", svg, caption))
    return tuple(panels)


# label, accuracy, drift to float, drift to QDQ, what to write where nothing was measured
_Row = tuple[str, Accuracy | None, Drift | None, Drift | None, str]


def _waterfall(run: RunRecord) -> Iterator[_Row]:
    for stage in run.stages:
        yield STAGE_LABELS[stage.stage], stage.accuracy, stage.drift, None, "not measured"
    for cell in run_cells(run):
        if cell.precision != "int8":
            continue
        label, record = f"{cell.place}\n{cell.variant}", cell.validation
        if record is None:
            failed = cell.conversion is not None and cell.conversion.outcome.status != "ok"
            yield label, None, None, None, "not converted" if failed else "not measured"
        else:
            status = "not measured" if record.outcome.status == "ok" else record.outcome.status
            yield label, record.accuracy, record.drift_float, record.drift_qdq, status


def _top1_rows(axes: Axes, stages: list[_Row], colour: str) -> None:
    shown = [right for _, right, *_ in stages if right is not None]
    lows, highs = zip(*(wilson_percent(right.top1, right.n) for right in shown), strict=True)
    for row, (label, right, _, _, why) in enumerate(stages):
        if right is None:
            missing(axes, row, why)
            continue
        low, high = wilson_percent(right.top1, right.n)
        axes.plot([low, high], [row, row], color=colour, linewidth=1.2)
        axes.plot(right.top1_percent, row, "o", color=colour, markersize=6)
        axes.annotate(
            f"{right.top1_percent:.2f}", (right.top1_percent, row), (0, 5), textcoords="offset points", ha="center"
        )
        if label == STAGE_LABELS["float"]:
            axes.axvline(right.top1_percent, color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
    margin = 0.06 * (max(highs) - min(lows))
    axes.set_xlim(min(lows) - margin, max(highs) + margin)
    rows(axes, [label for label, *_ in stages])
    axes.set_xlabel("top-1, %")


def _sqnr_rows(axes: Axes, stages: list[_Row], colour: str) -> None:
    highest = max((d.sqnr_db for _, _, *ds, _ in stages for d in ds if d and d.sqnr_db is not None), default=1.0)
    lowest = min((d.sqnr_db for _, _, *ds, _ in stages for d in ds if d and d.sqnr_db is not None), default=0.0)
    for row, (label, _, to_float, to_qdq, why) in enumerate(stages):
        drifts = [(drift, fill) for drift, fill in ((to_float, colour), (to_qdq, PAPER)) if drift is not None]
        if label == STAGE_LABELS["float"]:
            missing(axes, row, "the reference")
        elif all(drift.sqnr_db is None and not drift.exact for drift, _ in drifts):
            missing(axes, row, why)
        for drift, fill in drifts:
            if drift.sqnr_db is not None:
                axes.plot(drift.sqnr_db, row, "o", color=colour, markerfacecolor=fill, markersize=6)
                axes.annotate(
                    f"{drift.sqnr_db:.1f}", (drift.sqnr_db, row), (0, 5), textcoords="offset points", ha="center"
                )
            elif drift.exact:
                to = "float" if drift is to_float else "QDQ"
                axes.text(1, row, f"equal to {to}", transform=axes.get_yaxis_transform(), ha="right", va="center")
    axes.set_xlim(min(0.0, 1.1 * lowest), 1.15 * max(highest, 1.0))
    rows(axes, [label for label, *_ in stages])
    axes.set_xlabel("SQNR, dB")
