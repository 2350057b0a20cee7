"""Ratios by interleaved round in; their middle with an interval at any confidence out."""

from __future__ import annotations

import math

import numpy as np

from pipeline.metrics.latency import RoundRatios


def ratio_interval(ratios: RoundRatios, confidence: float) -> tuple[float, float | None, float | None]:
    """The geometric mean of what counts as one measurement (the median of a process's rounds, or a round where there is
    one process), and Student's t interval of it, over the logarithms.

    Returns:
        ratio, low, high; the ends are None (not measured) for a single measurement.
    """
    from scipy.stats import ttest_1samp

    values = np.asarray(ratios.ratios)
    if ratios.processes > 1:
        values = np.median(values.reshape(ratios.processes, -1), axis=1)  # [rounds] -> [processes]
    logs = np.log(values)
    middle = math.exp(float(logs.mean()))
    if len(logs) < 2:
        return middle, None, None
    if not np.ptp(logs):
        return middle, middle, middle
    interval = ttest_1samp(logs, 0.0).confidence_interval(confidence)
    return middle, math.exp(float(interval.low)), math.exp(float(interval.high))
