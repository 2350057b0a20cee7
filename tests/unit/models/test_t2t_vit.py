"""Our T2T-ViT against the authors' logits, kept in golden/t2t_vit.json (made by benchmarks/parity_with_official.py)."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from alive import alive_images, make_alive, smallest_divisor
from torch import Tensor

from pipeline.models.t2t_vit import (
    PUBLISHED_QK_SCALE,
    T2TViT,
    resize_position_embedding,
    sinusoid_position_embedding,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "t2t_vit.json").read_text())
MAX_DIFFERENCE = 1e-5  # logits are of size 2; float32 rounding through 12 blocks stays about 1e-6
DEPTHS = (7, 10, 12)
SCALES = {None: "", PUBLISHED_QK_SCALE: "_published_scale"}


@pytest.fixture(scope="module")
def images() -> Tensor:
    return alive_images(GOLDEN["images"], seed=GOLDEN["image_seed"])


def alive_model(depth: int, scale: float | None = None, side: int = 224) -> T2TViT:
    return make_alive(T2TViT(depth, GOLDEN["classes"], side, scale), seed=depth)


def authors_logits(depth: int, scale: float | None) -> Tensor:
    return torch.tensor(GOLDEN["models"][f"t2t_vit_{depth}{SCALES[scale]}"])


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("depth", DEPTHS)
def test_logits_are_those_of_the_authors_code(depth: int, scale: float | None, images: Tensor) -> None:
    model, expected = alive_model(depth, scale), authors_logits(depth, scale)
    # A Performer whose divisor is near its epsilon of 1e-8 is switched off, and parity would say nothing of it.
    assert smallest_divisor(model, images[:2]) > 1e-3
    with torch.no_grad():
        seen = model(images)
    assert seen.shape == expected.shape
    assert (seen - expected).abs().max().item() <= MAX_DIFFERENCE


def test_golden_logits_tell_images_scales_and_depths_apart() -> None:
    """Else parity above could hold for a model that ignores them."""
    logits = {(d, s): authors_logits(d, s) for d in DEPTHS for s in SCALES}
    for values in logits.values():
        distance = (values.unsqueeze(0) - values.unsqueeze(1)).abs().amax(dim=-1)
        assert distance[~torch.eye(len(values), dtype=torch.bool)].min() > 100 * MAX_DIFFERENCE
    for depth in DEPTHS:
        assert (logits[depth, None] - logits[depth, PUBLISHED_QK_SCALE]).abs().max() > 1000 * MAX_DIFFERENCE
    assert (logits[10, None] - logits[12, None]).abs().max() > 1000 * MAX_DIFFERENCE


def test_performer_is_what_carries_the_logits(images: Tensor) -> None:
    """Other random features give other logits: the alive recipe leaves the attention a say."""
    model = alive_model(7)
    with torch.no_grad():
        before = model(images[:1])
        model.tokens_to_token.attention1.w.mul_(0.5)
        assert (model(images[:1]) - before).abs().max() > 10 * MAX_DIFFERENCE


@pytest.mark.parametrize(("depth", "millions"), [(7, 4.31), (10, 5.89), (12, 6.94)])
def test_parameters_with_1000_classes(depth: int, millions: float) -> None:
    model = T2TViT(depth)
    assert model.head.out_features == 1000
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == millions


def test_position_embedding_is_the_sinusoid_table() -> None:
    table = T2TViT(7).pos_embed
    assert table.shape == (1, 197, 256)
    assert not table.requires_grad
    expected = np.empty((197, 256))
    for position in range(197):
        for column in range(256):
            angle = position / 10000 ** ((column - column % 2) / 256)
            expected[position, column] = math.cos(angle) if column % 2 else math.sin(angle)
    np.testing.assert_allclose(table[0].numpy(), expected, rtol=0, atol=1e-7)


def test_scale_default_is_of_the_head_width_and_reaches_every_block() -> None:
    assert T2TViT(7, 10).qk_scale == 64**-0.5
    assert PUBLISHED_QK_SCALE == 1 / 16
    model = T2TViT(7, 10, qk_scale=PUBLISHED_QK_SCALE)
    assert [block.attn.scale for block in model.blocks] == [PUBLISHED_QK_SCALE] * 7  # type: ignore[union-attr]
    assert model.qk_scale == PUBLISHED_QK_SCALE


@pytest.mark.parametrize("side", [32, 96, 384])
def test_other_image_sizes(side: int) -> None:
    model = alive_model(7, side=side)
    assert model.pos_embed.shape == (1, (side // 16) ** 2 + 1, 256)
    with torch.no_grad():
        logits = model(alive_images(2, side))
    assert logits.shape == (2, GOLDEN["classes"])
    assert logits.isfinite().all()
    assert (logits[0] - logits[1]).abs().max() > 100 * MAX_DIFFERENCE


def test_a_smaller_image_than_img_size_gets_the_resized_table() -> None:
    """Half-size training epochs: the model of 224 px equals one of 112 px that was given the resized table."""
    model, small = alive_model(7), alive_model(7, side=112)
    sinusoid = small.pos_embed.clone()
    small.pos_embed.data = resize_position_embedding(model.pos_embed, 50)
    assert (small.pos_embed - sinusoid).abs().max() > 0.1  # a resized table is not the sinusoid of the smaller grid
    with torch.no_grad():
        images = alive_images(2, 112)
        assert torch.equal(model(images), small(images))


def test_resize_is_bicubic_and_keeps_the_class_token() -> None:
    """Halved, every new position lies midway between two old ones: the cubic kernel at 0.5 (a = -0.75), by hand."""
    rows, columns = torch.meshgrid(torch.arange(14.0), torch.arange(14.0), indexing="ij")
    grid = torch.stack([rows, 2 * columns + 1, rows**2], dim=-1).reshape(1, 196, 3)
    table = torch.cat([torch.full((1, 1, 3), 77.0), grid], dim=1)
    resized = resize_position_embedding(table, 50)
    assert torch.equal(resized[:, 0], table[:, 0])
    seen = resized[0, 1:].reshape(7, 7, 3)[1:-1, 1:-1]  # the border repeats its edge
    old = 2 * torch.arange(1.0, 6.0).unsqueeze(1).expand(5, 5)  # the row before each new one
    squared = -0.09375 * ((old - 1) ** 2 + (old + 2) ** 2) + 0.59375 * (old**2 + (old + 1) ** 2)
    torch.testing.assert_close(seen[..., 0], old + 0.5)
    torch.testing.assert_close(seen[..., 1], 2 * (old.T + 0.5) + 1)
    torch.testing.assert_close(seen[..., 2], squared)


@pytest.mark.parametrize("side", [225, 8, 100])
def test_a_side_that_the_soft_splits_cannot_divide_is_refused(side: int) -> None:
    with pytest.raises(ValueError, match=rf"img_size {side} is not a multiple of 16"):
        T2TViT(7, img_size=side)


def test_odd_columns_are_cosines_at_position_zero() -> None:
    first = sinusoid_position_embedding(3, 6)[0, 0]
    assert first.tolist() == [0, 1, 0, 1, 0, 1]


def test_state_dict_keys_are_those_of_the_published_files() -> None:
    """Names as in the authors' repository; a renamed module would refuse every published checkpoint."""
    keys = set(T2TViT(7).state_dict())
    t2t = {
        f"tokens_to_token.attention{i}.{leaf}"
        for i in (1, 2)
        for leaf in ("w", *(f"{m}.{p}" for m in ("kqv", "proj", "norm1", "norm2", "mlp.0", "mlp.2")
                            for p in ("weight", "bias")))
    }  # fmt: skip
    blocks = {
        f"blocks.{i}.{leaf}"
        for i in range(7)
        for leaf in ("attn.qkv.weight", *(f"{m}.{p}" for m in ("attn.proj", "norm1", "norm2", "mlp.fc1", "mlp.fc2")
                                          for p in ("weight", "bias")))
    }  # fmt: skip
    ends = {f"{m}.{p}" for m in ("tokens_to_token.project", "norm", "head") for p in ("weight", "bias")}
    assert keys == t2t | blocks | ends | {"cls_token", "pos_embed"}
