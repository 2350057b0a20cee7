"""Recipes of float training: the paper's numbers, what an option changes, what is refused before an image is read."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from training_plan import train_plan

from calibration.augment import PAPER, Augmentation
from pipeline.errors import UsageError
from pipeline.models.t2t_vit import T2TViT
from pipeline.training.float_training import stochastic_depth
from pipeline.training.plan import FloatRecipe, FloatTraining


def test_the_paper_recipe_has_the_authors_numbers() -> None:
    """README of yitu-opensource/T2T-ViT at 0f63dc9: 8 GPUs, -b 64 --lr 1e-3 --weight-decay .03; main.py: the rest."""
    plan = FloatRecipe().plan("t2t_vit_7", "photos", processes=8)
    assert (plan.epochs, plan.batch_size, plan.lr, plan.weight_decay) == (300, 64, 1e-3, 0.03)
    assert (plan.ema, plan.drop_path, plan.label_smoothing) == (0.99996, 0.1, 0.1)
    assert plan.warmup_fraction * plan.epochs == pytest.approx(10)
    assert plan.augment == PAPER


def test_the_learning_rate_follows_the_root_of_the_images_a_step() -> None:
    assert FloatRecipe(batch_size=128).plan("t2t_vit_7", "photos").lr == pytest.approx(0.5e-3)
    assert FloatRecipe(batch_size=64, accumulate=2).plan("t2t_vit_7", "photos").lr == pytest.approx(0.5e-3)
    assert FloatRecipe(lr=0.1).plan("t2t_vit_7", "photos").lr == 0.1


def test_digits_are_light_and_never_mirrored() -> None:
    plan = FloatRecipe().plan("t2t_vit_7", "digits")
    assert (plan.epochs, plan.batch_size, plan.lr, plan.ema, plan.drop_path) == (12, 32, 5e-4, 0.0, 0.0)
    assert (plan.augment.hflip, plan.augment.scale_min, plan.augment.mixes) == (False, 0.8, False)
    assert (plan.hflip, plan.scale_min) == (False, 0.8)
    assert plan.warmup_fraction == 0.1
    assert FloatRecipe(augment="light").plan("t2t_vit_7", "photos").augment.hflip
    assert not FloatRecipe(augment="paper").plan("t2t_vit_7", "digits").augment.hflip
    assert FloatRecipe(hflip=True).plan("t2t_vit_7", "digits").hflip


def test_an_option_beats_the_recipe() -> None:
    recipe = FloatRecipe(mixup=0.0, cutmix=0.0, reprob=0.5, auto_augment="", ema=0.9, drop_path=0.3, warmup_epochs=2.5)
    plan = recipe.plan("t2t_vit_7", "photos")
    assert not plan.augment.mixes
    assert (plan.augment.reprob, plan.augment.auto_augment, plan.ema, plan.drop_path) == (0.5, "", 0.9, 0.3)
    assert plan.warmup_fraction * plan.epochs == pytest.approx(2.5)
    assert FloatRecipe().plan("resnet18", "photos").drop_path == 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"augment": "papr"}, "Did you mean 'paper'|paper, light, none"),
        ({"mixup": -1.0}, "--mixup is -1.0"),
        ({"drop_path": 1.0}, "--drop-path is 1.0"),
        ({"warmup_epochs": 400}, "--warmup-epochs is 400: give a number from 0 to 300"),
        ({"augment": "none", "reprob": 0.1}, "use --augment light"),
        ({"ema": 1.0}, "--ema is 1.0"),
        ({"epochs": 2, "half_size_epochs": 3}, "--half-size-epochs is 3: give a number from 0 to 2"),
        ({"scale_min": 0.0}, "--scale-min is 0.0"),
        ({"batch_size": 1}, "--batch-size is 1: give at least 2"),
    ],
)
def test_a_number_that_no_training_can_have_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        FloatRecipe(**options).plan("t2t_vit_7", "photos")


@pytest.mark.parametrize(
    ("model", "data", "file"),
    [
        ("t2t_vit_7", "digits", "t2t_vit_7-digits"),
        ("t2t_vit_7", "/data/my pets/", "t2t_vit_7-my-pets"),
        ("timm/resnet18.a1", "hfids/user/pets|100", "resnet18.a1-pets"),
        ("t2t_vit_7", "wds/https://host/a/pets", "t2t_vit_7-pets"),
        ("t2t_vit_7", "..", "t2t_vit_7-data"),
    ],
)
def test_the_file_is_named_after_model_and_data(model: str, data: str, file: str) -> None:
    assert FloatTraining(model=model, data=data).file == Path("weights") / f"{file}.safetensors"


def test_a_file_that_is_there_is_replaced_only_when_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    there = Path("weights") / "t2t_vit_7-digits.safetensors"
    there.parent.mkdir()
    there.write_bytes(b"")
    with pytest.raises(UsageError, match=f"is there already: give --out {there}"):
        FloatTraining(model="t2t_vit_7")
    assert FloatTraining(model="t2t_vit_7", out=there).file == there


@pytest.mark.parametrize(("data", "images"), [("digits", 5), ("hfids/user/pets", 0)])
def test_epoch_images_are_for_streams(data: str, images: int) -> None:
    with pytest.raises(UsageError, match="--epoch-images"):
        FloatTraining(model="t2t_vit_7", data=data, epoch_images=images)
    assert FloatTraining(model="t2t_vit_7", data="hfids/user/pets", epoch_images=7).spec == "hfids/user/pets|7"


def tiny_t2t() -> nn.Module:
    torch.manual_seed(0)
    return T2TViT(3, 4, 32)


def tiny_timm() -> nn.Module:
    import timm

    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", img_size=32, depth=3, num_classes=4)


@pytest.mark.parametrize("make", [tiny_t2t, tiny_timm])
def test_branches_are_dropped_image_by_image_and_only_in_training(make) -> None:  # type: ignore[no-untyped-def]
    module = make()
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    x = torch.randn(1, 3, 32, 32).expand(64, -1, -1, -1)
    with torch.no_grad():
        whole = module.eval()(x)
        with stochastic_depth(module, 0.5):
            assert torch.equal(module.eval()(x), whole)
            keys = module.state_dict().keys()
            torch.manual_seed(1)
            dropped = module.train()(x)
            torch.manual_seed(1)
            assert torch.equal(module(x), dropped)
        assert torch.allclose(module.train()(x), whole, atol=1e-5)
    assert module.state_dict().keys() == keys
    # Rates 0, 0.25 and 0.5 for two branches each: at most 16 outcomes, and more than a few of them in 64 images.
    assert 4 <= len({tuple(row.tolist()) for row in dropped.round(decimals=4)}) <= 16


def test_the_last_block_drops_at_the_full_rate() -> None:
    module = tiny_t2t()
    lasts: list[torch.Tensor] = []
    with stochastic_depth(module, 0.5):
        module.blocks[-1].mlp.register_forward_hook(lambda m, i, out: lasts.append(out))  # type: ignore[union-attr]
        module.train()(torch.randn(400, 3, 32, 32))
    empty = (lasts[0].flatten(1) == 0).all(1).float().mean()
    assert 0.4 < empty < 0.6


def test_a_model_without_such_branches_is_refused() -> None:
    with pytest.raises(UsageError, match="--drop-path"), stochastic_depth(nn.Linear(2, 2), 0.1):
        pass


def test_the_demo_weights_are_made_by_the_commands_of_their_page() -> None:
    """And these have the numbers that the committed files were trained with."""
    from benchmarks.train_demo_weights import arguments
    from pipeline.models.zoo import DEMO_FOLDER, ZOO

    root = Path(__file__).parents[3]
    lines = (root / "docs" / "demo-weights.md").read_text(encoding="utf-8").splitlines()
    for model in ZOO:
        assert f"python main.py {' '.join(arguments(model, DEMO_FOLDER.relative_to(root)))}" in lines
    plan = FloatRecipe(half_size_epochs=10).plan("t2t_vit_7", "digits")
    assert plan.augment == Augmentation(hflip=False, scale_min=0.8)
    made_with = train_plan(epochs=12, half_size_epochs=10, lr=5e-4, hflip=False, scale_min=0.8)
    assert {name: getattr(plan, name) for name in asdict(made_with)} == asdict(made_with)
