"""Plots of latency: accuracy against latency and size with its Pareto front, and the raw samples."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from pipeline.metrics.accuracy import Accuracy, wilson_percent
from pipeline.metrics.latency import LatencySummary, summarize
from pipeline.records.keys import CellKey
from pipeline.records.latency import Rounds
from pipeline.records.report import Report
from pipeline.report.cells import Cell, cells
from pipeline.report.plots.figure import Figure, Panel, colours, span
from pipeline.report.plots.panels import FONT_PT, HALO, INK, MARKERS, MUTED, inline_svg, one_axes, row_panel, settle
from pipeline.report.values import flat_samples, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

ACCURACY_LEAD = (
    "Further up is more accurate, further left is faster, a smaller marker is a smaller file; the dotted line is the "
    "Pareto front: nothing measured here is both faster and more accurate than a point on it."
)
LARGEST_PT2 = 260.0  # area of the largest file's marker
LEAST_PT2 = 16.0  # what is smaller cannot be told apart
MAX_POINTS = 400  # of one row: more make the page heavy and show nothing new; the box is over all samples
WINDOW = (0.7, 1.8)  # of the median: what lies outside is counted in the caption, or it would squeeze the rest
SAMPLES_LEAD = (
    "Every timed image as a share of its row's median: a narrow cloud is a steady figure, one that leans is a machine "
    "that became slower or faster on the way."
)


@dataclass(frozen=True)
class Point:
    """One artifact in one runtime; `size_bytes` is None where the file is not in this report."""

    key: CellKey
    latency: LatencySummary
    accuracy: Accuracy
    size_bytes: int | None

    def beats(self, other: Point) -> bool:
        """At least as fast and as accurate, and not equal in both."""
        mine = (self.latency.median_ms, -self.accuracy.top1_percent)
        theirs = (other.latency.median_ms, -other.accuracy.top1_percent)
        return mine != theirs and mine[0] <= theirs[0] and mine[1] <= theirs[1]


def accuracy_against_latency(report: Report) -> Figure:
    """Only cells that have both; the control's samples of the same rounds stand for it."""
    palette = colours(report)
    largest = max((p.size_bytes or 0 for points in _points(report).values() for p in points), default=0)
    panels = tuple(
        _accuracy(f"accuracy-{i}", place, points, palette, largest)
        for i, (place, points) in enumerate(_points(report).items())
    )
    how = "python main.py validate, and python main.py benchmark"
    return Figure("Accuracy, latency and size", ACCURACY_LEAD, panels, legend="variants", how=how)


def front(points: list[Point]) -> list[Point]:
    """Those that no other beats, the fastest first."""
    best = [point for point in points if not any(other.beats(point) for other in points)]
    return sorted(best, key=lambda point: point.latency.median_ms)


def _points(report: Report) -> dict[str, list[Point]]:
    """By runtime."""
    accuracies = {c.validation.key: c.validation.accuracy for c in cells(report) if c.validation}
    sizes = {
        (c.model, c.artifact): c.facts.size_bytes for run in report.runs for c in run.conversions if c.facts is not None
    }
    found: dict[str, list[Point]] = {}
    for cell, key, rounds in _timed(report):
        if (right := accuracies.get(key)) is not None:
            size = sizes.get((key.model, key.artifact))
            found.setdefault(cell.place, []).append(Point(key, summarize(flat_samples(rounds)), right, size))
    return found


def _timed(report: Report) -> Iterator[tuple[Cell, CellKey, Rounds]]:
    """Samples of every cell, then of its control; the latter stand for a control that is a cell of the report too."""
    paired = {t.control for run in report.runs for t in run.latencies if t.control}
    for cell in cells(report):
        record = cell.latency
        if record is None or record.rounds_ms is None:
            continue
        if record.key not in paired:
            yield cell, record.key, record.rounds_ms
        if record.control is not None and record.control_rounds_ms is not None:
            yield cell, record.control, record.control_rounds_ms


