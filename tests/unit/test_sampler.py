"""The calibration subset: balanced, seeded, and with a digest that tells any change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from calibration.dataset import DIGITS, open_data
from calibration.errors import DataError
from calibration.preprocess import EvalTransform
from calibration.sampler import calibration_subset, subset_digest

LABELS = np.array([0] * 50 + [1] * 30 + [2] * 3 + [3] * 20)
TRANSFORM = EvalTransform((3, 32, 32), (0.5,) * 3, (0.5,) * 3, 0.9, "bicubic")


@pytest.mark.parametrize(("n", "counts"), [(4, [1, 1, 1, 1]), (12, [3, 3, 3, 3]), (15, [4, 4, 3, 4])])
def test_every_class_gives_as_many_as_it_can(n: int, counts: list[int]) -> None:
    chosen = calibration_subset(LABELS, n, seed=0)
    assert len(set(chosen)) == n
    assert np.bincount(LABELS[chosen]).tolist() == counts


def test_a_remainder_goes_to_different_classes() -> None:
    counts = np.bincount(LABELS[calibration_subset(LABELS, 10, seed=1)])
    assert sorted(counts.tolist()) == [2, 2, 3, 3]


def test_fewer_images_than_classes() -> None:
    assert len(set(LABELS[calibration_subset(LABELS, 3, seed=0)].tolist())) == 3


def test_all_images_can_be_asked_for() -> None:
    assert sorted(calibration_subset(LABELS, len(LABELS), seed=0)) == list(range(len(LABELS)))


def test_the_seed_decides() -> None:
    assert calibration_subset(LABELS, 12, seed=5) == calibration_subset(LABELS, 12, seed=5)
    assert calibration_subset(LABELS, 12, seed=5) != calibration_subset(LABELS, 12, seed=6)


@pytest.mark.parametrize("n", [0, -1, len(LABELS) + 1])
def test_what_is_not_there_cannot_be_asked_for(n: int) -> None:
    with pytest.raises(DataError, match=f"{n} calibration images were asked for, the training split has 103"):
        calibration_subset(LABELS, n, seed=0)


def test_the_digest_tells_images_order_labels_and_transform() -> None:
    train = open_data(DIGITS).train
    indices = calibration_subset(train.labels, 20, seed=0)
    digest = subset_digest(train, indices, TRANSFORM)
    assert digest == subset_digest(train, list(indices), TRANSFORM)
    relabelled = replace(train, labels=(train.labels + 1) % 10)
    others = {
        subset_digest(train, indices[:-1], TRANSFORM),
        subset_digest(train, indices[::-1], TRANSFORM),
        subset_digest(relabelled, indices, TRANSFORM),
        subset_digest(train, indices, replace(TRANSFORM, crop_pct=1.0)),
    }
    assert len(others | {digest}) == 5
