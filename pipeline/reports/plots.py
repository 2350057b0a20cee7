"""A report in, its plots out as panels of inline SVG: accuracy against latency, drift, size, latency samples."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.metrics import latency
from pipeline.metrics.accuracy import Accuracy, wilson_percent
from pipeline.reports.cells import Cell, cells, run_cells
from pipeline.reports.drift_plot import drift_by_stage
from pipeline.reports.latency_plot import latency_samples
from pipeline.reports.panels import MARKERS, Panel, colours, one_axes, rows, span
from pipeline.reports.records import Rounds
from pipeline.reports.schema import Report
from pipeline.reports.svg import FONT_PT, MUTED, inline_svg
from pipeline.reports.values import printable


def accuracy_against_latency(report: Report) -> tuple[Panel, ...]:
    """One panel for each runtime: top-1 with its interval over the median with p90; only cells that have both."""
    points: dict[str, list[tuple[Cell, str, Rounds, Accuracy]]] = {}
    accuracies = {c.validation.key: c.validation.accuracy for c in cells(report) if c.validation}
    paired = {t.control for run in report.runs for t in run.latencies if t.control}
    for cell in cells(report):
        record = cell.latency
        if record is None or record.rounds_ms is None:
            continue
        right = accuracies.get(record.key)
        if right is not None and record.key not in paired:  # the control's samples of the same rounds stand for it
            points.setdefault(cell.place, []).append((cell, cell.model, record.rounds_ms, right))
        control = accuracies.get(record.control) if record.control else None
        if record.control and record.control_rounds_ms and control:
            points.setdefault(cell.place, []).append((cell, record.control.model, record.control_rounds_ms, control))
    palette = colours(report)
    return tuple(_accuracy_panel(i, place, found, palette) for i, (place, found) in enumerate(points.items()))


def _accuracy_panel(
    number: int, place: str, points: list[tuple[Cell, str, Rounds, Accuracy]], palette: dict[str, str]
) -> Panel:
    named: set[str] = set()
    with one_axes(2.9) as (figure, axes):
        summaries = [latency.summarize([ms for r in rounds for ms in r]) for _, _, rounds, _ in points]
        for (cell, model, _, right), summary in sorted(zip(points, summaries, strict=True), key=lambda p: p[0][1]):
            low, high = wilson_percent(right.top1, right.n)
            axes.errorbar(
                summary.median_ms,
                right.top1_percent,
                xerr=[[0.0], [summary.p90_ms - summary.median_ms]],
                yerr=[[right.top1_percent - low], [high - right.top1_percent]],
                fmt=MARKERS[cell.variant],
                color=palette[model],
                elinewidth=1,
                markersize=7,
            )
            axes.annotate(
                cell.variant,
                (summary.median_ms, right.top1_percent),
                (6, -12),
                textcoords="offset points",
                color=MUTED,
                fontsize=FONT_PT - 1,
            )
            if model not in named:
                named.add(model)
                axes.annotate(
                    printable(model),
                    (summary.median_ms, high),
                    (0, 4),
                    textcoords="offset points",
                    ha="center",
                    color=palette[model],
                )
        axes.set_xlim(0, 1.2 * max(s.p90_ms for s in summaries))
        axes.margins(y=0.15)
        axes.set_xlabel("median latency, ms (bar to p90)")
        axes.set_ylabel("top-1, % (95% interval)")
        n_images = sorted({right.n for *_, right in points})
        samples = sorted({s.n for s in summaries})
        svg = inline_svg(figure, f"accuracy-{number}", f"Top-1 against latency on {place}")
    return Panel(place, svg, f"n {span(n_images)} images, {span(samples)} latency samples a point")


def sizes(report: Report) -> tuple[Panel, ...]:
    """One panel for each run: bytes of every artifact, on one scale for all."""
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
    return tuple(panels)


PLOTS: dict[str, Callable[[Report], tuple[Panel, ...]]] = {
    "Accuracy against latency": accuracy_against_latency,
    "Drift by stage": drift_by_stage,
    "Size": sizes,
    "Latency samples": latency_samples,
}
