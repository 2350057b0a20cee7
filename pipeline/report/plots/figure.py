"""What a section of the page is made of: a figure with its panels, matrices, pictures and tables, and its colours."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipeline.records.report import Report
from pipeline.report.tables.table import Table


@dataclass(frozen=True)
class Panel:
    title: str
    svg: str
    caption: str


@dataclass(frozen=True)
class Matrix:
    """Counts of two-way comparisons as a heat map: of `n`, how many are the same.

    Attributes:
        labels: of rows and columns alike, in their order.
        counts: [labels][labels].
    """

    title: str
    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    n: int
    caption: str

    def shade(self, count: int) -> float:
        """0 where all are the same, 1 where the fewest are."""
        most = max(self.n - count for row in self.counts for count in row)
        return (self.n - count) / most if most else 0.0


@dataclass(frozen=True)
class Answer:
    """What some stages say of an image; `right` is None where no class came out."""

    text: str
    stages: str
    right: bool | None


@dataclass(frozen=True)
class Picture:
    """One image; `thumbnail` is a `data:` URL or None, the first answer is the first stage's."""

    name: str
    label: str
    thumbnail: str | None
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Figure:
    """One section.

    Attributes:
        legend: of its plots: "models", "variants" (models and markers), "changes" (lost and gained), "steps" (these and
            the interval); empty if they need none.
        how: what to run for it; told where nothing was measured.
        open_tables: whether the tables are unfolded: where they tell more than the plots.
    """

    title: str
    lead: str
    panels: tuple[Panel, ...] = ()
    matrices: tuple[Matrix, ...] = ()
    pictures: tuple[Picture, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    legend: str = ""
    how: str = ""
    open_tables: bool = False

    @property
    def anchor(self) -> str:
        return anchor(self.title)

    @property
    def empty(self) -> bool:
        return not (self.panels or self.matrices or self.pictures or self.tables)


def anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


#: Of the models; they stand for the CSS variables that replace them, as those of pipeline.report.plots.panels do.
SERIES = ("#0a0001", "#0a0002", "#0a0003", "#0a0004", "#0a0005", "#0a0006")


def colours(report: Report) -> dict[str, str]:
    """Model -> its colour in every plot, the control included, in order of appearance."""
    models = [run.model for run in report.runs]
    models += [t.control.model for run in report.runs for t in run.latencies if t.control]
    return {model: SERIES[i % len(SERIES)] for i, model in enumerate(dict.fromkeys(models))}


def span(counts: list[int]) -> str:
    """Sorted counts as "360" or "200 to 400"; empty if there are none."""
    return "" if not counts else str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
