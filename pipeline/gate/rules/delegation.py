"""What a file leaves outside of its delegate, then and now, in; judgements out."""

from __future__ import annotations

from pipeline.gate.pair import Limits, Pair
from pipeline.gate.records import Judgement

LOOK = "inspect names the operators; each one is a copy out of the delegate and back"


def undelegated(pair: Pair, limits: Limits, level: float) -> Judgement | None:
    """Operators outside of the delegate; no budget of its own means no more than in the baseline."""
    now = pair.file_now.undelegated if pair.file_now else None
    base = pair.file_base.undelegated if pair.file_base else None
    return _judged("operators outside of the delegate", now, base, limits["max"])


def partitions(pair: Pair, limits: Limits, level: float) -> Judgement | None:
    """Parts that the delegate runs; no budget of its own means no more than in the baseline."""
    now = pair.file_now.partitions if pair.file_now else None
    base = pair.file_base.partitions if pair.file_base else None
    return _judged("partitions", now, base, limits["max"])


def _judged(what: str, now: int | None, base: int | None, limit: float | None) -> Judgement | None:
    budget = base if limit is None else limit
    if now is None or budget is None:  # a format that does not tell, or nothing to hold it against
        return None
    over = now > budget
    return Judgement(
        verdict="regressed" if over else "pass",
        sentence=f"{now} {what}, {'the baseline has' if limit is None else 'allowed are'} {budget:g}",
        next_step=LOOK if over else "",
        now=float(now),
        baseline=None if base is None else float(base),
        budget=float(budget),
        unit=what.split()[0],
    )
