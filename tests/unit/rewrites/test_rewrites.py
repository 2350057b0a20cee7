"""The deploy form against the official one: each rewrite exact, all together too, in float32 and half precision."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from alive import make_alive, smallest_divisor
from half_precision import in_half_precision
from pictures import KINDS, pictures
from torch import Tensor, nn

from pipeline.models.t2t_vit import T2TViT
from pipeline.models.weights import load_model
from pipeline.rewrites.deploy import ORDER, deploy_form, in_form
from pipeline.rewrites.rotation import rotation

MODELS = {"t2t_vit_7": 7, "t2t_vit_10": 10, "t2t_vit_12": 12}
#: Float64 rounding, amplified by the LayerNorm of flat patches; a wrong formula is off by 1e-3 and more.
EXACT = 1e-9
NAMES = [name for name, _ in ORDER]


def alive_model(depth: int, side: int = 224, seed: int = 0) -> T2TViT:
    return make_alive(T2TViT(depth, 10, side), seed or depth)


@torch.no_grad()
def double_model(depth: int = 2, side: int = 64) -> T2TViT:
    """In float64, its random features orthogonal to that precision: what remains is the algebra."""
    model = alive_model(depth, side).double()
    for performer in (model.tokens_to_token.attention1, model.tokens_to_token.attention2):
        rows, _ = torch.linalg.qr(performer.w.T)
        performer.w.copy_(rows.T * performer.features**0.5)
    return model


@torch.no_grad()
def error(seen: Tensor, expected: Tensor) -> float:
    """Largest relative error of an image's logits."""
    difference = (seen.double() - expected.double()).norm(dim=1) / expected.double().norm(dim=1)
    assert difference.isfinite().all()
    return float(difference.max())


@torch.no_grad()
def in_double(model: nn.Module, images: Tensor) -> Tensor:
    return copy.deepcopy(model).double()(images.double())


@pytest.mark.parametrize("rewrites", range(1, len(ORDER) + 1), ids=NAMES)
def test_each_rewrite_is_exact(rewrites: int) -> None:
    """In float64 from start to end, so that nothing but the algebra is compared; all pictures, few tokens."""
    model = double_model()
    for kind in KINDS:
        images = pictures(kind, 64).double()
        with torch.no_grad():
            before, after = deploy_form(model, rewrites - 1)(images), deploy_form(model, rewrites)(images)
            assert error(after, before) < EXACT, kind
            assert error(after, model(images)) < EXACT, kind


@pytest.mark.parametrize("rewrites", range(1, len(ORDER) + 1), ids=NAMES)
def test_each_rewrite_changes_the_graph(rewrites: int) -> None:
    model = alive_model(2, side=64)
    before, after = (deploy_form(model, n) for n in (rewrites - 1, rewrites))
    assert str(before) != str(after) or list(before.state_dict()) != list(after.state_dict())


@pytest.mark.parametrize("depth", MODELS.values(), ids=list(MODELS))
def test_float32_is_as_exact_as_the_official_form(depth: int) -> None:
    """Against float64; the bar for near-flat images is 1e-5, where E[x^2] - E[x]^2 of the pixels gives 4e-4."""
    model = alive_model(depth)
    form = deploy_form(model)
    assert smallest_divisor(model, pictures("random")) > 1e-3  # else the Performer is switched off
    for kind in KINDS:
        images = pictures(kind)
        expected = in_double(model, images)
        with torch.no_grad():
            assert error(form(images), expected) < 5e-6, kind


@pytest.mark.parametrize("side", [192, 256, 384])
def test_other_image_sizes(side: int) -> None:
    model = alive_model(7, side)
    for kind in ("natural", "near flat"):
        images = pictures(kind, side)[:2]
        with torch.no_grad():
            assert error(deploy_form(model)(images), in_double(model, images)) < 5e-6, kind


@pytest.mark.parametrize("seed", range(1, 6))
def test_other_weights(seed: int) -> None:
    model = alive_model(3, 96, seed)
    images = torch.cat([pictures(kind, 96) for kind in KINDS])
    with torch.no_grad():
        assert error(deploy_form(model)(images), in_double(model, images)) < 5e-6


