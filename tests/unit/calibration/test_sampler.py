"""The calibration subset: balanced, seeded, and with a digest that tells any change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calibration.dataset import DIGITS, DataError
from calibration.preprocess import EvalTransform
from calibration.sampler import calibration_subset, subset_digest
from calibration.sources import open_data

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


def test_the_digest_tells_the_content_of_one_image_and_not_its_name(tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "val/a", "val/b"):
        (tmp_path / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / name / f"{i}.png")

    def digest() -> str:
        return subset_digest(open_data(str(tmp_path)).train, [4, 0], TRANSFORM)

    before = digest()
    (tmp_path / "train" / "a" / "0.png").rename(tmp_path / "train" / "a" / "00.png")
    assert digest() == before
    Image.new("RGB", (8, 8), (99, 0, 0)).save(tmp_path / "train" / "a" / "2.png")  # not chosen
    assert digest() == before
    Image.new("RGB", (8, 8), (99, 0, 0)).save(tmp_path / "train" / "b" / "1.png")
    assert digest() != before


def test_more_images_only_add_to_fewer() -> None:
    many = calibration_subset(LABELS, 40, seed=2)
    for n in (1, 4, 13, 39):
        assert calibration_subset(LABELS, n, seed=2) == many[:n]


def test_labels_need_not_be_in_order_nor_without_gaps() -> None:
    labels = np.array([7, 2, 7, 2, 2, 9, 7, 9])
    chosen = calibration_subset(labels, 6, seed=0)
    assert np.unique(labels[chosen], return_counts=True)[1].tolist() == [2, 2, 2]


def test_the_digits_give_as_many_of_each() -> None:
    labels = open_data(DIGITS).train.labels
    assert np.bincount(labels[calibration_subset(labels, 200, seed=0)]).tolist() == [20] * 10


def test_the_global_generator_is_left_alone() -> None:
    np.random.seed(3)
    first = np.random.rand()
    np.random.seed(3)
    calibration_subset(LABELS, 12, seed=5)
    assert np.random.rand() == first
