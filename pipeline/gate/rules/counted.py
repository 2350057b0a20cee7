"""Rules that count: what a file holds, leaves outside of its delegate, takes of memory, and executes.

There is no chance in a count, so none of them tests: what is over the budget has regressed.
"""

from __future__ import annotations

from pipeline.gate.records import Judgement
from pipeline.gate.rule import Limits, Pair
from targets.words import first

NAMES = 5  # in a sentence
DELEGATE = "inspect names the operators; each one is a copy out of the delegate and back"


def counted(
    over: bool, sentence: str, next_step: str, now: float, baseline: float | None, budget: float, unit: str
) -> Judgement:
    """Regressed where `over`, else a pass; `next_step` is what to do about the former."""
    return Judgement(
        verdict="regressed" if over else "pass",
        sentence=sentence,
        next_step=next_step if over else "",
        now=float(now),
        baseline=None if baseline is None else float(baseline),
        budget=budget,
        unit=unit,
    )


def undelegated(pair: Pair, limits: Limits, level: float) -> Judgement | None:
    """Operators outside of the delegate."""
    now, base = (None if file is None else file.undelegated for file in pair.file)
    return _no_more("operators outside of the delegate", now, base, limits["max"])


def partitions(pair: Pair, limits: Limits, level: float) -> Judgement | None:
    """Parts that the delegate runs."""
    now, base = (None if file is None else file.partitions for file in pair.file)
    return _no_more("partitions", now, base, limits["max"])


def _no_more(what: str, now: int | None, base: int | None, limit: float | None) -> Judgement | None:
    """No budget of its own means no more than in the baseline."""
    budget = base if limit is None else limit
    if now is None or budget is None:  # a format that does not tell, or nothing to hold it against
        return None
    sentence = f"{now} {what}, {'the baseline has' if limit is None else 'allowed are'} {budget:g}"
    return counted(now > budget, sentence, DELEGATE, now, base, float(budget), what.split()[0])


def float_weights(pair: Pair, limits: Limits, level: float) -> Judgement | None:
    """Weights of an int8 file that are still float, beyond those of its float layers; in others all are meant to be."""
    (now, base), budget = pair.file, limits["max"]
    if now is None or budget is None or pair.key.precision != "int8":
        return None
    meant = f", {now.meant_float} of them as the recipe says" if now.meant_float else ""
    return counted(
        now.float_weights - now.meant_float > budget,
        f"{now.float_weights} weights of an int8 file are float{_named(now.float_weight_names)}{meant}",
        "inspect the file: these layers run in float and take four times the room",
        now.float_weights,
        None if base is None else base.float_weights,
        budget + now.meant_float,
        "weights",
    )


def scales(pair: Pair, limits: Limits, level: float) -> Judgement | None:
    """Trained scales of the program that are not in the file, beyond those that the baseline's file lacks too."""
    (now, base), budget = pair.file, limits["max_more_lost"]
    if now is None or now.scales_lost is None or budget is None:
        return None
    before = (base.scales_lost if base else 0) or 0
    return counted(
        now.scales_lost - before > budget,
        f"{now.scales_lost} of {now.scales_total} trained scales are not in the file{_named(now.scales_missing)}, "
        f"{before} in the baseline",
        "the converter made up scales of its own: convert again, and compare tool versions",
        now.scales_lost,
        before,
        before + budget,
        "scales",
    )


def size(pair: Pair, limits: Limits, level: float) -> Judgement | None:
    """Bytes of the file over those of the baseline's."""
    now, base = pair.file
    if now is None or base is None:
        return None
    step = "inspect both files: weights that are float or stored twice, or another head"
    return _times("bytes", now.size_bytes, base.size_bytes, limits["max_ratio"], step)


def memory(pair: Pair, limits: Limits, level: float) -> Judgement | None:
    """Largest resident set that the file took, over that of the baseline's file."""
    if pair.key.simulated or None in pair.scored:
        return None
    now, base = (None if cell is None else cell.peak_bytes for cell in (pair.now, pair.base))
    if now is None:
        return Judgement.not_measured("peak memory was not measured in this run", "validate on Linux: others cannot")
    if base is None:
        return Judgement.not_measured("no peak memory in the baseline", "make it again with check --update")
    step = "inspect both files: weights that are stored or packed twice, or larger intermediate tensors"
    return _times("bytes of peak memory", now, base, limits["max_ratio"], step)


def instructions(pair: Pair, limits: Limits, level: float) -> Judgement | None:
    """Instructions of today's file over those of the baseline's, counted by the same emulator.

    Not a latency: a cheaper operator may take more of them. It has no noise worth a test, so that it notices on any
    machine that a file does more than it did.
    """
    now = pair.now.instructions if pair.now else None
    base = pair.base.instructions if pair.base else None
    if now is None or base is None:
        return None
    if now.counted_by != base.counted_by:
        return Judgement.refused(
            f"instructions counted by {now.counted_by}, in the baseline by {base.counted_by}",
            "count with the baseline's emulator, or make a new baseline with check --update",
        )
    step = "inspect both files: operators outside of the delegate, or another runtime"
    what = "instructions an inference"
    return _times(what, now.per_inference, base.per_inference, limits["max_ratio"], step)


def _times(what: str, now: int, base: int, budget: float | None, next_step: str) -> Judgement | None:
    """A count over that of the baseline."""
    if budget is None:
        return None
    sentence = f"{now} {what}, {base} in the baseline"
    return counted(now > budget * base, sentence, next_step, now / base, 1.0, budget, "×")


def _named(names: tuple[str, ...]) -> str:
    return f" ({first(names, NAMES)})" if names else ""
