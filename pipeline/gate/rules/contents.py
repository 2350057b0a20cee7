"""What a file holds, then and now, in; judgements of its float weights, its trained scales and its size out."""

from __future__ import annotations

from pipeline.gate.pair import Limits, Pair
from pipeline.gate.records import Judgement

NAMES = 5  # in a sentence


def float_weights(pair: Pair, limits: Limits, level: float) -> Judgement | None:
    """Weights of an int8 file that are still float, beyond those of its float layers; in others all are meant to be."""
    now, base, budget = pair.file_now, pair.file_base, limits["max"]
    if now is None or budget is None or pair.key.precision != "int8":
        return None
    over = now.float_weights - now.meant_float > budget
    meant = f", {now.meant_float} of them as the recipe says" if now.meant_float else ""
    return Judgement(
        verdict="regressed" if over else "pass",
        sentence=f"{now.float_weights} weights of an int8 file are float{_named(now.float_weight_names)}{meant}",
        next_step="inspect the file: these layers run in float and take four times the room" if over else "",
        now=float(now.float_weights),
        baseline=None if base is None else float(base.float_weights),
        budget=budget + now.meant_float,
        unit="weights",
    )


def scales(pair: Pair, limits: Limits, level: float) -> Judgement | None:
    """Trained scales of the program that are not in the file, beyond those that the baseline's file lacks too."""
    now, base, budget = pair.file_now, pair.file_base, limits["max_more_lost"]
    if now is None or now.scales_lost is None or budget is None:
        return None
    before = (base.scales_lost if base else 0) or 0
    over = now.scales_lost - before > budget
    return Judgement(
        verdict="regressed" if over else "pass",
        sentence=f"{now.scales_lost} of {now.scales_total} trained scales are not in the file"
        f"{_named(now.scales_missing)}, {before} in the baseline",
        next_step="the converter made up scales of its own: convert again, and compare tool versions" if over else "",
        now=float(now.scales_lost),
        baseline=float(before),
        budget=before + budget,
        unit="scales",
    )


def size(pair: Pair, limits: Limits, level: float) -> Judgement | None:
    """Bytes of the file over those of the baseline's."""
    now, base, budget = pair.file_now, pair.file_base, limits["max_ratio"]
    if now is None or base is None or budget is None:
        return None
    over = now.size_bytes > budget * base.size_bytes
    return Judgement(
        verdict="regressed" if over else "pass",
        sentence=f"{now.size_bytes} bytes, {base.size_bytes} in the baseline",
        next_step="inspect both files: weights that are float or stored twice, or another head" if over else "",
        now=now.size_bytes / base.size_bytes,
        baseline=1.0,
        budget=budget,
        unit="×",
    )


def _named(names: tuple[str, ...]) -> str:
    if not names:
        return ""
    rest = len(names) - NAMES
    return f" ({', '.join(names[:NAMES])}{f' and {rest} more' if rest > 0 else ''})"