def _accuracy(name: str, place: str, points: list[Point], palette: dict[str, str], largest: int) -> Panel:
    with one_axes(3.3) as (figure, axes):
        best = [(p.latency.median_ms, p.accuracy.top1_percent) for p in front(points)]
        axes.plot(*zip(*best, strict=True), color=MUTED, lw=1, ls=(0, (1, 2)), drawstyle="steps-post", zorder=1)
        texts = [_draw(axes, point, palette[point.key.model], largest) for point in points]
        axes.set_xlim(0, 1.2 * max(p.latency.p90_ms for p in points))
        lows, highs = [t.low for t in texts], [t.high for t in texts]
        margin = max(0.5, 0.18 * (max(highs) - min(lows)))
        axes.set_ylim(min(lows) - margin, max(highs) + margin)
        axes.set_xlabel("median latency, ms (bar to p90)")
        axes.set_ylabel("top-1, % (95% interval)")
        place_labels(axes, texts)
        svg = inline_svg(figure, name, f"Top-1 against latency on {place}")
    images = span(sorted({p.accuracy.n for p in points}))
    samples = span(sorted({p.latency.n for p in points}))
    return Panel(place, svg, f"n {images} images, {samples} latency samples a point. {_not_beaten(points)}")


def _draw(axes: Axes, point: Point, colour: str, largest: int) -> Label:
    """Marker with its intervals; returns the text that is still to be placed."""
    area = LEAST_PT2 if point.size_bytes is None else max(LEAST_PT2, LARGEST_PT2 * point.size_bytes / largest)
    x, y = point.latency.median_ms, point.accuracy.top1_percent
    low, high = wilson_percent(point.accuracy.top1, point.accuracy.n)
    right = max(x, point.latency.p90_ms)
    axes.errorbar(
        x,
        y,
        xerr=[[0.0], [right - x]],
        yerr=[[max(0.0, y - low)], [max(0.0, high - y)]],
        fmt=MARKERS[point.key.artifact.variant],
        color=colour,
        elinewidth=1,
        markersize=math.sqrt(area),
        zorder=3,
    )
    size = "size unknown" if point.size_bytes is None else f"{point.size_bytes / 1e6:.1f} MB"
    text = f"{printable(point.key.model)}\n{point.key.artifact.variant}, {size}"
    return Label(text, x, y, colour, math.sqrt(area) / 2, right, low, high)


def _not_beaten(points: list[Point]) -> str:
    """Which of them nothing else beats in speed, accuracy and size at once."""
    if any(point.size_bytes is None for point in points):
        return ""
    beaten = [
        f"{p.key.model} {p.key.artifact.variant}"
        for p in points
        if any(other.beats(p) and (other.size_bytes or 0) <= (p.size_bytes or 0) for other in points)
    ]
    if not beaten:
        return "None is beaten in speed, accuracy and size at once."
    return f"Beaten in speed, accuracy and size at once: {', '.join(beaten)}."


def latency_samples(report: Report) -> Figure:
    """Samples as a share of their row's median, round by round from top to bottom within a row, and a box plot."""
    palette = colours(report)
    found: dict[str, list[tuple[str, str, Rounds]]] = {}
    for cell, key, rounds in _timed(report):
        found.setdefault(cell.place, []).append((key.model, cell.file.variant, rounds))
    panels = tuple(_samples(i, place, samples, palette) for i, (place, samples) in enumerate(found.items()))
    return Figure("Latency samples", SAMPLES_LEAD, panels, how="python main.py benchmark")


def _samples(number: int, place: str, samples: list[tuple[str, str, Rounds]], palette: dict[str, str]) -> Panel:
    def draw(axes: Axes, row: int, timed: tuple[str, str, Rounds]) -> str:
        model, variant, rounds = timed
        ink = {"color": INK}
        _strip(axes, row, rounds, palette[model])
        axes.boxplot(
            _shares(rounds),
            positions=[row],
            orientation="horizontal",
            widths=0.3,
            showfliers=False,
            manage_ticks=False,
            boxprops=ink,
            whiskerprops=ink,
            capprops=ink,
            medianprops=ink,
        )
        return f"{model}\n{variant}, {_median(rounds):.2f} ms"

    def finish(axes: Axes) -> None:
        low, high = axes.get_xlim()
        axes.set_xlim(max(low, WINDOW[0]), min(high, WINDOW[1]))

    n = span(sorted({sum(map(len, rounds)) for _, _, rounds in samples}))
    shares = [_shares(rounds) for _, _, rounds in samples]
    outside = sum(int(((share < WINDOW[0]) | (share > WINDOW[1])).sum()) for share in shares)
    beyond = f"; {outside} outside the window" if outside else ""
    caption = f"n {n} samples a row, first round on top; box: quartiles, whiskers: 1.5 IQR{beyond}"
    name, says, what = f"samples-{number}", f"Raw latency samples on {place}", "sample / median of the row"
    return row_panel(place, caption, name, says, samples, draw, what, 0.5, 0.7, finish)


