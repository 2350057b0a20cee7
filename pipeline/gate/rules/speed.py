"""Latency ratios by interleaved round in; judgements of MobileNetV2's ratio and of int8 beside float32 out."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pipeline.gate.baseline import Timing
from pipeline.gate.pair import Limits, Pair
from pipeline.gate.records import Judgement, Verdict
from pipeline.metrics.latency import ratio_change, ratio_of

CLOCKS = {"cpu": "processor time", "wall": "the clock on the wall"}
MORE = "benchmark with more --processes on a quiet machine, or allow more"


def latency(pair: Pair, limits: Limits, level: float) -> Judgement | None:
    """Today's ratio to MobileNetV2 over the baseline's.

    Regressed: no change is excluded, and the interval reaches over the budget. Pass: all of it is within the budget.
    Times are compared only for the same threads and, unless `other_processors`, the same processor.
    """
    if pair.key.simulated or not (pair.scored_now and pair.scored_base):
        return None
    now, base, budget = pair.timing_now, pair.timing_base, limits["max_ratio"]
    if now is None or now.control_ratios is None:
        return _not_measured("no latency beside MobileNetV2 in this run", "run benchmark before check")
    if base is None or base.control_ratios is None:
        return _not_measured("no latency beside MobileNetV2 in the baseline", "run benchmark, then check --update")
    if throttled := _throttled(now) or _throttled(base, " in the baseline"):
        return throttled
    if refusal := _refusal(now, base, bool(limits["other_processors"])):
        return refusal
    assert budget is not None
    change = ratio_change(now.control_ratios, base.control_ratios, confidence := 1 - 2 * level)
    seen = f"ratio to MobileNetV2 {change.change:.3f} times that of the baseline"
    middle = Middle(change.change, change.low, change.high, change.rounds, confidence)
    return replace(_by_interval(seen, middle, 1.0, budget, "--max-latency-ratio"), baseline=1.0)


def int8_speed(pair: Pair, limits: Limits, level: float) -> Judgement | None:
    """int8 over float32 of the same model, runtime and rounds: an int8 file that is slower has lost its purpose."""
    budget = limits["max_ratio"]
    if pair.key.precision != "int8" or pair.key.simulated or pair.scored_now is None or budget is None:
        return None
    now = pair.timing_now
    if now is None or now.float_ratios is None:
        return _not_measured(
            "no latency beside the float32 file in this run", "run convert --precision fp32, then benchmark"
        )
    if throttled := _throttled(now):
        return throttled
    confidence = 1 - 2 * level
    seen = ratio_of(now.float_ratios, confidence)
    middle = Middle(seen.ratio, seen.low, seen.high, seen.rounds, confidence)
    # slower means over the budget here: there is no "no change" that has to be excluded besides
    return _by_interval(f"{seen.ratio:.3f} times the float32 file", middle, budget, budget, "--max-int8-ratio")


@dataclass(frozen=True)
class Middle:
    """A ratio with its interval; the ends are None for a single measurement."""

    ratio: float
    low: float | None
    high: float | None
    rounds: int
    confidence: float


def _by_interval(seen: str, middle: Middle, floor: float, budget: float, option: str) -> Judgement:
    """Pass: all of the interval is within the budget. Regressed: all of it is over `floor`. Else nobody can tell."""
    verdict: Verdict
    if middle.low is None or middle.high is None:
        verdict, what, next_step = "inconclusive", "a single measurement, whose noise is not known", MORE
    elif middle.high <= budget:
        verdict, what, next_step = "pass", "within the budget", ""
    elif middle.low > floor:
        verdict, what, next_step = "regressed", "slower", "benchmark again to be sure, then compare operators and tools"
    else:
        verdict, what = "inconclusive", "the noise is too high for this budget"
        next_step = f"{MORE} with {option}"
    return Judgement(
        verdict=verdict,
        sentence=f"{seen}: {what}",
        next_step=next_step,
        now=middle.ratio,
        budget=budget,
        unit="×",
        low=middle.low,
        high=middle.high,
        confidence=middle.confidence,
        n=middle.rounds,
    )


def _refusal(now: Timing, base: Timing, other_processors: bool) -> Judgement | None:
    if now.threads != base.threads:
        return Judgement(
            verdict="refused",
            sentence=f"timed with {now.threads} threads, in the baseline with {base.threads}",
            next_step=f"benchmark --threads {base.threads}",
        )
    if now.clock != base.clock:
        return Judgement(
            verdict="refused",
            sentence=f"timed by {CLOCKS[now.clock]}, in the baseline by {CLOCKS[base.clock]}",
            next_step="benchmark both in one way: processor time is counted with --threads 1",
        )
    differing = [
        f"{fact.replace('_', ' ')} {now.host.get(fact)!r}, in the baseline {base.host.get(fact)!r}"
        for fact in {**base.host, **now.host}
        if now.host.get(fact) != base.host.get(fact)
    ]
    if differing and not other_processors:
        return Judgement(
            verdict="refused",
            sentence=f"timed on another machine: {'; '.join(differing)}",
            next_step="benchmark on the baseline's kind of processor, or allow others with --other-processors",
        )
    return None


def _throttled(timing: Timing, where: str = "") -> Judgement | None:
    """A device throttles by what it runs: files that took turns on it are not slowed alike."""
    if not timing.throttled:
        return None
    return Judgement(
        verdict="inconclusive",
        sentence=f"the device became slower while it was timed{where}",
        next_step="let it cool down, and benchmark again",
    )


def _not_measured(sentence: str, next_step: str) -> Judgement:
    return Judgement(verdict=None, sentence=sentence, next_step=next_step)
