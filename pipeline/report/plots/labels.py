"""Place each text of a plot beside its point, where it covers least of what is already there."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from pipeline.report.plots.panels import FONT_PT, HALO, settle

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

GAP_PT = 3.0  # between a marker's edge and its text
THIN_PT = 1.5  # half of the width that an error bar is given when texts avoid it
OUTSIDE = 20.0  # a point of text outside of the axes weighs as much as so many on top of something
SLACK = 1.02  # the page's font may be a little wider than the one measured here


@dataclass(frozen=True)
class Label:
    """A text for the point (x, y) in data units.

    Attributes:
        radius_pt: of the point's marker.
        left, right, low, high: ends of its error bars, in data units.
    """

    text: str
    x: float
    y: float
    colour: str
    radius_pt: float
    left: float
    right: float
    low: float
    high: float


def place(axes: Axes, labels: list[Label]) -> None:
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
            inside = Bbox.intersection(box, frame)
            outside = box.width * box.height - (inside.width * inside.height if inside else 0.0)
            cost = OUTSIDE * outside + sum(_shared(box, other) for other in taken)
            if best is None or cost < best[0] - 1e-6:
                best = (cost, (dx, dy), box)
        assert best is not None  # there are offsets
        note.xyann = best[1]
        taken.append(best[2])


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

    (x, y), (left, low), (right, high) = axes.transData.transform(
        [(label.x, label.y), (label.left, label.low), (label.right, label.high)]
    )
    radius, thin = label.radius_pt * per_point, THIN_PT * per_point
    return [
        Bbox.from_extents(x - radius, y - radius, x + radius, y + radius),
        Bbox.from_extents(left, y - thin, right, y + thin),
        Bbox.from_extents(x - thin, low, x + thin, high),
    ]


def _shared(a: Bbox, b: Bbox) -> float:
    width, height = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
    return width * height if width > 0 and height > 0 else 0.0
