"""Plots of the layers that a loss is in: SQNR of each, and what keeping one in float buys back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.records.report import Report
from pipeline.records.waterfall import Explanation, FloatLayer, LayerRecord
from pipeline.report import values as v
from pipeline.report.plots.figure import Figure, Panel, colours
from pipeline.report.plots.panels import MUTED, PAPER, beside, row_panel
from pipeline.report.tables.waterfall import layers_of_run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEAD = (
    "Which int8 layers the loss is in: how far rounding takes each layer's output, alone and with all before it, "
    "and how much nearer the network comes to its float form if one layer is kept in float."
)
MOST = 20  # layers of one plot; the table has all
NAME_CHARS = 26


def layers(report: Report) -> Figure | None:
    """None if no run was explained."""
    palette = colours(report)
    panels: list[Panel] = []
    notes: list[str] = []
    for run in report.runs:
        explanation = None if run.waterfall is None else run.waterfall.explanation
        if explanation is None:
            continue
        name, colour = f"layers-{len(panels)}", palette[run.model]
        if explanation.layers:
            panels.append(_sqnr(explanation, f"{name}-sqnr", run.model, colour))
        if explanation.kept_float and explanation.kl_mean > 0:
            panels.append(_kept_float(explanation, f"{name}-float", run.model, colour))
        notes += [f"{run.model}: {note}" for note in explanation.notes]
    tables = tuple(table for run in report.runs if (table := layers_of_run(run)) is not None)
    return Figure("Layers", LEAD, tuple(panels), tables=tables, notes=tuple(notes)) if tables else None


def _sqnr(explanation: Explanation, name: str, model: str, colour: str) -> Panel:
    def draw(axes: Axes, row: int, layer: LayerRecord) -> str:
        both = [db for db in (layer.alone_db, layer.chained_db) if db is not None]
        axes.plot([min(both), max(both)] if both else [], [row] * 2 if both else [], color=MUTED, linewidth=1)
        if layer.alone_db is not None:
            axes.plot(layer.alone_db, row, "o", color=colour, markerfacecolor=PAPER, markersize=6, zorder=3)
        if layer.chained_db is not None:
            axes.plot(layer.chained_db, row, "o", color=colour, markersize=6, zorder=3)
        return _brief(layer.name)

    every, shown = len(explanation.layers), explanation.layers[:MOST]
    rest = f"; the worst {MOST} of {every} layers, the table has all" if every > MOST else ""
    title, says, what = f"{model}: SQNR by layer", f"SQNR by layer of {model}", "SQNR of the layer's output, dB"
    caption = (
        f"n {explanation.images} images; hollow: this layer alone is rounded, filled: all are; right is closer{rest}"
    )
    return row_panel(title, caption, name, says, shown, draw, what, 0.24)


def _kept_float(explanation: Explanation, name: str, model: str, colour: str) -> Panel:
    def draw(axes: Axes, row: int, layer: FloatLayer) -> str:
        bought = 100 * (explanation.kl_mean - layer.kl_mean) / explanation.kl_mean
        axes.barh(row, bought, height=0.6, color=colour)
        beside(axes, row, f"{v.signed(bought, 0)}%")
        return _brief(layer.name)

    every, shown = len(explanation.kept_float), explanation.kept_float[:MOST]
    rest = f"; the best {MOST} of {every} layers" if every > MOST else ""
    title, says = f"{model}: one layer kept float", f"What one float layer buys back of {model}"
    what = "KL divergence bought back, % (below 0: further away)"
    caption = (
        f"n {explanation.images} images; of {explanation.kl_mean:.2g} nats to the network without rounding"
        f" (right: {explanation.trained_top1} and {explanation.qdq_top1}){rest}"
    )
    return row_panel(
        title, caption, name, says, shown, draw, what, 0.24,
        finish=lambda axes: axes.axvline(0, color=MUTED, linewidth=0.8),
    )  # fmt: skip


def _brief(name: str) -> str:
    """The end of a long name: it tells more than its beginning."""
    return name if len(name) <= NAME_CHARS else "…" + name[-NAME_CHARS + 1 :]
