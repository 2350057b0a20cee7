"""What the gate says: a finding for each cell and rule, and the verdicts of a cell and of the whole check."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from pipeline.metrics.drift import check_finite
from pipeline.records.keys import CellKey

Verdict = Literal["pass", "new", "inconclusive", "refused", "missing", "regressed"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)  # from best to worst
Severity = Literal["fail", "warn"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
Inconclusive = Literal["fail", "pass"]


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What one rule says of one cell.

    Attributes:
        verdict: None where nothing was measured that the rule could judge.
        sentence: what was seen.
        next_step: what to do about it; empty where there is nothing to do.
        now, baseline, budget: in `unit`; None where there is none. `budget` is what is still allowed.
        low, high: bound the figure that is held against the budget, with `confidence`.
        n: images, or rounds of a latency.
        detectable: the smallest drop that so many images show with 80% power, in `unit`.
    """

    verdict: Verdict | None
    sentence: str
    next_step: str = ""
    now: float | None = None
    baseline: float | None = None
    budget: float | None = None
    unit: str = ""
    low: float | None = None
    high: float | None = None
    confidence: float | None = None
    n: int | None = None
    detectable: float | None = None

    def __post_init__(self) -> None:
        if not self.sentence or (self.verdict not in ("pass", None) and not self.next_step):
            raise ValueError(f"{self.verdict}: a judgement says what was seen, and what to do unless it is a pass")
        if (self.low is None) != (self.high is None) or (self.low is not None and self.confidence is None):
            raise ValueError(f"interval from {self.low} to {self.high} at confidence {self.confidence}")
        check_finite(self.now, self.baseline, self.budget, self.low, self.high, self.detectable)

    @classmethod
    def refused(cls, sentence: str, next_step: str) -> Judgement:
        """The two are not comparable."""
        return cls(verdict="refused", sentence=sentence, next_step=next_step)

    @classmethod
    def not_measured(cls, sentence: str, next_step: str = "") -> Judgement:
        return cls(verdict=None, sentence=sentence, next_step=next_step)


@dataclass(frozen=True, kw_only=True)
class Finding(Judgement):
    """A judgement with its rule, and whether that rule fails the check or only warns."""

    rule: str
    severity: Severity


@dataclass(frozen=True)
class CellVerdict:
    """One cell with all that was found."""

    key: CellKey
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> Verdict | None:
        """The worst of the rules that are no mere warning; None where nothing could be judged."""
        return worst(f.verdict for f in self.findings if f.severity == "fail")


@dataclass(frozen=True)
class GateResult:
    """A whole check.

    Attributes:
        notes: what differs between the runs and is no reason to refuse.
        tests: by family of rules, how many tests share the false alarms.
        confidence: by family, of each interval.
    """

    run_id: str
    baseline_run_id: str
    model: str
    cells: tuple[CellVerdict, ...]
    notes: tuple[str, ...]
    tests: Mapping[str, int]
    confidence: Mapping[str, float]
    inconclusive: Inconclusive

    @property
    def verdict(self) -> Verdict | None:
        """The worst of all cells; None where nothing could be judged."""
        return worst(cell.verdict for cell in self.cells)

    def findings(self, *verdicts: Verdict | None) -> tuple[tuple[CellKey, Finding], ...]:
        """Those with one of `verdicts`, cell by cell."""
        return tuple((cell.key, f) for cell in self.cells for f in cell.findings if f.verdict in verdicts)


def worst(verdicts: Iterable[Verdict | None]) -> Verdict | None:
    """The worst that is one."""
    return max((v for v in verdicts if v is not None), key=VERDICTS.index, default=None)
