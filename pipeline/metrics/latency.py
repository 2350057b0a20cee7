"""Raw samples of single inferences in milliseconds in, robust summaries and the ratio to a control out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.accuracy import CONFIDENCE

RESAMPLES = 9999  # scipy's own default


@dataclass(frozen=True)
class RoundRatios:
    """Model over control in each round, in the order of time; equally many rounds in each of `processes` processes.

    Rounds of one process share its memory layout, so they are more alike than rounds of different ones.
    """

    ratios: tuple[float, ...]
    processes: int = 1

    def __post_init__(self) -> None:
        if not self.ratios or not all(math.isfinite(r) and r > 0 for r in self.ratios):
            raise ValueError(f"ratios by round {self.ratios}: at least one is needed, and all must be positive")
        if self.processes < 1 or len(self.ratios) % self.processes:
            raise ValueError(f"{len(self.ratios)} rounds do not spread evenly over {self.processes} processes")


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
    """Model over control: the middle over `rounds` of (median of the model's round / median of the control's round).

    `low` and `high` bound it with 95% confidence, see `ratio_of`; None (not measured) for a single round, which says
    nothing about the spread between rounds.
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
        rounds, before_rounds: of the two sides.
    """

    change: float
    low: float | None
    high: float | None
    rounds: int
    before_rounds: int
    confidence: float

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None):
            raise ValueError(f"interval from {self.low} to {self.high}: both ends or none")


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

    Pairing by round cancels what slows the whole machine for a while: both are measured within it.

    Raises:
        ValueError: no rounds, different numbers of rounds, or a bad sample.
    """
    if len(rounds_ms) != len(control_ms) or not rounds_ms:
        raise ValueError(f"{len(rounds_ms)} rounds of the model, {len(control_ms)} of the control: they must be paired")
    pairs = zip(rounds_ms, control_ms, strict=True)
    return RoundRatios(tuple(float(np.median(_checked(a)) / np.median(_checked(b))) for a, b in pairs), processes)


def ratio(
    rounds_ms: Sequence[Sequence[float]], control_ms: Sequence[Sequence[float]], seed: int = 0, processes: int = 1
) -> LatencyRatio:
    """`ratio_of` of raw samples.

    Raises:
        ValueError: as `round_ratios`.
    """
    return ratio_of(round_ratios(rounds_ms, control_ms, processes), seed=seed)


def ratio_of(measured: RoundRatios, confidence: float = CONFIDENCE, seed: int = 0) -> LatencyRatio:
    """Ratios by round -> their middle, with its interval.

    Rounds of several processes: geometric mean of the processes' medians, and Student's t interval of it over the
    logarithms. Of one process, where nothing tells how much processes differ: median and percentile bootstrap.
    """
    from scipy.stats import bootstrap, ttest_1samp

    rounds = len(measured.ratios)
    if measured.processes > 1:
        logs = _log_units(measured)
        middle = math.exp(float(logs.mean()))
        if not np.ptp(logs):
            return LatencyRatio(rounds, middle, middle, middle)
        spread = ttest_1samp(logs, 0.0).confidence_interval(confidence)
        return LatencyRatio(rounds, middle, math.exp(float(spread.low)), math.exp(float(spread.high)))
    ratios = np.array(measured.ratios)
    if rounds == 1:
        return LatencyRatio(1, float(ratios[0]), None, None)
    interval = bootstrap(
        (ratios,),
        np.median,
        n_resamples=RESAMPLES,
        confidence_level=confidence,
        method="percentile",  # BCa's acceleration is 0 / 0 for a median whose jackknife values coincide
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return LatencyRatio(rounds, float(np.median(ratios)), float(interval.low), float(interval.high))


def ratio_change(now: RoundRatios, before: RoundRatios, confidence: float = CONFIDENCE) -> RatioChange:
    """Ratios by round of now and of before -> their quotient.

    t interval of the difference of two means, over the logarithms of the medians by process (by round where there is
    one process). With equally many on both sides the pooled variance, else Welch's.
    """
    from scipy.stats import ttest_ind

    a, b = _log_units(now), _log_units(before)
    change = math.exp(float(a.mean() - b.mean()))
    if min(len(a), len(b)) < 2:
        return RatioChange(change, None, None, len(now.ratios), len(before.ratios), confidence)
    if not np.ptp(a) and not np.ptp(b):
        return RatioChange(change, change, change, len(now.ratios), len(before.ratios), confidence)
    interval = ttest_ind(a, b, equal_var=len(a) == len(b)).confidence_interval(confidence)
    low, high = math.exp(float(interval.low)), math.exp(float(interval.high))
    return RatioChange(change, low, high, len(now.ratios), len(before.ratios), confidence)


def _log_units(ratios: RoundRatios) -> NDArray[np.float64]:
    """Logarithms of what counts as one independent measurement: the median of a process's rounds, or a round."""
    values = np.asarray(ratios.ratios)
    if ratios.processes > 1:
        values = np.median(values.reshape(ratios.processes, -1), axis=1)  # [rounds] -> [processes]
    return np.log(values)


def _checked(samples_ms: Sequence[float] | NDArray[np.floating]) -> NDArray[np.float64]:
    samples = np.asarray(samples_ms, dtype=np.float64)
    if samples.ndim != 1 or samples.size == 0:
        raise ValueError(f"latency samples of shape {samples.shape}: at least one time in ms is needed")
    bad = samples[~(np.isfinite(samples) & (samples > 0))]
    if bad.size:
        raise ValueError(f"latency sample of {bad[0]} ms ({bad.size} such of {samples.size}): no timer measures that")
    return samples
