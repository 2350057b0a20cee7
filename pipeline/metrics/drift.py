"""Measures how far the logits of two stages are apart, over the same images in the same order."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.accuracy import agreement


@dataclass(frozen=True)
class Drift:
    """Distance of two stages over `n` images.

    Attributes:
        sqnr_db: signal-to-quantization-noise ratio over all logits, 10 log10(sum ref^2 / sum (ref - other)^2).
            None where `exact` (no noise to divide by) or not measured.
        exact: every logit is equal and finite.
        cosine_mean, cosine_min: over the images, of the two logit vectors. None (not measured) if one of them is zero.
        max_abs: largest difference of two logits.
        agreement_same: images with the same top class, see `pipeline.metrics.accuracy.agreement`.
        nonfinite: images with a NaN or infinity among the logits of either. If there is one, `sqnr_db`, the cosines
            and `max_abs` are None: they would hide it or be infinite.
    """

    n: int
    sqnr_db: float | None
    exact: bool
    cosine_mean: float | None
    cosine_min: float | None
    max_abs: float | None
    agreement_same: int
    nonfinite: int

    def __post_init__(self) -> None:
        if self.n < 1 or not 0 <= self.agreement_same <= self.n or not 0 <= self.nonfinite <= self.n:
            raise ValueError(f"drift over {self.n} images with {self.agreement_same} same, {self.nonfinite} non-finite")
        measured = [v for v in (self.sqnr_db, self.cosine_mean, self.cosine_min, self.max_abs) if v is not None]
        if not all(math.isfinite(v) for v in measured):
            raise ValueError(f"drift of {measured}: what is not finite was not measured and must be None")
        if self.nonfinite and (measured or self.exact):
            raise ValueError(f"drift with {self.nonfinite} non-finite images cannot have measured distances")
        if self.exact and (self.sqnr_db is not None or self.max_abs != 0 or self.agreement_same != self.n):
            raise ValueError("an exact drift has no noise: sqnr_db None, max_abs 0, all images the same")

    @property
    def agreement_percent(self) -> float:
        return 100.0 * self.agreement_same / self.n


def decibels(signal: float, noise: float) -> float | None:
    """10 log10 of the ratio of two powers; None without a signal, or without noise."""
    return 10 * math.log10(signal / noise) if signal > 0 and noise > 0 else None


def drift(reference: NDArray[np.floating], other: NDArray[np.floating]) -> Drift:
    """[N, C] and [N, C] -> Drift, computed in float64.

    Raises:
        ValueError: no images, fewer than two classes, or different shapes.
    """
    same = agreement(reference, other).same
    ref, oth = reference.astype(np.float64), other.astype(np.float64)
    nonfinite = int((~np.isfinite(ref) | ~np.isfinite(oth)).any(axis=1).sum())
    if nonfinite:
        return Drift(len(ref), None, False, None, None, None, same, nonfinite)

    noise = ref - oth
    norms = np.linalg.norm(ref, axis=1) * np.linalg.norm(oth, axis=1)  # [N, C] -> [N]
    cosine = np.clip((ref * oth).sum(axis=1) / norms, -1, 1) if norms.all() else None
    return Drift(
        n=len(ref),
        sqnr_db=decibels(float((ref**2).sum()), float((noise**2).sum())),
        exact=bool((ref == oth).all()),
        cosine_mean=None if cosine is None else float(cosine.mean()),
        cosine_min=None if cosine is None else float(cosine.min()),
        max_abs=float(np.abs(noise).max()),
        agreement_same=same,
        nonfinite=0,
    )
