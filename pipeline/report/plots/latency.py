"""A report in, the raw latency samples of every cell and of its control out, one panel for each runtime."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from pipeline.records.latency import Rounds
from pipeline.records.report import Report
from pipeline.report.cells import cells
from pipeline.report.plots.figure import Figure
from pipeline.report.plots.panels import Panel, colours, one_axes, rows, span
from pipeline.report.plots.svg import INK, inline_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_POINTS = 400  # of one row: more make the page heavy and show nothing new; the box is over all samples
WINDOW = (0.7, 1.8)  # of the median: what lies outside is counted in the caption, or it would squeeze the rest
LEAD = (
    "Every timed image as a share of its row's median: a narrow cloud is a steady figure, one that leans is a machine "
    "that became slower or faster on the way."
)


def latency_samples(report: Report) -> Figure:
    """Samples as a share of their row's median, round by round from top to bottom within a row, and a box plot."""
    palette = colours(report)
    found: dict[str, list[tuple[str, str, Rounds]]] = {}
    paired = {t.control for run in report.runs for t in run.latencies if t.control}
    for cell in cells(report):
        record = cell.latency
        if record is None or record.rounds_ms is None:
            continue
        if record.key not in paired:  # the control's samples of the same rounds stand for it
            found.setdefault(cell.place, []).append((cell.model, cell.variant, record.rounds_ms))
        if record.control and record.control_rounds_ms:
            found.setdefault(cell.place, []).append((record.control.model, cell.variant, record.control_rounds_ms))
    panels = tuple(_panel(i, place, samples, palette) for i, (place, samples) in enumerate(found.items()))
    return Figure("Latency samples", LEAD, panels, how="python main.py benchmark")


def _panel(number: int, place: str, samples: list[tuple[str, str, Rounds]], palette: dict[str, str]) -> Panel:
    labels, outside = [], 0
    with one_axes(0.7 + 0.5 * len(samples)) as (figure, axes):
        for row, (model, variant, rounds) in enumerate(samples):
            flat = np.concatenate([np.asarray(r) for r in rounds])
            median = float(np.median(flat))
            labels.append(f"{model}\n{variant}, {median:.2f} ms")
            share = flat / median
            outside += int(((share < WINDOW[0]) | (share > WINDOW[1])).sum())
            _strip(axes, row, rounds, median, palette[model])
            axes.boxplot(
                share,
                positions=[row],
                orientation="horizontal",
                widths=0.3,
                showfliers=False,
                manage_ticks=False,
                boxprops={"color": INK},
                whiskerprops={"color": INK},
                capprops={"color": INK},
                medianprops={"color": INK},
            )
        low, high = axes.get_xlim()
        axes.set_xlim(max(low, WINDOW[0]), min(high, WINDOW[1]))
        rows(axes, labels)
        axes.set_xlabel("sample / median of the row")
        svg = inline_svg(figure, f"samples-{number}", f"Raw latency samples on {place}")
    n = span(sorted({sum(map(len, rounds)) for _, _, rounds in samples}))
    beyond = f"; {outside} outside the window" if outside else ""
    return Panel(place, svg, f"n {n} samples a row, first round on top; box: quartiles, whiskers: 1.5 IQR{beyond}")


def _strip(axes: Axes, row: int, rounds: Rounds, median: float, colour: str) -> None:
    """Every k-th sample, each round at its own height."""
    step = math.ceil(sum(map(len, rounds)) / MAX_POINTS)
    heights = np.linspace(-0.36, 0.36, len(rounds)) if len(rounds) > 1 else [0.0]
    x = [ms / median for samples in rounds for ms in samples]
    y = [row + height for samples, height in zip(rounds, heights, strict=True) for _ in samples]
    axes.plot(x[::step], y[::step], ".", color=colour, markersize=4, alpha=0.6, markeredgewidth=0)
