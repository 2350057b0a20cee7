"""Instructions of one inference under emulation, then and now, in; a judgement out."""

from __future__ import annotations

from pipeline.gate.pair import Limits, Pair
from pipeline.gate.records import Judgement


def instructions(pair: Pair, limits: Limits, level: float) -> Judgement | None:
    """Instructions of today's file over those of the baseline's, counted by the same emulator.

    Not a latency: a cheaper operator may take more of them. It has no noise worth a test, so that it notices on any
    machine that a file does more than it did.
    """
    now = pair.now.instructions if pair.now else None
    base = pair.base.instructions if pair.base else None
    budget = limits["max_ratio"]
    if now is None or base is None or budget is None:
        return None
    if now.counted_by != base.counted_by:
        return Judgement(
            verdict="refused",
            sentence=f"instructions counted by {now.counted_by}, in the baseline by {base.counted_by}",
            next_step="count with the baseline's emulator, or make a new baseline with check --update",
        )
    over = now.per_inference > budget * base.per_inference
    return Judgement(
        verdict="regressed" if over else "pass",
        sentence=f"{now.per_inference} instructions an inference, {base.per_inference} in the baseline",
        next_step="inspect both files: operators outside of the delegate, or another runtime" if over else "",
        now=now.per_inference / base.per_inference,
        baseline=1.0,
        budget=budget,
        unit="×",
    )
