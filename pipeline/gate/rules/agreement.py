"""Which images an artifact answers as its torch reference does, then and now, in; a judgement out."""

from __future__ import annotations

from pipeline.gate.baseline import Scored
from pipeline.gate.pair import Limits, Pair
from pipeline.gate.records import Judgement, Verdict
from pipeline.metrics.accuracy import wilson_percent
from pipeline.metrics.paired import paired_drop

REFERENCES = {"qdq": "the QDQ program", "float": "the float model"}
LOOK = "the runtime computes something else than the program says: look at drift by stage in the report"


def judge(pair: Pair, limits: Limits, level: float) -> Judgement | None:
    """Against `min_percent` where one is set; else against the agreement that the baseline had on the same images."""
    now, base = pair.scored_now, pair.scored_base
    if now is None:
        return None
    floor = limits["min_percent"]
    if floor is not None:
        return _against_floor(now, base, floor, level)
    if base is None:
        return None
    if pair.other_images:
        return Judgement(
            verdict="refused",
            sentence=f"{pair.other_images}: agreement on other images is not compared",
            next_step="validate on the images of the baseline, or set a floor with --min-agreement",
        )
    if now.reference != base.reference:
        return Judgement(
            verdict="refused",
            sentence=f"with {REFERENCES[now.reference]}, in the baseline with {REFERENCES[base.reference]}",
            next_step="make a new baseline with check --update",
        )
    return _against_baseline(now, base, limits["max_drop_pp"] or 0.0, level)


def _against_floor(now: Scored, base: Scored | None, floor: float, level: float) -> Judgement:
    """The Wilson interval decides: all of it above the floor, all of it below, or neither."""
    low, high = wilson_percent(now.same, now.n, confidence := 1 - 2 * level)
    verdict: Verdict = "pass" if low >= floor else "regressed" if high < floor else "inconclusive"
    steps = {
        "regressed": LOOK,
        "inconclusive": "validate on more images, or lower --min-agreement",
    }
    return Judgement(
        verdict=verdict,
        sentence=f"{now.same} of {now.n} images agree with {REFERENCES[now.reference]}, at least {floor:g}% are asked",
        next_step=steps.get(verdict, ""),
        now=100 * now.same / now.n,
        baseline=None if base is None else 100 * base.same / base.n,
        budget=floor,
        unit="%",
        low=low,
        high=high,
        confidence=confidence,
        n=now.n,
    )


def _against_baseline(now: Scored, base: Scored, budget: float, level: float) -> Judgement:
    """A tripwire: regressed where the exact one-sided McNemar test finds fewer images that agree, and the interval of
    the loss reaches over the budget; else a pass.

    A gain in agreement is no fault, so the test looks one way. Two trainings of one model move images in either
    direction; an interval held against a budget would often call that inconclusive.
    """
    change = paired_drop(base.agrees_flags, now.agrees_flags)
    low, high = change.interval_pp(confidence := 1 - 2 * level)
    lost = change.p_loss <= level and high > budget
    return Judgement(
        verdict="regressed" if lost else "pass",
        sentence=f"{now.same} of {now.n} images agree with {REFERENCES[now.reference]}, {base.same} in the baseline"
        + (f" (p {change.p_loss:.2g}, level {level:.2g})" if lost else ""),
        next_step=LOOK if lost else "",
        now=change.drop_pp,
        baseline=0.0,
        budget=budget,
        unit="pp",
        low=low,
        high=high,
        confidence=confidence,
        n=now.n,
        detectable=change.detectable_pp(level),
    )
