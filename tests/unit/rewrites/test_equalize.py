"""Equalization in float64: the same outputs, evener channels."""

from __future__ import annotations

import pytest
import torch
from alive import alive_images, make_alive
from tiny_hybrid import TinyHybrid
from torch import Tensor, nn

from calibration.torchvision_compat import ensure_torchvision
from pipeline.models.t2t_vit import T2TViT
from pipeline.rewrites.deploy import deploy_form
from pipeline.rewrites.equalize import LARGEST_FACTOR, equalized

SIDE = 64


def t2t() -> nn.Module:
    torch.manual_seed(0)
    return make_alive(T2TViT(2, 10, SIDE), seed=1).double()


def mobilenet() -> nn.Module:
    ensure_torchvision()
    import timm

    torch.manual_seed(0)
    model = timm.create_model("mobilenetv2_035", num_classes=10).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "bn" in name:  # gains of both signs, and biases
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.3)
        model.train()(torch.randn(4, 3, SIDE, SIDE).double())
    return model.eval()


CASES = {"deploy": lambda: deploy_form(t2t()), "official": t2t, "mobilenet": mobilenet}


def unevenness(outputs: Tensor, axis: int) -> float:
    """Largest channel over the geometric mean of all."""
    ranges = outputs.movedim(axis, -1).flatten(end_dim=-2).abs().amax(0)
    return float(ranges.max() / ranges.clamp(min=1e-12).log().mean().exp())


def outputs_of(model: nn.Module, name: str, images: Tensor) -> Tensor:
    seen: list[Tensor] = []
    handle = model.get_submodule(name).register_forward_hook(lambda _m, _i, out: seen.append(out))
    with torch.no_grad():
        model(images)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize(
    ("case", "groups", "watched", "axis"),
    [
        ("deploy", 1 + 1 + 4 + 4, "blocks.0.attn.v", -1),
        ("official", 4 + 2 * 4 + 1, "blocks.1.norm2", -1),
        ("mobilenet", 7, "blocks.2.1", 1),
    ],
)
def test_outputs_stay_and_channels_get_even(case: str, groups: int, watched: str, axis: int) -> None:
    model = CASES[case]()
    images = alive_images(4, SIDE).double()
    other = alive_images(3, SIDE, seed=5).double()
    result, record = equalized(model, images)
    assert len(record.groups) == groups
    assert 1.2 < record.largest_factor <= LARGEST_FACTOR * (1 + 1e-6)
    with torch.no_grad():
        expected = model(other)
        assert (result(other) - expected).abs().max() < 1e-9 * expected.abs().max()
    before, after = (unevenness(outputs_of(m, watched, images), axis) for m in (model, result))
    assert after < before**0.7  # 0.5, were the largest value of the stream that of the layer watched


def test_queries_and_keys_meet_in_the_middle() -> None:
    model = deploy_form(t2t())
    images = alive_images(4, SIDE).double()
    result, _ = equalized(model, images)
    q, k = (outputs_of(result, f"blocks.0.attn.{n}", images).flatten(0, 1).abs().amax(0) for n in "qk")
    ratio = q / k
    assert float(ratio.max() / ratio.min()) == pytest.approx(1.0, rel=1e-6)


def test_the_given_model_is_not_changed() -> None:
    model = mobilenet()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result, _ = equalized(model, alive_images(2, SIDE).double())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not torch.equal(result.blocks[1][0].bn3.weight, model.blocks[1][0].bn3.weight)


def test_an_unknown_model_is_returned_as_it_is_and_said_so() -> None:
    model = TinyHybrid()
    result, record = equalized(model, torch.randn(2, 3, 32, 32))
    assert result is model
    assert record.groups == ()
    assert "TinyHybrid" in str(record.reason)
