"""Right answers of the same images then and now in, a judgement of the drop in top-1 out."""

from __future__ import annotations

import math

from pipeline.gate.pair import Limits, Pair
from pipeline.gate.records import Judgement, Verdict
from pipeline.metrics.paired import PairedDrop, paired_drop


def judge(pair: Pair, limits: Limits, level: float) -> Judgement | None:
    """Regressed needs both: the exact one-sided McNemar test at `level` finds a loss, and the interval reaches over the
    budget. Within the budget is a pass, whatever the test says.
    """
    now, base, budget = pair.scored_now, pair.scored_base, limits["max_pp"]
    if now is None or base is None:
        return None
    if pair.other_images:
        return Judgement(
            verdict="refused",
            sentence=f"{pair.other_images}: answers to other questions are not compared",
            next_step="validate on the images of the baseline, or make a new baseline with check --update",
        )
    assert budget is not None
    change = paired_drop(base.right_flags, now.right_flags)
    low, high = change.interval_pp(confidence := 1 - 2 * level)
    verdict, what, next_step = _decide(change, high, budget, level)
    return Judgement(
        verdict=verdict,
        sentence=f"{change.lost} images lost, {change.gained} gained of {change.n}: {what}",
        next_step=next_step,
        now=change.drop_pp,
        baseline=0.0,
        budget=budget,
        unit="pp",
        low=low,
        high=high,
        confidence=confidence,
        n=change.n,
        detectable=change.detectable_pp(level),
    )


def _decide(change: PairedDrop, high: float, budget: float, level: float) -> tuple[Verdict, str, str]:
    loss = change.p_loss <= level
    chance = f"p {change.p_loss:.2g}, level {level:.2g}"
    if high <= budget:
        return "pass", f"a loss ({chance}), within the budget" if loss else "within the budget", ""
    if loss:
        return "regressed", f"a loss ({chance})", "validate --explain tells the stage and the layers that it is in"
    needed = images_needed(change, high, budget)
    more = "no number of images turns this drop into a pass" if needed is None else f"about {needed} images would do"
    return (
        "inconclusive",
        f"no loss is shown ({chance}), and the interval reaches over the budget",
        f"validate on more images ({more}), or allow more with --max-drop",
    )


def images_needed(change: PairedDrop, high: float, budget: float) -> int | None:
    """About how many images would bring the interval's end within the budget if the same share of them changed.

    The distance from the drop to the end of its interval shrinks with the square root of n. None if the drop itself is
    over the budget: then no number of images makes it a pass.
    """
    if change.drop_pp >= budget:
        return None
    return math.ceil(change.n * ((high - change.drop_pp) / (budget - change.drop_pp)) ** 2)
