"""Rules of what a cell answers: whether it does, right answers, agreement with PyTorch, numbers out of range."""

from __future__ import annotations

import math

from pipeline.gate.baseline import RANGE_KINDS, CellFacts, Scored
from pipeline.gate.records import Judgement, Verdict
from pipeline.gate.rule import Limits, Pair
from pipeline.metrics.accuracy import wilson_percent
from pipeline.metrics.paired import PairedDrop, paired_drop

SAME_IMAGES = "validate on the images of the baseline, or make a new baseline with check --update"
REFERENCES = {"qdq": "the QDQ program", "float": "the float model"}
RUNTIME = "the runtime computes something else than the program says: look at drift by stage in the report"
RANGE_WORDS = {"nan": "not a number", "overflowed": "overflowed"}


def outcome(pair: Pair, limits: Limits, level: float) -> Judgement | None:
    """Missing if the baseline has answers of the cell and the run has none; new the other way round."""
    now, base = pair.scored
    if base and now:
        return Judgement(verdict="pass", sentence="ran, as in the baseline")
    if base:
        return Judgement(
            verdict="missing",
            sentence=f"the baseline has its answers, this run has not: {_state(pair.now)}",
            next_step="run convert and validate for it, or take it out of the baseline with check --update",
        )
    if now:
        return Judgement(
            verdict="new",
            sentence=f"in the baseline it is {_state(pair.base)}" if pair.base else "not in the baseline",
            next_step="look at its figures, then take it in with check --update",
        )
    return Judgement.not_measured(f"{_state(pair.now)}; in the baseline: {_state(pair.base)}")


def _state(cell: CellFacts | None) -> str:
    if cell is None:
        return "not there"
    reason = " ".join((cell.outcome.reason or "").split())
    stage = f" at {cell.outcome.stage}" if cell.outcome.status == "failed" else ""
    return f"{cell.outcome.status}{stage}: {reason}"


def drop(pair: Pair, limits: Limits, level: float) -> Judgement | None:
    """Top-1 on the same images. Regressed needs both: the exact one-sided McNemar test at `level` finds a loss, and the
    interval reaches over the budget. Within the budget is a pass, whatever the test says.
    """
    (now, base), budget = pair.scored, limits["max_pp"]
    if now is None or base is None:
        return None
    if pair.other_images:
        return Judgement.refused(f"{pair.other_images}: answers to other questions are not compared", SAME_IMAGES)
    assert budget is not None
    change = paired_drop(base.right_flags, now.right_flags)
    verdict, what, next_step = _decide(change, change.interval_pp(1 - 2 * level)[1], budget, level)
    seen = f"{change.lost} images lost, {change.gained} gained of {change.n}: {what}"
    return _of_drop(verdict, seen, next_step, change, budget, level)


def _of_drop(
    verdict: Verdict, sentence: str, next_step: str, change: PairedDrop, budget: float, level: float
) -> Judgement:
    low, high = change.interval_pp(confidence := 1 - 2 * level)
    return Judgement(
        verdict=verdict,
        sentence=sentence,
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


def agreement(pair: Pair, limits: Limits, level: float) -> Judgement | None:
    """Answers as those of the torch reference: against `min_percent` where one is set, else against the agreement that
    the baseline had on the same images.
    """
    (now, base), floor = pair.scored, limits["min_percent"]
    if now is None:
        return None
    if floor is not None:
        return _against_floor(now, base, floor, level)
    if base is None:
        return None
    if pair.other_images:
        return Judgement.refused(
            f"{pair.other_images}: agreement on other images is not compared",
            "validate on the images of the baseline, or set a floor with --min-agreement",
        )
    if now.reference != base.reference:
        return Judgement.refused(
            f"with {REFERENCES[now.reference]}, in the baseline with {REFERENCES[base.reference]}",
            "make a new baseline with check --update",
        )
    return _against_baseline(now, base, limits["max_drop_pp"] or 0.0, level)


def _against_floor(now: Scored, base: Scored | None, floor: float, level: float) -> Judgement:
    """The Wilson interval decides: all of it above the floor, all of it below, or neither."""
    low, high = wilson_percent(now.same, now.n, confidence := 1 - 2 * level)
    verdict: Verdict = "pass" if low >= floor else "regressed" if high < floor else "inconclusive"
    steps = {"regressed": RUNTIME, "inconclusive": "validate on more images, or lower --min-agreement"}
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
    lost = change.p_loss <= level and change.interval_pp(1 - 2 * level)[1] > budget
    seen = f"{now.same} of {now.n} images agree with {REFERENCES[now.reference]}, {base.same} in the baseline"
    if lost:
        return _of_drop(
            "regressed", f"{seen} (p {change.p_loss:.2g}, level {level:.2g})", RUNTIME, change, budget, level
        )
    return _of_drop("pass", seen, "", change, budget, level)


def ranges(pair: Pair, limits: Limits, level: float) -> Judgement | None:
    """Numbers out of range in a simulation: regressed where there are some of a kind that the baseline had none of."""
    now, base = pair.scored
    if now is None or base is None or now.range_events is None or base.range_events is None:
        return None
    if pair.other_images:
        return Judgement.refused(f"{pair.other_images}: other images have other ranges", SAME_IMAGES)
    fresh = [kind for kind in RANGE_KINDS if now.range_events[kind] and not base.range_events[kind]]
    counts, before = (
        ", ".join(f"{events[kind]} {RANGE_WORDS[kind]}" for kind in fresh or RANGE_KINDS)
        for events in (now.range_events, base.range_events)
    )
    return Judgement(
        verdict="regressed" if fresh else "pass",
        sentence=f"numbers out of range: {counts}; in the baseline: {before}",
        next_step="the report names the operators; keep them in float32 with convert --float32-op" if fresh else "",
        now=float(sum(now.range_events.values())),
        baseline=float(sum(base.range_events.values())),
        unit="numbers",
        n=now.n,
    )
