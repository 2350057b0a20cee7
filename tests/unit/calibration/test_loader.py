"""Batches: what an image becomes depends on seed, epoch and index, not on workers or where an epoch was taken up."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from calibration.augment import Augmentation, Mixing
from calibration.dataset import DIGITS, DataError, Split
from calibration.loader import eval_batches, train_loader
from calibration.preprocess import EvalTransform
from calibration.sources import open_data

TRANSFORM = EvalTransform((3, 32, 32), (0.5,) * 3, (0.5,) * 3, 0.9, "bicubic")
AUGMENTED = Augmentation().transform(TRANSFORM)


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


def test_the_size_of_batches_changes_no_image() -> None:
    split = some(12)

    def by_index(batch_size: int) -> dict[int, torch.Tensor]:
        batches = train_loader(split, AUGMENTED, batch_size, seed=3, epoch=0)
        return {int(i): image for images, _, indices in batches for image, i in zip(images, indices, strict=True)}

    few, many = by_index(3), by_index(6)
    assert few.keys() == many.keys() == set(range(12))
    assert all(torch.equal(few[i], many[i]) for i in range(12))


def test_labels_stay_with_their_images() -> None:
    split = some(12)
    for _, labels, indices in train_loader(split, AUGMENTED, 4, seed=0, epoch=0):
        assert labels.tolist() == split.labels[indices.numpy()].tolist()


def test_an_epoch_that_was_finished_has_nothing_left() -> None:
    assert epoch(start_step=4) == []


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_breaks_after_the_audit_is_named(workers: int, tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "val/a", "val/b"):
        (tmp_path / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name / "0.png")
    split = open_data(str(tmp_path)).train
    (tmp_path / "train" / "b" / "0.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"0\.png is not an image"):
        list(eval_batches(split, TRANSFORM, 2, workers=workers))


def test_every_image_of_an_epoch_is_augmented_on_its_own() -> None:
    """What torch, numpy and Python draw for each of 12 images: 12 different numbers each."""

    def draw(image: Image.Image) -> torch.Tensor:
        return torch.tensor([torch.rand(()).item(), np.random.rand(), random.random()], dtype=torch.float64)

    draws = torch.cat([drawn for drawn, _, _ in train_loader(some(12), draw, 4, seed=0, epoch=0)])
    for column in draws.T:
        assert len(set(column.tolist())) == 12


@pytest.mark.parametrize(("images", "world"), [(24, 2), (23, 3), (21, 3), (22, 4), (9, 4)])
def test_processes_share_the_batches_of_one(images: int, world: int) -> None:
    """Step by step, the images of all processes are those of one process with the batch of all of them."""
    split = some(images)
    alone = [i.tolist() for _, _, i in train_loader(split, AUGMENTED, 2 * world, seed=3, epoch=1)]
    shared = [list(train_loader(split, AUGMENTED, 2, seed=3, epoch=1, shard=(r, world))) for r in range(world)]
    assert len({len(batches) for batches in shared}) == 1
    assert all(len(i) >= 2 for batches in shared for _, _, i in batches)
    for step in range(len(shared[0])):
        together = [batches[step][2].tolist() for batches in shared]
        assert [i for turn in zip(*together, strict=True) for i in turn] == alone[step]
    assert len(alone) - len(shared[0]) == (1 if 2 <= images % (2 * world) < 2 * world else 0)


def test_the_pixels_of_a_share_are_those_of_one_process() -> None:
    split = some(12)
    pixels = {
        int(i): x
        for images, _, ids in train_loader(split, AUGMENTED, 6, 3, 0)
        for x, i in zip(images, ids, strict=True)
    }
    for rank in range(2):
        for images, _, ids in train_loader(split, AUGMENTED, 3, 3, 0, shard=(rank, 2)):
            assert all(torch.equal(x, pixels[int(i)]) for x, i in zip(images, ids, strict=True))


MIX = Mixing(mixup=0.8, cutmix=1.0, classes=10, label_smoothing=0.1)


def mixed(n: int = 21, **options: object) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    return list(train_loader(some(n), AUGMENTED, 5, **{"seed": 3, "epoch": 0, "mix": MIX, **options}))  # type: ignore[arg-type]


def test_mixing_depends_on_seed_epoch_and_step_not_on_workers_or_a_resume() -> None:
    whole = mixed()
    for other, start in ((mixed(workers=2), 0), (mixed(start_step=2), 2), (mixed(start_step=1, workers=1), 1)):
        assert len(other) == 4 - start
        for (a, s, i), (b, t, j) in zip(whole[start:], other, strict=True):
            assert torch.equal(a, b)
            assert torch.equal(s, t)
            assert torch.equal(i, j)


def shares(batches: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]) -> list[float]:
    """The largest probability of each batch's first image, which depends on the share alone where labels differ."""
    return [float(targets[0].max()) for _, targets, _ in batches]


def test_every_batch_epoch_and_process_is_mixed_on_its_own() -> None:
    seen = shares(mixed()) + shares(mixed(epoch=1)) + shares(mixed(seed=4))
    assert len(set(seen)) > len(seen) // 2  # equal labels, or a share near 0 or 1, may give the same
    one, other = (mixed(n=20, shard=(rank, 2)) for rank in range(2))
    assert shares(one) != shares(other)


def test_mixing_is_not_seeded_as_an_image_is() -> None:
    """numpy pads short seeds with zeros: (3, 0, 2) and (3, 0, 2, 0) are the same seed."""
    draws: dict[str, list[float]] = {"image": [], "batch": []}

    def draw(image: Image.Image) -> torch.Tensor:
        draws["image"].append(np.random.rand())
        return torch.zeros(3, 2, 2)

    def mix(images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        draws["batch"].append(np.random.rand())
        return images, labels

    list(train_loader(some(12), draw, 2, seed=3, epoch=0, mix=mix))  # type: ignore[arg-type]
    assert (len(draws["image"]), len(draws["batch"])) == (12, 6)
    assert not set(draws["image"]) & set(draws["batch"])


def test_mixing_leaves_the_global_generators_alone() -> None:
    np.random.seed(1), torch.manual_seed(1)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    mixed()
    assert (np.random.get_state()[1] == before[0]).all()
    assert torch.equal(torch.get_rng_state(), before[1])