def _median(rounds: Rounds) -> float:
    return float(np.median(flat_samples(rounds)))


def _shares(rounds: Rounds) -> np.ndarray:
    """Every sample over the median of all."""
    return np.asarray(flat_samples(rounds)) / _median(rounds)


def _strip(axes: Axes, row: int, rounds: Rounds, colour: str) -> None:
    """Every k-th sample, each round at its own height."""
    step = math.ceil(sum(map(len, rounds)) / MAX_POINTS)
    heights = np.linspace(-0.36, 0.36, len(rounds)) if len(rounds) > 1 else [0.0]
    x = _shares(rounds)
    y = [row + height for samples, height in zip(rounds, heights, strict=True) for _ in samples]
    axes.plot(x[::step], y[::step], ".", color=colour, markersize=4, alpha=0.6, markeredgewidth=0)


# Each text of a plot stands beside its point, where it covers least of what is already there.

GAP_PT = 3.0  # between a marker's edge and its text
THIN_PT = 1.5  # half of the width that an error bar is given when texts avoid it
OUTSIDE = 20.0  # a point of text outside of the axes weighs as much as so many on top of something
SLACK = 1.02  # the page's font may be a little wider than the one measured here


@dataclass(frozen=True)
class Label:
    """A text for the point (x, y) in data units.

    Attributes:
        radius_pt: of the point's marker.
        right, low, high: ends of its error bars, in data units; on the left they begin at the point.
    """

    text: str
    x: float
    y: float
    colour: str
    radius_pt: float
    right: float
    low: float
    high: float


def place_labels(axes: Axes, labels: list[Label]) -> None:
    """Annotate every label, in order; the axes' limits and everything else must be final."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.transforms import Bbox

    figure = axes.get_figure()
    assert figure is not None
    canvas = FigureCanvasAgg(figure)  # type: ignore[arg-type]
    settle(figure)  # type: ignore[arg-type]
    per_point = figure.dpi / 72
    frame = axes.get_window_extent()
    taken = [box for label in labels for box in _occupied(axes, label, per_point)]
    for label in labels:
        note = axes.annotate(
            label.text,
            (label.x, label.y),
            (0, 0),
            textcoords="offset points",
            ha="left",
            va="bottom",
            color=label.colour,
            fontsize=FONT_PT - 1,
            linespacing=1.1,
            bbox=HALO,
        )
        size = note.get_window_extent(canvas.get_renderer())
        width, height = size.width * SLACK / per_point, size.height / per_point
        x, y = axes.transData.transform((label.x, label.y))
        best: tuple[float, tuple[float, float], Bbox] | None = None
        for dx, dy in _offsets(width, height, label.radius_pt + GAP_PT):
            box = Bbox.from_bounds(x + dx * per_point, y + dy * per_point, width * per_point, height * per_point)
            outside = box.width * box.height - _shared(box, frame)
            cost = OUTSIDE * outside + sum(_shared(box, other) for other in taken)
            if best is None or cost < best[0] - 1e-6:
                best = (cost, (dx, dy), box)
        assert best is not None  # there are offsets
        _, note.xyann, box = best
        taken.append(box)


def _offsets(width: float, height: float, away: float) -> list[tuple[float, float]]:
    """Lower left corners of the text from the point: above and below first, then beside, then further away."""
    found = []
    for step in (0.0, 0.6 * height, 1.3 * height, 2.2 * height):
        columns = (away, -away - width, -width / 2)
        found += list(product(columns, (away + step, -away - step - height)))
        found += [(away + step, -height / 2), (-away - step - width, -height / 2)]
    return found


def _occupied(axes: Axes, label: Label, per_point: float) -> list[Bbox]:
    """Marker and error bars in pixels."""
    from matplotlib.transforms import Bbox

    ends = [(label.x, label.y), (label.x, label.low), (label.right, label.high)]
    (x, y), (_, low), (right, high) = axes.transData.transform(ends)
    radius, thin = label.radius_pt * per_point, THIN_PT * per_point
    return [
        Bbox.from_extents(x - radius, y - radius, x + radius, y + radius),
        Bbox.from_extents(x, y - thin, right, y + thin),
        Bbox.from_extents(x - thin, low, x + thin, high),
    ]


def _shared(a: Bbox, b: Bbox) -> float:
    width, height = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
    return width * height if width > 0 and height > 0 else 0.0
