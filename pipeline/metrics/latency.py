"""Summarizes measured inference times, and compares them with those of a control model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.accuracy import CONFIDENCE

RESAMPLES = 9999  # scipy's own default
SEED = 0  # of the bootstrap: the same ratios give the same interval
#: Standard deviation of the logarithm of a ratio from one benchmark to the next, beyond what its processes show: what
#: stays the same for minutes cannot be seen within one. Measured: docs/decisions/0007-latency-intervals.md.
SESSION_SD = 0.008


@dataclass(frozen=True)
class RoundRatios:
    """Model over control, in the order of time; equally many of each of `processes` processes.

    Of several processes each is one independent measurement: what is measured in one process shares its memory layout
    and its seconds. Of a single process each ratio is taken for one.
    """

    ratios: tuple[float, ...]
    processes: int = 1

    def __post_init__(self) -> None:
        if not self.ratios or not all(math.isfinite(r) and r > 0 for r in self.ratios):
            raise ValueError(f"ratios {self.ratios}: at least one is needed, and all must be positive")
        if self.processes < 1 or len(self.ratios) % self.processes:
            raise ValueError(f"{len(self.ratios)} ratios do not spread evenly over {self.processes} processes")


@dataclass(frozen=True)
class LatencySummary:
    """Of `n` samples: median, 90th percentile (linear interpolation, numpy's default), and the median absolute
    deviation from the median, not scaled to a standard deviation."""

    n: int
    median_ms: float
    p90_ms: float
    mad_ms: float


@dataclass(frozen=True)
class LatencyRatio:
    """Model over control, the middle of `rounds` measurements (see RoundRatios).

    `low` and `high` bound it with 95% confidence, see `ratio_of`; None (not measured) for a single measurement, which
    says nothing about the spread.
    """

    rounds: int
    ratio: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class RatioChange:
    """One ratio over another one that was measured at another time, for example today's over the baseline's.

    Attributes:
        change: 1.10 is 10% slower than before.
        low, high: bound it with `confidence`; None (not measured) where one side has a single round.
        rounds, before_rounds: how many ratios the two sides have.
    """

    change: float
    low: float | None
    high: float | None
    rounds: int
    before_rounds: int
    confidence: float


def summarize(samples_ms: Sequence[float] | NDArray[np.floating]) -> LatencySummary:
    """Samples in ms -> LatencySummary.

    Raises:
        ValueError: no samples, or one that is not a positive finite time.
    """
    samples = _checked(samples_ms)
    median = float(np.median(samples))
    return LatencySummary(
        n=len(samples),
        median_ms=median,
        p90_ms=float(np.percentile(samples, 90, method="linear")),
        mad_ms=float(np.median(np.abs(samples - median))),
    )


def round_ratios(
    rounds_ms: Sequence[Sequence[float]], control_ms: Sequence[Sequence[float]], processes: int = 1
) -> RoundRatios:
    """Samples of the model and of the control, both by round and interleaved round for round -> their ratios.

    Of several processes (equally many rounds each, in order): fastest sample of the model over that of the control, of
    each. What disturbs an inference makes it longer and never shorter, so the fastest is the least disturbed: J. Chen,
    J. Revels, "Robust benchmarking in noisy environments" (2016). Of one process: ratio of medians, round by round.

    Raises:
        ValueError: no rounds, different numbers of rounds, a bad sample, or rounds that do not spread evenly.
    """
    if len(rounds_ms) != len(control_ms) or not rounds_ms:
        raise ValueError(f"{len(rounds_ms)} rounds of the model, {len(control_ms)} of the control: they must be paired")
    if processes < 1 or len(rounds_ms) % processes:
        raise ValueError(f"{len(rounds_ms)} rounds do not spread evenly over {processes} processes")
    pairs = [(_checked(a), _checked(b)) for a, b in zip(rounds_ms, control_ms, strict=True)]
    if processes == 1:
        return RoundRatios(tuple(float(np.median(a) / np.median(b)) for a, b in pairs))
    share = len(pairs) // processes
    shares = [pairs[start : start + share] for start in range(0, len(pairs), share)]
    fastest = [(min(a.min() for a, _ in rounds), min(b.min() for _, b in rounds)) for rounds in shares]
    return RoundRatios(tuple(float(a / b) for a, b in fastest), processes)


def ratio_of(measured: RoundRatios, confidence: float = CONFIDENCE) -> LatencyRatio:
    """Ratios -> their middle, with its interval.

    Of several processes: geometric mean, and Student's t interval of it over the logarithms, with SESSION_SD in its
    variance. Of the rounds of one process, where nothing tells how much processes differ: median and percentile
    bootstrap.
    """
    from scipy.stats import bootstrap

    count = len(measured.ratios)
    ratios = np.array(measured.ratios)
    if count == 1:
        return LatencyRatio(1, float(ratios[0]), None, None)
    if measured.processes > 1:
        logs = _log_units(measured)
        middle = float(logs.mean())
        low, high = _interval(middle, [(float(logs.var(ddof=1)) / len(logs), len(logs) - 1)], 1, confidence)
        return LatencyRatio(count, math.exp(middle), low, high)
    interval = bootstrap(
        (ratios,),
        np.median,
        n_resamples=RESAMPLES,
        confidence_level=confidence,
        method="percentile",  # BCa's acceleration is 0 / 0 for a median whose jackknife values coincide
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    return LatencyRatio(count, float(np.median(ratios)), float(interval.low), float(interval.high))


def ratio_change(now: RoundRatios, before: RoundRatios, confidence: float = CONFIDENCE) -> RatioChange:
    """Ratios of now and of before -> their quotient.

    t interval of the difference of two means over the logarithms, with SESSION_SD of both in its variance. With equally
    many on both sides the spread is pooled, else Welch's.
    """
    a, b = _log_units(now), _log_units(before)
    difference = float(a.mean() - b.mean())
    change, counts = math.exp(difference), (len(now.ratios), len(before.ratios))
    if min(len(a), len(b)) < 2:
        return RatioChange(change, None, None, *counts, confidence)
    of_a, of_b = float(a.var(ddof=1)) / len(a), float(b.var(ddof=1)) / len(b)
    pooled = [(of_a + of_b, len(a) + len(b) - 2)]
    apart = [(of_a, len(a) - 1), (of_b, len(b) - 1)]
    low, high = _interval(difference, pooled if len(a) == len(b) else apart, 2, confidence)
    return RatioChange(change, low, high, *counts, confidence)


def _log_units(measured: RoundRatios) -> NDArray[np.float64]:
    """Logarithms of the independent measurements: the middle of a process's ratios, or each of a single process."""
    ratios = np.asarray(measured.ratios)
    if measured.processes > 1:
        ratios = np.median(ratios.reshape(measured.processes, -1), axis=1)
    return np.log(ratios)


def _interval(
    middle: float, terms: Sequence[tuple[float, int]], sessions: int, confidence: float
) -> tuple[float, float]:
    """Around a mean of logarithms, as ratios.

    The variance is the sum of the estimated `terms`, each with its degrees of freedom, and of SESSION_SD squared for
    each of `sessions`. Degrees of freedom: F. E. Satterthwaite, Biometrics Bulletin 2 (1946), 110.
    """
    from scipy.stats import t

    total = sum(variance for variance, _ in terms) + sessions * SESSION_SD**2
    estimated = sum(variance**2 / freedom for variance, freedom in terms)
    freedom = total**2 / estimated if estimated else math.inf
    low, high = t.interval(confidence, freedom, loc=middle, scale=math.sqrt(total))
    return math.exp(float(low)), math.exp(float(high))


def _checked(samples_ms: Sequence[float] | NDArray[np.floating]) -> NDArray[np.float64]:
    samples = np.asarray(samples_ms, dtype=np.float64)
    if samples.ndim != 1 or samples.size == 0:
        raise ValueError(f"latency samples of shape {samples.shape}: at least one time in ms is needed")
    bad = samples[~(np.isfinite(samples) & (samples > 0))]
    if bad.size:
        raise ValueError(f"latency sample of {bad[0]} ms ({bad.size} such of {samples.size}): no timer measures that")
    return samples
