"""Rules of latency ratios by interleaved round: to MobileNetV2, and of int8 to float32."""

from __future__ import annotations

from dataclasses import replace

from pipeline.gate.baseline import Timing
from pipeline.gate.records import Judgement, Verdict
from pipeline.gate.rule import Limits, Pair
from pipeline.metrics.latency import LatencyRatio, ratio_change, ratio_of

CLOCKS = {"cpu": "processor time", "wall": "the clock on the wall"}
MORE = "benchmark with more --processes on a quiet machine, or allow more"


def latency(pair: Pair, limits: Limits, level: float) -> Judgement | None:
    """Today's ratio to MobileNetV2 over the baseline's.

    Regressed: no change is excluded, and the interval reaches over the budget. Pass: all of it is within the budget.
    Times are compared only for the same threads and, unless `other_processors`, the same processor.
    """
    if pair.key.simulated or None in pair.scored:
        return None
    (now, base), budget = pair.timing, limits["max_ratio"]
    if now is None or now.control_ratios is None:
        return Judgement.not_measured("no latency beside MobileNetV2 in this run", "run benchmark before check")
    if base is None or base.control_ratios is None:
        return Judgement.not_measured(
            "no latency beside MobileNetV2 in the baseline", "run benchmark, then check --update"
        )
    if throttled := _throttled(now) or _throttled(base, " in the baseline"):
        return throttled
    if refusal := _refusal(now, base, bool(limits["other_processors"])):
        return refusal
    assert budget is not None
    change = ratio_change(now.control_ratios, base.control_ratios, confidence := 1 - 2 * level)
    seen = f"ratio to MobileNetV2 {change.change:.3f} times that of the baseline"
    ratio = LatencyRatio(change.rounds, change.change, change.low, change.high)
    return replace(_by_interval(seen, ratio, confidence, 1.0, budget, "--max-latency-ratio"), baseline=1.0)


def int8_speed(pair: Pair, limits: Limits, level: float) -> Judgement | None:
    """int8 over float32 of the same model, runtime and rounds: an int8 file that is slower has lost its purpose."""
    budget = limits["max_ratio"]
    if pair.key.precision != "int8" or pair.key.simulated or pair.scored[0] is None or budget is None:
        return None
    now, _ = pair.timing
    if now is None or now.float_ratios is None:
        return Judgement.not_measured(
            "no latency beside the float32 file in this run", "run convert --precision fp32, then benchmark"
        )
    if throttled := _throttled(now):
        return throttled
    confidence = 1 - 2 * level
    ratio = ratio_of(now.float_ratios, confidence)
    seen = f"{ratio.ratio:.3f} times the float32 file"
    # slower means over the budget here: there is no "no change" that has to be excluded besides
    return _by_interval(seen, ratio, confidence, budget, budget, "--max-int8-ratio")


def _by_interval(
    seen: str, ratio: LatencyRatio, confidence: float, floor: float, budget: float, option: str
) -> Judgement:
    """Pass: all of the interval is within the budget. Regressed: all of it is over `floor`. Else nobody can tell."""
    verdict: Verdict
    if ratio.low is None or ratio.high is None:
        verdict, what, next_step = "inconclusive", "a single measurement, whose noise is not known", MORE
    elif ratio.high <= budget:
        verdict, what, next_step = "pass", "within the budget", ""
    elif ratio.low > floor:
        verdict, what, next_step = "regressed", "slower", "benchmark again to be sure, then compare operators and tools"
    else:
        verdict, what = "inconclusive", "the noise is too high for this budget"
        next_step = f"{MORE} with {option}"
    return Judgement(
        verdict=verdict,
        sentence=f"{seen}: {what}",
        next_step=next_step,
        now=ratio.ratio,
        budget=budget,
        unit="×",
        low=ratio.low,
        high=ratio.high,
        confidence=confidence,
        n=ratio.rounds,
    )


def _refusal(now: Timing, base: Timing, other_processors: bool) -> Judgement | None:
    if now.threads != base.threads:
        return Judgement.refused(
            f"timed with {now.threads} threads, in the baseline with {base.threads}",
            f"benchmark --threads {base.threads}",
        )
    if now.clock != base.clock:
        return Judgement.refused(
            f"timed by {CLOCKS[now.clock]}, in the baseline by {CLOCKS[base.clock]}",
            "benchmark both in one way: processor time is counted with --threads 1",
        )
    differing = [
        f"{fact.replace('_', ' ')} {now.host.get(fact)!r}, in the baseline {base.host.get(fact)!r}"
        for fact in {**base.host, **now.host}
        if now.host.get(fact) != base.host.get(fact)
    ]
    if differing and not other_processors:
        return Judgement.refused(
            f"timed on another machine: {'; '.join(differing)}",
            "benchmark on the baseline's kind of processor, or allow others with --other-processors",
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
