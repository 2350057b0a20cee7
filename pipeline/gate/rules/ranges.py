"""Numbers that left the range of their format in a simulation, then and now, in; a judgement out."""

from __future__ import annotations

from pipeline.gate.baseline import RANGE_KINDS
from pipeline.gate.pair import Limits, Pair
from pipeline.gate.records import Judgement

WORDS = {"nan": "not a number", "overflowed": "overflowed"}


def judge(pair: Pair, limits: Limits, level: float) -> Judgement | None:
    """Regressed where there are numbers of a kind that the baseline had none of."""
    now, base = pair.scored_now, pair.scored_base
    if now is None or base is None or now.range_events is None or base.range_events is None:
        return None
    if pair.other_images:
        return Judgement(
            verdict="refused",
            sentence=f"{pair.other_images}: other images have other ranges",
            next_step="validate on the images of the baseline, or make a new baseline with check --update",
        )
    fresh = [kind for kind in RANGE_KINDS if now.range_events[kind] and not base.range_events[kind]]
    counts = ", ".join(f"{now.range_events[kind]} {WORDS[kind]}" for kind in fresh or RANGE_KINDS)
    before = ", ".join(f"{base.range_events[kind]} {WORDS[kind]}" for kind in fresh or RANGE_KINDS)
    return Judgement(
        verdict="regressed" if fresh else "pass",
        sentence=f"numbers out of range: {counts}; in the baseline: {before}",
        next_step="the report names the operators; keep them in float32 with convert --float32-op" if fresh else "",
        now=float(sum(now.range_events.values())),
        baseline=float(sum(base.range_events.values())),
        unit="numbers",
        n=now.n,
    )
