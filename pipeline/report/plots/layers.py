"""An explanation of a run's loss in, its layers out: SQNR of each, and what keeping one in float buys back."""

from __future__ import annotations

from pipeline.records.report import Report, RunRecord
from pipeline.records.waterfall import Explanation
from pipeline.report import values as v
from pipeline.report.plots.figure import Figure
from pipeline.report.plots.panels import Panel, colours, one_axes, rows
from pipeline.report.plots.svg import FONT_PT, MUTED, PAPER, inline_svg
from pipeline.report.tables.table import Table
from pipeline.report.values import Value

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
    tables: list[Table] = []
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
        tables.append(layer_table(run.model, explanation))
        notes += [f"{run.model}: {note}" for note in explanation.notes]
    return Figure("Layers", LEAD, tuple(panels), tables=tuple(tables), notes=tuple(notes)) if tables else None


def _sqnr(explanation: Explanation, name: str, model: str, colour: str) -> Panel:
    shown = explanation.layers[:MOST]
    with one_axes(0.6 + 0.24 * len(shown)) as (figure, axes):
        for row, layer in enumerate(shown):
            both = [db for db in (layer.alone_db, layer.chained_db) if db is not None]
            axes.plot([min(both), max(both)] if both else [], [row] * 2 if both else [], color=MUTED, linewidth=1)
            if layer.alone_db is not None:
                axes.plot(layer.alone_db, row, "o", color=colour, markerfacecolor=PAPER, markersize=6, zorder=3)
            if layer.chained_db is not None:
                axes.plot(layer.chained_db, row, "o", color=colour, markersize=6, zorder=3)
        rows(axes, [_brief(layer.name) for layer in shown])
        axes.set_xlabel("SQNR of the layer's output, dB")
        svg = inline_svg(figure, name, f"SQNR by layer of {model}")
    hidden = len(explanation.layers) - len(shown)
    rest = f"; the worst {len(shown)} of {len(explanation.layers)} layers, the table has all" if hidden else ""
    caption = (
        f"n {explanation.images} images; hollow: this layer alone is rounded, filled: all are; right is closer{rest}"
    )
    return Panel(f"{model}: SQNR by layer", svg, caption)


def _kept_float(explanation: Explanation, name: str, model: str, colour: str) -> Panel:
    shown = explanation.kept_float[:MOST]
    with one_axes(0.6 + 0.24 * len(shown)) as (figure, axes):
        for row, layer in enumerate(shown):
            bought = 100 * (explanation.kl_mean - layer.kl_mean) / explanation.kl_mean
            axes.barh(row, bought, height=0.6, color=colour)
            axes.text(
                1.03,
                row,
                f"{v.signed(bought, 0)}%",
                transform=axes.get_yaxis_transform(),
                va="center",
                fontsize=FONT_PT - 2,
            )
        axes.axvline(0, color=MUTED, linewidth=0.8)
        rows(axes, [_brief(layer.name) for layer in shown])
        axes.set_xlabel("KL divergence bought back, % (below 0: further away)")
        svg = inline_svg(figure, name, f"What one float layer buys back of {model}")
    hidden = len(explanation.kept_float) - len(shown)
    rest = f"; the best {len(shown)} of {len(explanation.kept_float)} layers" if hidden else ""
    caption = (
        f"n {explanation.images} images; of {explanation.kl_mean:.2g} nats to the network without rounding"
        f" (right: {explanation.trained_top1} and {explanation.qdq_top1}){rest}"
    )
    return Panel(f"{model}: one layer kept float", svg, caption)


def layers_of_run(run: RunRecord) -> Table | None:
    """None for a run that was not explained."""
    if run.waterfall is None or run.waterfall.explanation is None:
        return None
    return layer_table(run.model, run.waterfall.explanation)


def layer_table(model: str, explanation: Explanation) -> Table:
    """Every int8 layer, worst first."""
    kept = {layer.name: layer for layer in explanation.kept_float}
    runtimes = tuple(dict.fromkeys(name for layer in explanation.layers for name in layer.runtimes_db))
    rows = []
    for layer in explanation.layers:
        alone_float = kept.get(layer.name)
        rows.append(
            (
                v.words(layer.name),
                v.words(layer.kind),
                _decibels(layer.alone_db),
                _decibels(layer.chained_db),
                *(
                    _decibels(layer.runtimes_db[name]) if name in layer.runtimes_db else v.NOT_MEASURED
                    for name in runtimes
                ),
                v.NOT_MEASURED if alone_float is None else _nats(alone_float.kl_mean),
                v.NOT_MEASURED if alone_float is None else v.share(alone_float.top1, explanation.images),
            )
        )
    return Table(
        title=f"{model}: layers",
        header=(
            "Layer",
            "Kind",
            "SQNR alone",
            "SQNR chained",
            *(f"{name}, SQNR to QDQ" for name in runtimes),
            "KL with it in float",
            "Top-1 with it in float",
        ),
        rows=tuple(rows),
        label_columns=2,
        notes=(
            f"n {explanation.images} images. KL divergence in nats to the network without rounding; with all layers in "
            f"int8 it is {explanation.kl_mean:.2g}, with {explanation.qdq_top1} right answers.",
        ),
    )


def _decibels(db: float | None) -> Value:
    return Value("exact or zero", "text") if db is None else Value(f"{db:.1f} dB", sort=db)


def _nats(kl: float) -> Value:
    return Value(f"{kl:.2g}", sort=kl)


def _brief(name: str) -> str:
    """The end of a long name: it tells more than its beginning."""
    return name if len(name) <= NAME_CHARS else "…" + name[-NAME_CHARS + 1 :]
