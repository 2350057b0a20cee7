"""Augmentation: the paper's strengths reach timm; mixed batches have pixels and targets of the papers' formulas."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest
import torch
from PIL import Image

from calibration.augment import PAPER, PRESETS, Augmentation, Mixing
from calibration.preprocess import EvalTransform

EVALUATION = EvalTransform((3, 32, 32), (0.5,) * 3, (0.5,) * 3, 0.9, "bicubic")
PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 50, 3), dtype=np.uint8))


def parts(augmentation: Augmentation) -> dict[str, object]:
    """timm's transforms by the name of their class."""
    return {type(t).__name__: t for t in augmentation.transform(EVALUATION).transforms}  # type: ignore[attr-defined]


def test_the_paper_preset_is_what_the_authors_command_line_has() -> None:
    """Defaults of main.py of yitu-opensource/T2T-ViT at 0f63dc9."""
    made = parts(PAPER)
    crop = made["RandomResizedCropAndInterpolation"]
    assert (crop.scale, crop.ratio) == ((0.08, 1.0), (3 / 4, 4 / 3))  # type: ignore[attr-defined]
    assert len(crop.interpolation) == 2  # type: ignore[attr-defined]  # bilinear or bicubic, by chance
    assert made["RandomHorizontalFlip"].p == 0.5  # type: ignore[attr-defined]
    policy = made["RandAugment"]
    assert policy.num_layers == 2  # type: ignore[attr-defined]
    assert {(op.magnitude, op.magnitude_std) for op in policy.ops} == {(9, 0.5)}  # type: ignore[attr-defined]
    assert "PosterizeIncreasing" in {op.name for op in policy.ops}  # type: ignore[attr-defined]  # inc1
    erasing = made["RandomErasing"]
    assert (erasing.probability, erasing.per_pixel) == (0.25, True)  # type: ignore[attr-defined]
    assert (PAPER.mixup, PAPER.cutmix) == (0.8, 1.0)
    assert "ColorJitter" not in made


def test_light_is_crop_mirror_and_jitter() -> None:
    assert set(parts(PRESETS["light"])) == {
        "RandomResizedCropAndInterpolation", "RandomHorizontalFlip", "ColorJitter", "MaybeToTensor", "Normalize",
    }  # fmt: skip
    assert not PRESETS["light"].mixes


def test_none_is_the_evaluation_transform() -> None:
    assert torch.equal(PRESETS["none"].transform(EVALUATION)(PHOTO), EVALUATION.build()(PHOTO))


def test_a_jitter_that_is_asked_for_beside_a_policy_acts() -> None:
    both = dataclasses.replace(PAPER, color_jitter=0.4)
    assert parts(both)["ColorJitter"].saturation == (0.6, 1.4)  # type: ignore[attr-defined]
    assert both.transform(EVALUATION)(PHOTO).shape == (3, 32, 32)


@pytest.mark.parametrize("policy", ["rand-m9-mstd0.5-inc1", "rand-m10-n3", "original", "augmix-m9-w3"])
def test_every_strength_of_a_policy_can_be_drawn(policy: str) -> None:
    """timm's strongest posterize keeps no bit, which Pillow 13 refuses; in 400 images it comes several times."""
    transform = Augmentation(auto_augment=policy).transform(EVALUATION)
    small = PHOTO.resize((24, 24))
    for seed in range(400):
        random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
        assert torch.isfinite(transform(small)).all()


def test_posterize_without_a_bit_is_black_as_it_was_for_the_authors() -> None:
    operation = next(op for op in parts(PAPER)["RandAugment"].ops if op.name == "PosterizeIncreasing")  # type: ignore[attr-defined]
    operation.prob, operation.magnitude, operation.magnitude_std = 1.0, 10, 0
    assert np.asarray(operation(PHOTO)).max() == 0
    operation.magnitude = 5  # two bits
    assert set(np.unique(np.asarray(operation(PHOTO)))) == {0, 64, 128, 192}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"scale_min": 0.0}, "--scale-min is 0.0"),
        ({"reprob": 1.5}, "--reprob is 1.5"),
        ({"mixup": -1.0}, "--mixup is -1.0"),
        ({"cutmix": float("nan")}, "--cutmix is nan"),
        ({"crop": False}, "use --augment light"),
    ],
)
def test_a_strength_that_is_none_is_refused(values: dict[str, float], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Augmentation(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("policy", ["rand-mm9", "nonsense", "v7"])
def test_a_policy_that_timm_does_not_know_is_refused(policy: str) -> None:
    with pytest.raises(ValueError, match=rf"--auto-augment '{policy}' is no policy that timm knows"):
        Augmentation(auto_augment=policy).transform(EVALUATION)


def batch(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(n) % 4


def one_hot(labels: torch.Tensor, smoothing: float) -> torch.Tensor:
    return (1 - smoothing) * torch.nn.functional.one_hot(labels, 4) + smoothing / 4


@pytest.mark.parametrize("n", [6, 7])
def test_mixup_is_a_convex_sum_of_images_and_of_smoothed_targets(n: int) -> None:
    """Zhang et al. 2018, equation 1, with the share read from the pixels; an odd image is left as it is."""
    images, labels = batch(n)
    np.random.seed(0)
    mixed, targets = Mixing(0.8, 0.0, 4, 0.1)(images.clone(), labels)
    even = n // 2 * 2
    other = images[:even].flip(0)
    share = float(((mixed[:even] - other) / (images[:even] - other)).median())
    assert 0 < share < 1
    assert torch.allclose(mixed[:even], share * images[:even] + (1 - share) * other, atol=1e-5)
    smooth = one_hot(labels, 0.1)
    expected = share * smooth[:even] + (1 - share) * smooth[:even].flip(0)
    assert torch.allclose(targets[:even], expected, atol=1e-5)
    assert torch.equal(mixed[even:], images[even:])
    assert torch.allclose(targets[even:], smooth[even:])
    assert torch.allclose(targets.sum(1), torch.ones(n))


def test_cutmix_targets_are_the_shares_of_the_pixels() -> None:
    """Yun et al. 2019: the share of the labels is the area that was kept."""
    images, labels = batch(6)
    np.random.seed(2)
    mixed, targets = Mixing(0.0, 1.0, 4, 0.0)(images.clone(), labels)
    kept = (mixed == images).all(1)  # [6, 8, 8]
    taken = (mixed == images.flip(0)).all(1)
    assert torch.equal(kept, ~taken)
    share = kept[0].float().mean()
    assert 0 < share < 1
    assert torch.allclose(targets, share * one_hot(labels, 0.0) + (1 - share) * one_hot(labels.flip(0), 0.0))


def test_with_both_each_batch_is_one_of_the_two() -> None:
    mix, images = Mixing(0.8, 1.0, 4, 0.1), batch(6)[0]
    np.random.seed(0)
    cut = [bool((mix(images.clone(), batch(6)[1])[0] == images).any()) for _ in range(60)]
    assert 15 < sum(cut) < 45


def test_nothing_to_mix_is_no_mixing() -> None:
    assert Augmentation().mixing(4, 0.1) is None
