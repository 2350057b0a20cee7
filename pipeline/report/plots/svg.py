"""A matplotlib figure in, SVG to put inline into HTML out: text stays text, colours follow the page's theme."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ElementTree
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# matplotlib wants real colours: these stand for the CSS variables that replace them
INK, MUTED, GRID, PAPER = "#010101", "#020202", "#030303", "#040404"
LOSS, GAIN = "#050505", "#060606"
SERIES = ("#0a0001", "#0a0002", "#0a0003", "#0a0004", "#0a0005", "#0a0006")
VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper", LOSS: "loss", GAIN: "gain"} | {
    colour: f"series-{i}" for i, colour in enumerate(SERIES, 1)
}
FONT_PT = 10  # see panels.WIDTH_IN: about 10 CSS pixels on a phone, more on a wide screen

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


def inline_svg(figure: Figure, name: str, label: str) -> str:
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


def settle(figure: Figure) -> None:
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
