"""What a rule of the gate is: a pure function of one cell then and now, with the budgets that it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from pipeline.gate.baseline import CellFacts, FileFacts, RunFacts, Scored, Timing
from pipeline.gate.records import Judgement
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

    @property
    def scored(self) -> tuple[Scored | None, Scored | None]:
        """Answers now, and in the baseline."""
        return self.now.scored if self.now else None, self.base.scored if self.base else None

    @property
    def file(self) -> tuple[FileFacts | None, FileFacts | None]:
        """Likewise what the file holds."""
        return self.now.file if self.now else None, self.base.file if self.base else None

    @property
    def timing(self) -> tuple[Timing | None, Timing | None]:
        """Likewise the latency."""
        return self.now.timing if self.now else None, self.base.timing if self.base else None

    @property
    def other_images(self) -> str | None:
        """Why the answers of two scored cells are not of the same questions; None if they are."""
        now, base = self.scored
        if self.other_classes or now is None or base is None or now.images == base.images:
            return self.other_classes
        return f"other images: {now.n} with digest {now.images[:12]}, in the baseline {base.n} with {base.images[:12]}"


def pairs(now: RunFacts, base: RunFacts) -> tuple[Pair, ...]:
    """Every cell of the two runs: those of the baseline in its order, then the new ones."""
    mine, theirs = {cell.key: cell for cell in now.cells}, {cell.key: cell for cell in base.cells}
    classes = None
    if now.num_classes != base.num_classes:
        classes = f"{now.num_classes} classes, in the baseline {base.num_classes}"
    return tuple(Pair(key, mine.get(key), theirs.get(key), classes) for key in {**theirs, **mine})


#: Tests of one family share its false alarms; None for a rule that counts and has none.
Family = Literal["accuracy", "timing"]


@dataclass(frozen=True)
class Limit:
    """One budget of a rule.

    Attributes:
        default: None: none of its own, see `says`.
        whole: only whole numbers.
        flag: true or false, no number.
    """

    default: float | None
    unit: str
    says: str
    high: float | None = None
    whole: bool = False
    flag: bool = False

    def refusal(self, value: object) -> str | None:
        """Why `value` is no value of this budget; None if it is one."""
        if self.flag:
            return None if isinstance(value, bool) else "true or false"
        if isinstance(value, bool) or not isinstance(value, int | float):
            return "a number"
        if self.whole and value != int(value):
            return "a whole number"
        top = float("inf") if self.high is None else self.high
        if not (0 <= value <= top and value < float("inf")):
            return "a number from 0" + (f" to {self.high:g}" if self.high is not None else "")
        return None


@dataclass(frozen=True)
class Rule:
    """`judge(pair, limits, level)`: one cell then and now, the budgets in force, and the one-sided level of a test."""

    judge: Callable[[Pair, Limits, float], Judgement | None]
    says: str
    limits: Mapping[str, Limit]
    family: Family | None = None
