"""One cell as it is now and as the baseline has it, with what keeps the two from being compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.gate.baseline import CellFacts, FileFacts, RunFacts, Scored, Timing
from pipeline.records.keys import CellKey

#: Budgets of one rule by name. None: no budget of its own.
Limits = Mapping[str, float | None]


@dataclass(frozen=True)
class Pair:
    """Two records of one cell; at least one of them is there.

    Attributes:
        other_classes: why answers are not comparable whatever the images are; None if they are.
    """

    key: CellKey
    now: CellFacts | None
    base: CellFacts | None
    other_classes: str | None = None

    def __post_init__(self) -> None:
        if self.now is None and self.base is None:
            raise ValueError(f"{self.key.label} is neither in the run nor in the baseline")

    @property
    def scored_now(self) -> Scored | None:
        return self.now.scored if self.now else None

    @property
    def scored_base(self) -> Scored | None:
        return self.base.scored if self.base else None

    @property
    def file_now(self) -> FileFacts | None:
        return self.now.file if self.now else None

    @property
    def file_base(self) -> FileFacts | None:
        return self.base.file if self.base else None

    @property
    def timing_now(self) -> Timing | None:
        return self.now.timing if self.now else None

    @property
    def timing_base(self) -> Timing | None:
        return self.base.timing if self.base else None

    @property
    def other_images(self) -> str | None:
        """Why the answers of two scored cells are not of the same questions; None if they are."""
        if self.other_classes or not (self.scored_now and self.scored_base):
            return self.other_classes
        if self.scored_now.images != self.scored_base.images:
            return (
                f"other images: {self.scored_now.n} with digest {self.scored_now.images[:12]}, "
                f"in the baseline {self.scored_base.n} with {self.scored_base.images[:12]}"
            )
        return None


def pairs(now: RunFacts, base: RunFacts) -> tuple[Pair, ...]:
    """Every cell of the two runs: those of the baseline in its order, then the new ones."""
    mine, theirs = {cell.key: cell for cell in now.cells}, {cell.key: cell for cell in base.cells}
    classes = None
    if now.num_classes != base.num_classes:
        classes = f"{now.num_classes} classes, in the baseline {base.num_classes}"
    return tuple(Pair(key, mine.get(key), theirs.get(key), classes) for key in {**theirs, **mine})
