"""Tells whether a device became slower while it was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Shape = Literal["steady", "ramp", "step"]

MIN_ROUNDS = 10  # below it noise and a change cannot be told apart
#: Slower than this at the end than at the start, or nothing is said: what is smaller decides no comparison with a
#: control that became slower with it.
FLOOR = 0.03
#: How often noise alone may look like this; what comes of it is measured by benchmarks/throttling.py.
LEVEL = 0.005
SIMULATIONS = 1999  # of noise alone: the smallest p is then 0.0005
SEED = 0  # of that noise: the same times give the same p


@dataclass(frozen=True)
class Throttling:
    """How one benchmark's rounds went on.

    Attributes:
        shape: "ramp": slower and slower from a round on; "step": slower from one round to the next; "steady": neither.
        slowdown: end over start of the fitted ramp or step: 1.10 is 10 % slower; of "steady" too, where it is small or
            not to be told from noise.
        at_round: where the ramp or step begins, from 0; None for "steady".
        p_value: how often noise alone, as much alike from round to round as this, fits a rise as well.
    """

    rounds: int
    shape: Shape
    slowdown: float
    at_round: int | None
    p_value: float

    @property
    def flagged(self) -> bool:
        """Whether the figures of this benchmark are those of a device that was slowing down."""
        return self.shape != "steady"


def throttling(series_ms: Sequence[Sequence[Sequence[float]]]) -> Throttling | None:
    """Rounds of all files that took turns -> what happened to all of them; None below MIN_ROUNDS (not measured).

    A device that throttles slows all files down in the same rounds; what one file does alone is no throttling. A round
    of a file is its fastest inference (the least disturbed one, see metrics.latency.round_ratios) over the file's
    median round; the mean logarithm over the files is fitted with a step at every place and with a ramp from every
    round to the end. The share of the variance that the best of them explains is compared with what the best explains
    in noise without a rise: AR(1), with the lag-1 autocorrelation that is left around the fit. Each file alone
    has to be slower by at least half of FLOOR along that rise.

    Args:
        series_ms: [files][rounds][samples in ms], all with as many rounds.

    Raises:
        ValueError: no file, different numbers of rounds, or a time that is not positive.
    """
    counts = {len(rounds) for rounds in series_ms}
    if len(counts) != 1:
        raise ValueError(f"files with {sorted(counts)} rounds: all that took turns have as many")
    if (n := counts.pop()) < MIN_ROUNDS:
        return None
    files = np.stack([_relative(rounds) for rounds in series_ms])
    slowness = files.mean(axis=0)
    rises = _rises(n)
    explained, rise = _best(slowness[None], rises)
    best = rises[int(rise[0])]
    centred = slowness - slowness.mean()
    slowdown = math.exp(float(centred @ best.unit) * best.height)
    least = math.exp(float((files @ best.unit).min()) * best.height)
    residuals = centred - best.unit * float(centred @ best.unit)
    noise, _ = _best(_noise(n, _likeness(residuals)), rises)
    p_value = (1 + int((noise >= explained[0]).sum())) / (len(noise) + 1)
    if min(slowdown, least + FLOOR / 2) < 1 + FLOOR or p_value > LEVEL:
        return Throttling(n, "steady", slowdown, None, p_value)
    return Throttling(n, best.shape, slowdown, best.at, p_value)


@dataclass(frozen=True)
class _Rise:
    """One way to become slower.

    Attributes:
        unit: over the rounds, mean 0, length 1.
        height: end less start, for a coefficient of 1.
    """

    shape: Literal["ramp", "step"]
    at: int
    unit: NDArray[np.float64]
    height: float


def _rises(n: int) -> list[_Rise]:
    """Steps with at least two rounds on each side; ramps that last at least a third of the rounds."""
    rounds = np.arange(n)
    shapes = [("step", at, (rounds >= at).astype(float)) for at in range(2, n - 1)]
    shapes += [("ramp", at, np.clip((rounds - at) / (n - 1 - at), 0, 1)) for at in range(n - max(n // 3, 3))]
    found = []
    for shape, at, values in shapes:
        centred = values - values.mean()
        length = float(np.linalg.norm(centred))
        found.append(_Rise(shape, at, centred / length, 1 / length))  # type: ignore[arg-type]
    return found


def _best(series: NDArray[np.float64], rises: Sequence[_Rise]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Of each series [S, n]: the share of its variance that the best rise explains [S], and which one it is [S]."""
    centred = series - series.mean(axis=1, keepdims=True)
    variance = np.maximum((centred**2).sum(axis=1), np.finfo(float).tiny)
    along = np.maximum(centred @ np.stack([rise.unit for rise in rises]).T, 0.0)  # [S, rises]; a fall explains nothing
    return (along.max(axis=1) ** 2) / variance, along.argmax(axis=1)


def _noise(n: int, likeness: float) -> NDArray[np.float64]:
    """[SIMULATIONS, n] of stationary AR(1) noise."""
    fresh = np.random.default_rng(SEED).standard_normal((SIMULATIONS, n))
    fresh[:, 0] /= math.sqrt(1 - likeness**2)
    for t in range(1, n):
        fresh[:, t] += likeness * fresh[:, t - 1]
    return fresh


def _likeness(residuals: NDArray[np.float64]) -> float:
    """Lag-1 autocorrelation, with the bias of a short series taken out.

    That is (1 + 4 r) / n for a series less its mean (F. H. C. Marriott, J. A. Pope, Biometrika 41 (1954), 390), and
    about 1 / n more for the fitted rise.
    """
    variance = float((residuals**2).sum())
    r = float((residuals[1:] * residuals[:-1]).sum()) / variance if variance > 0 else 0.0
    r += (2 + 4 * max(r, 0.0)) / len(residuals)
    return min(max(r, 0.0), 0.9)


def _relative(rounds_ms: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    fastest = np.array([float(np.min(samples)) for samples in rounds_ms])
    if not np.all(np.isfinite(fastest) & (fastest > 0)):
        raise ValueError(f"a round of {fastest.min()} ms: no timer measures that")
    return np.log(fastest / np.median(fastest))
