"""Batches: what an image becomes depends on seed, epoch and index, not on workers or where an epoch was taken up."""

from __future__ import annotations

import random

import numpy as np
import torch

from calibration.dataset import DIGITS, Split, open_data
from calibration.loader import eval_batches, train_loader
from calibration.preprocess import EvalTransform, train_transform

TRANSFORM = EvalTransform((3, 32, 32), (0.5,) * 3, (0.5,) * 3, 0.9, "bicubic")
AUGMENTED = train_transform(TRANSFORM, hflip=True, scale_min=0.6)


def some(n: int) -> Split:
    val = open_data(DIGITS).val
    return val.without(range(n, len(val)))


def epoch(n: int = 21, **options: int) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    return list(train_loader(some(n), AUGMENTED, 5, **{"seed": 3, "epoch": 0, **options}))


def test_evaluation_keeps_the_order_asked_for() -> None:
    batches = list(eval_batches(some(9), TRANSFORM, 4))
    assert [len(labels) for _, labels, _ in batches] == [4, 4, 1]
    assert torch.cat([i for _, _, i in batches]).tolist() == list(range(9))
    (images, labels, indices), *rest = eval_batches(some(9), TRANSFORM, 4, indices=[7, 2])
    assert not rest
    assert indices.tolist() == [7, 2]
    assert labels.tolist() == some(9).labels[[7, 2]].tolist()
    assert torch.equal(images[1], batches[0][0][2])


def test_an_epoch_shows_every_image_once_but_no_batch_of_one() -> None:
    indices = torch.cat([i for _, _, i in epoch(n=20)])
    assert sorted(indices.tolist()) == list(range(20))
    assert [len(labels) for _, labels, _ in epoch(n=21)] == [5, 5, 5, 5]


def test_the_same_seed_and_epoch_give_the_same_pixels() -> None:
    for (a, _, i), (b, _, j) in zip(epoch(), epoch(), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(i, j)


def test_seed_and_epoch_change_order_and_pixels() -> None:
    first = epoch()[0]
    for other in (epoch(seed=4)[0], epoch(epoch=1)[0]):
        assert first[2].tolist() != other[2].tolist()

    def augmented(index: int, **options: int) -> torch.Tensor:
        return next(images[k] for images, _, i in epoch(**options) for k in range(len(i)) if int(i[k]) == index)

    index = int(first[2][0])
    assert not torch.equal(augmented(index), augmented(index, epoch=1))


def test_an_epoch_taken_up_in_the_middle_goes_on_with_the_same_pixels() -> None:
    for (a, _, _), (b, _, _) in zip(epoch()[2:], epoch(start_step=2), strict=True):
        assert torch.equal(a, b)


def test_workers_change_nothing() -> None:
    for (a, _, i), (b, _, j) in zip(epoch(), epoch(workers=2), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(i, j)


def test_augmentation_leaves_the_global_generators_alone() -> None:
    """Dropout draws from torch's: a resumed run would differ if the loader moved it."""
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    epoch()
    assert random.getstate() == before[0]
    assert (np.random.get_state()[1] == before[1]).all()
    assert torch.equal(torch.get_rng_state(), before[2])