@pytest.mark.parametrize("depth", MODELS.values(), ids=list(MODELS))
def test_half_precision_is_as_close_as_the_official_form(depth: int) -> None:
    model = alive_model(depth, seed=1)
    form = deploy_form(model)
    official, deploy = [], []
    for kind in KINDS:
        images = pictures(kind)
        expected = in_double(model, images)
        official.append(error(in_half_precision(model, images), expected))
        deploy.append(error(in_half_precision(form, images), expected))
    # Rounding errors are drawn anew by every reformulation: single ones scatter by a factor of two.
    assert sum(deploy) < 1.1 * sum(official)
    assert max(deploy) < 3e-3


@pytest.mark.parametrize("name", MODELS)
def test_trained_weights(name: str) -> None:
    """In float32, and in half precision, where the official form divides zero by zero."""
    model = load_model(name, "demo").model.eval()
    assert in_half_precision(model, pictures("natural")).isnan().any()
    form = deploy_form(model)
    for kind in KINDS:
        images = pictures(kind)
        expected = in_double(model, images)
        with torch.no_grad():
            assert error(form(images), expected) < 5e-6, kind
        assert error(in_half_precision(form, images), expected) < 2e-2, kind


@pytest.mark.parametrize("factor", [1.0, 5.0, 20.0])
def test_tokens_whose_divisor_is_below_epsilon(factor: float) -> None:
    """Long queries make D vanish: epsilon decides, and the deploy form has to know it."""
    model = double_model()
    for performer in (model.tokens_to_token.attention1, model.tokens_to_token.attention2):
        with torch.no_grad():
            performer.kqv.weight.mul_(factor)
    images = pictures("natural", 64).double()
    assert (smallest_divisor(model, images) < 1e-8) == (factor > 1)
    with torch.no_grad():
        assert error(deploy_form(model)(images), model(images)) < EXACT


def test_random_features_that_are_not_orthogonal_are_kept() -> None:
    """As in a checkpoint that was stored in half precision: exact still, without the rotation."""
    model = alive_model(2, 64)
    with torch.no_grad():
        for performer in (model.tokens_to_token.attention1, model.tokens_to_token.attention2):
            assert rotation(performer.w) is not None
            performer.w.copy_(performer.w.half())
            assert rotation(performer.w) is None
    model = model.double()
    images = pictures("natural", 64).double()
    with torch.no_grad():
        assert error(deploy_form(model)(images), model(images)) < EXACT


def test_the_model_is_not_changed_and_mode_and_device_are_kept() -> None:
    model = alive_model(2, 64).train()
    before = copy.deepcopy(model.state_dict())
    form = deploy_form(model)
    assert form.training
    assert not deploy_form(model.eval()).training
    with torch.no_grad():
        for parameter in form.parameters():
            parameter.add_(1)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_images_of_a_batch_do_not_meet() -> None:
    form = deploy_form(alive_model(2, 64))
    images = torch.cat([pictures(kind, 64) for kind in KINDS])
    with torch.no_grad():
        one_by_one = torch.cat([form(image) for image in images.split(1)])
        torch.testing.assert_close(form(images), one_by_one, rtol=1e-5, atol=1e-5)


def test_it_trains() -> None:
    """Every parameter that the official form trains has one here, and gets a gradient that is finite."""
    form = deploy_form(alive_model(2, 64)).train()
    form(pictures("natural", 64)).square().sum().backward()
    for name, parameter in form.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().max() > 0, name


def test_forms_by_name() -> None:
    model, other = alive_model(1, 32), nn.Linear(2, 2)
    assert in_form(model, "official") is model
    assert in_form(model, "deploy") is not model
    assert in_form(other, "deploy") is other  # only T2T-ViT has two forms


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("gain", lambda m: m.tokens_to_token.attention1.norm1.weight.mul_(1.01)),
        ("attention scale", lambda m: setattr(m.blocks[0].attn, "scale", 0.2)),
        ("last block", lambda m: m.blocks[-1].attn.qkv.weight.mul_(1.01)),
        ("position", lambda m: m.pos_embed.mul_(1.01)),
    ],
)
def test_a_small_difference_would_show(name: str, damage: Callable[[T2TViT], object]) -> None:
    """Comparisons above can fail: a change of one percent is far over their bars."""
    model, images = alive_model(2, 64), pictures("natural", 64)
    form = deploy_form(model)
    with torch.no_grad():
        damage(model)
        assert error(form(images), model(images)) > 1e-4, name
