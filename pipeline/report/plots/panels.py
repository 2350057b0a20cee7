"""What every plot is made of: one panel as wide as a phone's screen, in the report's style and colours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.records.report import Report
from pipeline.report.plots.svg import FONT_PT, MUTED, PAPER, SERIES, STYLE
from pipeline.report.values import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_IN = 4.1  # 295 pt: the width of a panel on a 360 px phone, so 1 pt is 1 CSS pixel there
#: By variant: precision, and of int8 and w8a16 where the scales come from.
MARKERS = {
    "fp32": "o", "fp16": "s", "int8 qat": "D", "int8 ptq": "^", "w8a16 ptq": "v", "w8a16 qat": "v",
    "int8-dynamic": "P", "w4a8-dynamic": "X", "w8": "<", "w4": ">", "lut8": "p", "lut6": "h", "lut4": "*",
}  # fmt: skip


@dataclass(frozen=True)
class Panel:
    title: str
    svg: str
    caption: str


def colours(report: Report) -> dict[str, str]:
    """Model -> its colour in every plot, the control included, in order of appearance."""
    models = [run.model for run in report.runs]
    models += [t.control.model for run in report.runs for t in run.latencies if t.control]
    return {model: SERIES[i % len(SERIES)] for i, model in enumerate(dict.fromkeys(models))}


#: Behind a text that a line may run through; pass as `bbox`.
HALO: dict[str, Any] = {"facecolor": PAPER, "edgecolor": "none", "alpha": 0.75, "pad": 0.5}


def missing(axes: Axes, row: int, text: str) -> None:
    """What a row says that has no figure."""
    axes.text(
        0.02, row, text, transform=axes.get_yaxis_transform(), va="center", color=MUTED, style="italic", clip_on=False
    )


def rows(axes: Axes, labels: list[str]) -> None:
    """Rows from top to bottom, one for each label."""
    axes.set_yticks(range(len(labels)), [printable(label) for label in labels], fontsize=FONT_PT - 1)
    axes.set_ylim(len(labels) - 0.5, -0.6)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def span(counts: list[int]) -> str:
    """Sorted counts as "360" or "200 to 400"; empty if there are none."""
    return "" if not counts else str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


@contextmanager
def one_axes(height_in: float) -> Iterator[tuple[Figure, Axes]]:
    """A figure of one panel in the report's style, without pyplot's global state."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
        yield figure, figure.add_subplot()
