"""Draw a panel in the report's style: colours that the page replaces by its own, rows, and SVG to put inline."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.report.plots.figure import SERIES, Panel
from pipeline.report.values import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

Row = TypeVar("Row")

# matplotlib wants real colours: these stand for the CSS variables that replace them
INK, MUTED, GRID, PAPER = "#010101", "#020202", "#030303", "#040404"
LOSS, GAIN = "#050505", "#060606"
VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper", LOSS: "loss", GAIN: "gain"} | {
    colour: f"series-{i}" for i, colour in enumerate(SERIES, 1)
}
FONT_PT = 10  # see WIDTH_IN: about 10 CSS pixels on a phone, more on a wide screen

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a `$` in a model's name is no formula
    "font.size": FONT_PT,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.labelsize": FONT_PT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
}

WIDTH_IN = 4.1  # 295 pt: the width of a panel on a 360 px phone, so 1 pt is 1 CSS pixel there
#: By variant: precision, and of int8 and w8a16 where the scales come from.
MARKERS = {
    "fp32": "o", "fp16": "s", "int8 qat": "D", "int8 ptq": "^", "w8a16 ptq": "v", "w8a16 qat": "v",
    "int8-dynamic": "P", "w4a8-dynamic": "X", "w8": "<", "w4": ">", "lut8": "p", "lut6": "h", "lut4": "*",
}  # fmt: skip
#: Behind a text that a line may run through; pass as `bbox`.
HALO: dict[str, Any] = {"facecolor": PAPER, "edgecolor": "none", "alpha": 0.75, "pad": 0.5}


def row_panel(
    title: str,
    caption: str,
    name: str,
    says: str,
    items: Sequence[Row],
    draw: Callable[[Axes, int, Row], str],
    xlabel: str,
    row_in: float,
    edge_in: float = 0.6,
    finish: Callable[[Axes], object] | None = None,
) -> Panel:
    """A plot with one row for each item, from top to bottom.

    Args:
        name, says: as `name` and `label` of `inline_svg`.
        draw: puts one item into its row, and returns what the row is called.
        row_in, edge_in: height of a row, and of the rest, in inches.
        finish: what concerns the axes as a whole.
    """
    with one_axes(edge_in + row_in * len(items)) as (figure, axes):
        labels = [printable(draw(axes, row, item)) for row, item in enumerate(items)]
        if finish is not None:
            finish(axes)
        axes.set_yticks(range(len(items)), labels, fontsize=FONT_PT - 1)
        axes.set_ylim(len(items) - 0.5, -0.6)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(xlabel)
        return Panel(title, inline_svg(figure, name, says), caption)


def beside(axes: Axes, y: float, text: str, size: float = FONT_PT - 2, colour: str = INK) -> None:
    """On the right of a row."""
    axes.text(1.03, y, text, transform=axes.get_yaxis_transform(), va="center", fontsize=size, color=colour)


def missing(axes: Axes, row: int, text: str) -> None:
    """What a row says that has no figure."""
    axes.text(
        0.02, row, text, transform=axes.get_yaxis_transform(), va="center", color=MUTED, style="italic", clip_on=False
    )


@contextmanager
def one_axes(height_in: float) -> Iterator[tuple[Drawing, Axes]]:
    """A figure of one panel in the report's style, without pyplot's global state."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
        yield figure, figure.add_subplot()


def inline_svg(figure: Drawing, name: str, label: str) -> str:
    """One `<svg>` element without outside references.

    Args:
        name: makes the element ids unique among the figures of one page.
        label: what a screen reader says.
    """
    from matplotlib import rc_context

    settle(figure)
    buffer = io.StringIO()
    with rc_context({**STYLE, "svg.hashsalt": name}):  # a fixed salt: equal figures give equal bytes
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(re.sub(r"<!DOCTYPE[^>]*>", "", buffer.getvalue()))
    for parent in list(root.iter()):
        for child in list(parent):
            if _local(child.tag) in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = _local(element.tag)
        element.attrib = {
            _local(key): _themed(_own_ids(_local(key), _rounded(value), name)) for key, value in element.attrib.items()
        }
    _hoist_styles(root)
    for size in ("width", "height", "version"):
        root.attrib.pop(size, None)  # the page sets the width, viewBox keeps the shape
    root.attrib |= {"role": "img", "aria-label": label}
    return ElementTree.tostring(root, encoding="unicode")


def settle(figure: Drawing) -> None:
    """Lay the figure out once and for all: matplotlib would do it anew each time that it draws, twice for a file."""
    if (engine := figure.get_layout_engine()) is not None:
        engine.execute(figure)
        figure.set_layout_engine(None)


def _hoist_styles(root: ElementTree.Element) -> None:
    """A style that all children of a group have is said once, by the group: a third of a plot of many points."""
    for parent in root.iter("g"):
        styles = {child.attrib.get("style") for child in parent}
        if len(parent) > 1 and len(styles) == 1 and (style := styles.pop()) and "style" not in parent.attrib:
            parent.attrib["style"] = style
            for child in parent:
                del child.attrib["style"]


def _local(name: str) -> str:
    return name.rsplit("}", 1)[-1]


def _rounded(value: str) -> str:
    """Coordinates to a hundredth of a point."""
    return re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number.group()):.2f}".rstrip("0").rstrip("."), value)


def _own_ids(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == "href":
        return value.replace("#", f"#{name}-", 1)
    return value.replace("url(#", f"url(#{name}-")


def _themed(value: str) -> str:
    value = re.sub(r"font-family: [^;]*;? ?", "", value)  # the page's font
    for colour, variable in VARIABLES.items():
        value = value.replace(colour, f"var(--{variable})")
    return value
