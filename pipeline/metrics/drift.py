"""How far the logits of two stages are apart: on the same images, by image, and from stage to stage of a waterfall.

KL divergence is that of the softmax outputs, KL(first || other): the information that is lost when `other` stands in
for `first`, in nats, in float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.accuracy import agreement, check_logits, top_classes
from pipeline.metrics.paired import PairedDrop, paired_drop_of_logits


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


def check_finite(*values: float | None) -> None:
    """
    Raises:
        ValueError: one is neither finite nor None.
    """
    if any(value is not None and not math.isfinite(value) for value in values):
        raise ValueError(f"{values}: what is not finite was not measured and must be None")


def decibels(signal: float, noise: float) -> float | None:
    """10 log10 of the ratio of two powers; None without a signal, without noise, or where one is not finite."""
    return 10 * math.log10(signal / noise) if math.inf > signal > 0 and math.inf > noise > 0 else None


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


def aligned(log_probabilities: NDArray[np.floating], reference: NDArray[np.floating]) -> NDArray[np.float32]:
    """[N, C] and logits [N, C] -> float32 logits with these softmax outputs, each row with the reference's mean.

    A softmax forgets one constant for each image. With the reference's, a distance counts all the noise that changes a
    probability, and none of what changes every score alike.
    """
    shift = reference.mean(axis=1, keepdims=True, dtype=np.float64) - log_probabilities.mean(
        axis=1, keepdims=True, dtype=np.float64
    )
    return (log_probabilities + shift).astype(np.float32)


ROWS = 4096  # at once in float64: 33 MB of 1000 classes


@dataclass(frozen=True)
class StepRecord:
    """One stage against another over the same images.

    Attributes:
        change: images whose answer became wrong or right.
        kl_mean, kl_max: Kullback-Leibler divergence of the softmax outputs, other stage to this one, in nats over the
            images; None (not measured) where a logit is not finite.
        margin_mean: mean change of (true class's logit - the best other one's); negative is towards a wrong answer.
            None likewise.
    """

    drift: Drift
    change: PairedDrop
    kl_mean: float | None
    kl_max: float | None
    margin_mean: float | None

    def __post_init__(self) -> None:
        if self.drift.n != self.change.n:
            raise ValueError(f"drift over {self.drift.n} images, change over {self.change.n}")
        values = (self.kl_mean, self.kl_max, self.margin_mean)
        check_finite(*values)
        if len({value is None for value in values}) != 1:
            raise ValueError(f"{values}: all are measured, or none is")


@dataclass(frozen=True)
class MovedImage:
    """One image over all stages.

    Attributes:
        row: of the logits.
        classes: the top class at each stage, the first of several that share the maximum; None where a logit is NaN.
        kl: from the first stage to the stage furthest from it, in nats; None where a logit is not finite.
    """

    row: int
    classes: tuple[int | None, ...]
    kl: float | None


def step(before: NDArray[np.floating], after: NDArray[np.floating], labels: NDArray[np.integer]) -> StepRecord:
    """[N, C], [N, C] and [N] -> what changed from `before` to `after`.

    Raises:
        ValueError: as `pipeline.metrics.accuracy.accuracy`, or different shapes.
    """
    change = paired_drop_of_logits(before, after, labels)
    moved = drift(before, after)
    if moved.nonfinite:
        return StepRecord(moved, change, None, None, None)
    kl = kl_divergence(before, after)
    margin = margins(after, labels) - margins(before, labels)
    return StepRecord(moved, change, float(kl.mean()), float(kl.max()), float(margin.mean()))


def kl_divergence(first: NDArray[np.floating], other: NDArray[np.floating]) -> NDArray[np.float64]:
    """[N, C] and [N, C] -> KL(softmax(first) || softmax(other)) in nats, [N]; NaN where a logit is not finite.

    Raises:
        ValueError: no images, fewer than two classes, or different shapes.
    """
    from scipy.special import log_softmax

    check_logits(first)
    if first.shape != other.shape:
        raise ValueError(f"logits of shape {first.shape} and {other.shape}: both must be of the same images")
    found = np.full(len(first), np.nan)
    finite = np.flatnonzero(_finite(first) & _finite(other))
    for start in range(0, len(finite), ROWS):
        rows = finite[start : start + ROWS]
        log_p = log_softmax(first[rows].astype(np.float64), axis=1)
        log_q = log_softmax(other[rows].astype(np.float64), axis=1)
        # Never below 0 but for rounding.
        found[rows] = np.maximum((np.exp(log_p) * (log_p - log_q)).sum(axis=1), 0.0)  # [rows, C] -> [rows]
    return found


def margins(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.float64]:
    """[N, C] and [N] -> the true class's logit - the best other one's, [N]; above 0 the answer is right."""
    check_logits(logits)
    rows = np.arange(len(logits))
    others = logits.astype(np.float64)
    own = others[rows, labels].copy()
    others[rows, labels] = -np.inf
    return own - others.max(axis=1)


def agreement_matrix(stages: Sequence[NDArray[np.floating]]) -> tuple[tuple[int, ...], ...]:
    """S logits [N, C] -> on how many images two stages give the same top class, [S][S].

    As `pipeline.metrics.accuracy.agreement` of each pair, from N class numbers a stage where no classes tie: 66 pairs
    of 12 stages would otherwise compare 50,000 x 1000 logits each.

    Raises:
        ValueError: no images, fewer than two classes, or different shapes.
    """
    for logits in stages:
        check_logits(logits)
        if logits.shape != stages[0].shape:
            raise ValueError(f"logits of shape {stages[0].shape} and {logits.shape}: the same images are needed")
    top, tied, broken = [], [], []
    for logits in stages:
        best = logits.max(axis=1)
        top.append(logits.argmax(axis=1))
        tied.append((logits == best[:, None]).sum(axis=1) > 1)
        broken.append(np.isnan(best))
    counts = np.zeros((len(stages), len(stages)), dtype=np.int64)
    for i, a in enumerate(stages):
        for j, b in enumerate(stages[: i + 1]):
            same = (top[i] == top[j]) & ~broken[i] & ~broken[j]
            ties = np.flatnonzero((tied[i] | tied[j]) & same)
            if len(ties):  # a tie agrees only with a tie of the same classes
                same[ties] = (top_classes(a[ties]) == top_classes(b[ties])).all(axis=1)
            counts[i, j] = counts[j, i] = same.sum()
    return tuple(tuple(int(count) for count in row) for row in counts)


def most_moved(stages: Sequence[NDArray[np.floating]], limit: int) -> tuple[MovedImage, ...]:
    """S logits [N, C], the first the reference -> at most `limit` images, the one that moved most first.

    An image whose answer changed at some stage comes before one whose answer did not; among them one with logits that
    are not finite comes first, then the one with the larger KL divergence to the stage furthest away. An image that
    no stage moved at all is not in it.

    Raises:
        ValueError: as `kl_divergence`.
    """
    tops = [np.where(np.isnan(logits).any(axis=1), -1, logits.argmax(axis=1)) for logits in stages]
    classes = np.stack(tops, axis=1)  # [N, S], -1 for NaN
    changed = (classes != classes[:, :1]).any(axis=1)
    furthest = np.max([kl_divergence(stages[0], other) for other in stages], axis=0)  # [N], NaN if one is
    distance = np.where(np.isnan(furthest), np.inf, furthest)
    order = np.lexsort((-distance, ~changed))  # the last key is the first to sort by
    return tuple(
        MovedImage(
            row=int(row),
            classes=tuple(None if c < 0 else int(c) for c in classes[row]),
            kl=None if np.isnan(furthest[row]) else float(furthest[row]),
        )
        for row in order[:limit]
        if changed[row] or distance[row] > 0
    )


def _finite(logits: NDArray[np.floating]) -> NDArray[np.bool_]:
    """[N, C] -> [N]"""
    return np.isfinite(logits).all(axis=1)
