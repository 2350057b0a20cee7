"""What a section of the page is: a title, one sentence that explains it, and plots, matrices, pictures or tables."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipeline.report.plots.panels import Panel
from pipeline.report.tables.table import Table


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
