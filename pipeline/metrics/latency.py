"""Raw samples of single inferences in milliseconds in, robust summaries and the ratio to a control out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.accuracy import CONFIDENCE

RESAMPLES = 9999  # scipy's own default


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
    """Model over control: the median over `rounds` of (median of the model's round / median of the control's round).

    `low` and `high` bound it with 95% confidence (percentile bootstrap over the rounds); None (not measured) for a
    single round, which says nothing about the spread between rounds.
    """

    rounds: int
    ratio: float
    low: float | None
    high: float | None


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


def ratio(rounds_ms: Sequence[Sequence[float]], control_ms: Sequence[Sequence[float]], seed: int = 0) -> LatencyRatio:
    """Samples of the model and of the control, both by round and interleaved round for round -> LatencyRatio.

    Pairing by round cancels what slows the whole machine for a while: both are measured within it.

    Raises:
        ValueError: no rounds, different numbers of rounds, or a bad sample.
    """
    from scipy.stats import bootstrap

    if len(rounds_ms) != len(control_ms) or not rounds_ms:
        raise ValueError(f"{len(rounds_ms)} rounds of the model, {len(control_ms)} of the control: they must be paired")
    ratios = np.array(
        [np.median(_checked(a)) / np.median(_checked(b)) for a, b in zip(rounds_ms, control_ms, strict=True)]
    )
    if len(ratios) == 1:
        return LatencyRatio(1, float(ratios[0]), None, None)
    interval = bootstrap(
        (ratios,),
        np.median,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",  # BCa's acceleration is 0 / 0 for a median whose jackknife values coincide
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return LatencyRatio(len(ratios), float(np.median(ratios)), float(interval.low), float(interval.high))


def _checked(samples_ms: Sequence[float] | NDArray[np.floating]) -> NDArray[np.float64]:
    samples = np.asarray(samples_ms, dtype=np.float64)
    if samples.ndim != 1 or samples.size == 0:
        raise ValueError(f"latency samples of shape {samples.shape}: at least one time in ms is needed")
    bad = samples[~(np.isfinite(samples) & (samples > 0))]
    if bad.size:
        raise ValueError(f"latency sample of {bad[0]} ms ({bad.size} such of {samples.size}): no timer measures that")
    return samples
