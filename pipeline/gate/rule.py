"""What a rule of the gate is: a pure function, the budgets it takes, and whether chance has a part in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from pipeline.gate.pair import Limits, Pair
from pipeline.gate.records import Judgement

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
