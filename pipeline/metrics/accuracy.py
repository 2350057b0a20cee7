"""Counts right answers and agreements; percentages and Wilson intervals are derived from the counts.

Ties are counted against the model: an answer is right in the top k only if fewer than k other classes reach the logit
of the true class. A coarse int8 output, where several classes share one value, gains nothing from the order in which
classes happen to be listed. An image with a NaN among its logits is never right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95  # two-sided, of every interval in the report


@dataclass(frozen=True)
class Accuracy:
    """Counts over `n` images; `top5` is None (not measured) where there are fewer than five classes."""

    n: int
    top1: int
    top5: int | None

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"accuracy over {self.n} images: an empty data set has none")
        if not 0 <= self.top1 <= self.n:
            raise ValueError(f"top1 is {self.top1} of {self.n} images")
        if self.top5 is not None and not self.top1 <= self.top5 <= self.n:
            raise ValueError(f"top5 is {self.top5} of {self.n} images with top1 {self.top1}")

    @property
    def top1_percent(self) -> float:
        return 100.0 * self.top1 / self.n


@dataclass(frozen=True)
class Agreement:
    """On how many of `n` images two models give the same top class."""

    n: int
    same: int

    def __post_init__(self) -> None:
        if self.n < 1 or not 0 <= self.same <= self.n:
            raise ValueError(f"agreement on {self.same} of {self.n} images")

    @property
    def percent(self) -> float:
        return 100.0 * self.same / self.n


@dataclass(frozen=True)
class ClassCount:
    """How many of the `n` images of one class were right."""

    label: int
    n: int
    top1: int


def accuracy(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> Accuracy:
    """[N, C] logits and [N] labels -> counts.

    Raises:
        ValueError: no images, fewer than two classes, shapes that do not match, or a label outside 0 .. C-1.
    """
    rank = _rank(logits, labels)
    top5 = int((rank < 5).sum()) if logits.shape[1] >= 5 else None
    return Accuracy(n=len(rank), top1=int((rank < 1).sum()), top5=top5)


def correct(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.bool_]:
    """[N, C] logits and [N] labels -> [N], True where the true class alone is on top.

    Raises:
        ValueError: as `accuracy`.
    """
    return _rank(logits, labels) < 1


def per_class(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> tuple[ClassCount, ...]:
    """[N, C] logits and [N] labels -> one count for each class that has images, by label.

    Raises:
        ValueError: as `accuracy`.
    """
    right = correct(logits, labels)
    return tuple(
        ClassCount(label=int(label), n=int((labels == label).sum()), top1=int(right[labels == label].sum()))
        for label in np.unique(labels)
    )


def agrees(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Two [N, C] logits of the same images -> [N], True where the top class is the same.

    A tie for the top agrees only with a tie of the same classes, so equal logits always agree; NaN agrees with nothing.

    Raises:
        ValueError: no images, fewer than two classes, or different shapes.
    """
    check_logits(a)
    if a.shape != b.shape:
        raise ValueError(f"logits of shape {a.shape} and {b.shape}: both must come from the same images and classes")
    return (top_classes(a) == top_classes(b)).all(axis=1) & ~np.isnan(a).any(axis=1) & ~np.isnan(b).any(axis=1)


def agreement(a: NDArray[np.floating], b: NDArray[np.floating]) -> Agreement:
    """Two [N, C] logits of the same images -> on how many the top class is the same, as `agrees`.

    Raises:
        ValueError: as `agrees`.
    """
    same = agrees(a, b)
    return Agreement(n=len(same), same=int(same.sum()))


def wilson_percent(count: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson score interval of a share of `count` in `n`, in percent.

    Raises:
        ValueError: n < 1 or count outside 0 .. n.
    """
    from scipy.stats import binomtest

    interval = binomtest(count, n).proportion_ci(confidence_level=confidence, method="wilson")
    return 100.0 * float(interval.low), 100.0 * float(interval.high)


def check_logits(logits: NDArray[np.floating]) -> None:
    """Refuse what is not [N >= 1, C >= 2].

    Raises:
        ValueError: with the shape seen.
    """
    if logits.ndim != 2 or logits.shape[0] < 1 or logits.shape[1] < 2:
        raise ValueError(f"logits have shape {logits.shape}: at least 1 image and 2 classes [N, C] are needed")


def _rank(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.integer]:
    """How many other classes reach the true one's logit -> [N]; C (beyond any k) where a logit is NaN."""
    check_logits(logits)
    n, classes = logits.shape
    if labels.shape != (n,):
        raise ValueError(f"labels have shape {labels.shape}, the logits are of {n} images")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels are {labels.dtype}: class numbers must be integers")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels run from {labels.min()} to {labels.max()}, the model has classes 0 to {classes - 1}")
    own = logits[np.arange(n), labels]  # [N, C] -> [N]
    reached = (logits >= own[:, None]).sum(axis=1) - 1  # the class reaches itself
    return np.where(np.isnan(logits).any(axis=1), classes, reached)


def top_classes(logits: NDArray[np.floating]) -> NDArray[np.bool_]:
    """[N, C] -> [N, C], True at every class that holds the row's maximum."""
    return logits == logits.max(axis=1, keepdims=True)
