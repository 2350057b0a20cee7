"""Chooses the class-balanced images that ranges are calibrated on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from calibration.dataset import DataError

if TYPE_CHECKING:
    from calibration.dataset import Split
    from calibration.preprocess import EvalTransform


def calibration_subset(labels: np.ndarray, n: int, seed: int) -> list[int]:
    """`n` positions, as many of each class as its images allow, in turn by class.

    Classes are visited in a seeded order, round after round; a class that has no more images is passed over. With
    fewer images than classes, the first `n` classes of that order give one each.

    Raises:
        DataError: more images are asked for than there are, or fewer than one.
    """
    labels = np.asarray(labels)
    if not 1 <= n <= len(labels):
        raise DataError(f"{n} calibration images were asked for, the training split has {len(labels)}")
    generator = np.random.default_rng(seed)
    classes = generator.permutation(np.unique(labels))
    queues = [list(generator.permutation(np.flatnonzero(labels == c))) for c in classes]
    chosen: list[int] = []
    while len(chosen) < n:
        for queue in queues:
            if queue and len(chosen) < n:
                chosen.append(int(queue.pop()))
    return chosen


def subset_digest(split: Split, indices: Sequence[int], transform: EvalTransform) -> str:
    """Hex sha256 over the content of the chosen images in order, their labels, and the transform."""
    total = hashlib.sha256(transform.digest().encode())
    for i in indices:
        total.update(f"{split.content_digest(i)} {int(split.labels[i])}\n".encode())
    return total.hexdigest()
