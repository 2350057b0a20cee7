"""Equalizes channel ranges: the outputs stay the same, and activations fill an int8 grid better.

An activation has one scale for all of its channels, so a channel with a small range gets few steps of it. Wherever
what writes a channel and what reads it are both linear, the channel can be multiplied by any positive s on one side and
divided on the other: Nagel et al. 2019, "Data-free quantization through weight equalization and bias correction",
section 4.1, and for activations Xiao et al. 2023, "SmoothQuant", section 4. Here that is done where it is exact:

- attention: values against the columns of the projection, and queries against keys;
- LayerNorm: gain and bias against the columns of the Linears that read it (official form of T2T-ViT only: in the
  deploy form the gain is in these Linears, and what stays is the same number for all channels);
- MobileNetV2 and its kin: the residual streams, which no activation function interrupts: the BatchNorms that write to
  a stream against the 1x1 convolutions that read it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from pipeline.models.t2t_vit import Attention, T2TViT
from pipeline.rewrites.attention import SplitAttention
from pipeline.rewrites.class_token import ClassTokenAttention
from pipeline.rewrites.form import DeployForm

#: Largest change of one channel: what never fires in the images seen may still fire.
LARGEST_FACTOR = 16.0


@dataclass(frozen=True)
class EqualizationRecord:
    """What was equalized.

    Attributes:
        groups: names of the sets of channels that got factors.
        channels: in all of them.
        largest_factor: of all channels, or its reciprocal where that is larger; 1 if nothing changed.
        reason: why nothing changed; None if something did.
    """

    groups: tuple[str, ...]
    channels: int
    largest_factor: float
    reason: str | None = None


@dataclass(frozen=True)
class Group:
    """Channels that are written and read linearly.

    Attributes:
        written: parameters whose slices along dimension 0 make the channels; multiplied.
        read: parameters whose slices along dimension 1 read them; divided.
        observed: modules whose outputs hold the channels along the axis, from the channel given on.
        against: outputs that hold the other factor of a product (keys to queries); None for a linear reader.
    """

    name: str
    written: tuple[Tensor, ...]
    read: tuple[Tensor, ...]
    observed: tuple[tuple[nn.Module, int, int], ...]
    against: tuple[nn.Module, int, int] | None = None


def equalized(model: nn.Module, images: Tensor) -> tuple[nn.Module, EqualizationRecord]:
    """A copy of `model` with equalized channels, and what was done; the model itself if it has no such channels.

    The factors take all channels' largest absolute values on `images` half the way, in decibels, to being equal, as
    far as `LARGEST_FACTOR`; of queries and keys they make each channel of the one as large as of the other.

    Args:
        images: [B, 3, H, W] of the calibration set, on the model's device.
    """
    result = copy.deepcopy(model).eval()
    groups = list(_groups(result))
    if not groups:
        return model, EqualizationRecord((), 0, 1.0, f"{type(model).__name__} has no channels known to be linear")
    ranges = _ranges(result, groups, images)
    channels, largest = 0, 1.0
    with torch.no_grad():
        for group in groups:
            factors = _factors(group, ranges)
            for parameter in group.written:
                parameter.mul_(factors.view(-1, *[1] * (parameter.dim() - 1)).to(parameter))
            for parameter in group.read:
                parameter.div_(factors.view(1, -1, *[1] * (parameter.dim() - 2)).to(parameter))
            channels += len(factors)
            largest = max(largest, float(factors.max()), float(1 / factors.min()))
    record = EqualizationRecord(tuple(group.name for group in groups), channels, largest)
    return result.train(model.training), record


def _factors(group: Group, ranges: dict[tuple[int, int, int], Tensor]) -> Tensor:
    """float64 [channels], with a geometric mean near 1."""
    own = torch.stack([ranges[id(m), axis, first][: _width(group)] for m, axis, first in group.observed]).amax(0)
    own = own.clamp(min=float(own.max()) * 1e-6 or 1.0)
    if group.against is not None:
        module, axis, first = group.against
        other = ranges[id(module), axis, first][: _width(group)]
        factors = (other.clamp(min=float(other.max()) * 1e-6 or 1.0) / own).sqrt()
    else:
        factors = own.rsqrt()  # half way, as SmoothQuant goes: the rest would make the readers' columns uneven
    factors = factors / factors.log().mean().exp()
    return factors.clamp(1 / LARGEST_FACTOR, LARGEST_FACTOR)


def _width(group: Group) -> int:
    return group.written[0].shape[0]


def _ranges(model: nn.Module, groups: list[Group], images: Tensor) -> dict[tuple[int, int, int], Tensor]:
    """Largest absolute value of each channel, float64, by module, axis and first channel."""
    wanted = {place for group in groups for place in (*group.observed, *([group.against] if group.against else []))}
    ranges: dict[tuple[int, int, int], Tensor] = {}

    def look(place: tuple[nn.Module, int, int], module: nn.Module, inputs: object, output: Tensor) -> None:
        _, axis, first = place
        rows = output.movedim(axis, -1).flatten(end_dim=-2)[:, first:].abs().amax(0).double()
        key = (id(module), axis, first)
        ranges[key] = rows if key not in ranges else torch.maximum(ranges[key], rows)

    handles = [place[0].register_forward_hook(partial(look, place)) for place in wanted]
    try:
        with torch.no_grad():
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    return ranges


def _groups(model: nn.Module) -> Iterator[Group]:
    if isinstance(model, DeployForm):
        return _of_deploy_form(model)
    return _of_official_form(model) if isinstance(model, T2TViT) else _residual_streams(model)


def _of_deploy_form(model: Any) -> Iterator[Group]:
    for i, block in enumerate(model.blocks):
        name, attention = f"blocks.{i}.attn", block.attn
        if isinstance(attention, SplitAttention):
            q, k, v, proj = attention.q, attention.k, attention.v, attention.proj
            yield Group(f"{name}.v", (v.weight,), (proj.weight,), ((v, -1, 0),))
            yield Group(f"{name}.q", (q.weight, q.bias), (k.weight.T,), ((q, -1, 0),), (k, -1, 0))
        elif isinstance(attention, ClassTokenAttention):
            width = attention.proj.weight.shape[1] // attention.heads
            for h, (key, value) in enumerate(zip(attention.k, attention.v, strict=True)):
                k, v = cast(nn.Linear, key), cast(nn.Linear, value)
                own, q = slice(h * width, (h + 1) * width), attention.q
                yield Group(f"{name}.v.{h}", (v.weight,), (attention.proj.weight[:, own],), ((v, -1, 0),))
                yield Group(f"{name}.q.{h}", (q.weight[own], q.bias[own]), (k.weight,), ((q, -1, own.start),))


def _of_official_form(model: Any) -> Iterator[Group]:
    t2t = model.tokens_to_token
    for i, performer in enumerate((t2t.attention1, t2t.attention2), start=1):
        name = f"tokens_to_token.attention{i}"
        yield _norm(f"{name}.norm1", performer.norm1, performer.kqv)
        yield _norm(f"{name}.norm2", performer.norm2, performer.mlp[0])
    for i, block in enumerate(model.blocks):
        assert isinstance(block.attn, Attention)
        qkv, dim = block.attn.qkv, block.attn.proj.weight.shape[1]
        yield _norm(f"blocks.{i}.norm1", block.norm1, qkv)
        yield _norm(f"blocks.{i}.norm2", block.norm2, block.mlp.fc1)
        q, k, v = qkv.weight.chunk(3)
        yield Group(f"blocks.{i}.attn.v", (v,), (block.attn.proj.weight,), ((qkv, -1, 2 * dim),))
        yield Group(f"blocks.{i}.attn.q", (q,), (k.T,), ((qkv, -1, 0),), (qkv, -1, dim))
    yield _norm("norm", model.norm, model.head)


def _norm(name: str, norm: nn.LayerNorm, reader: nn.Linear) -> Group:
    return Group(name, (norm.weight, norm.bias), (reader.weight,), ((norm, -1, 0),))


def _residual_streams(model: Any) -> Iterator[Group]:
    """Of timm's EfficientNet family, to which its MobileNetV2 belongs."""
    from calibration.torchvision_compat import ensure_torchvision

    ensure_torchvision()
    from timm.models._efficientnet_blocks import DepthwiseSeparableConv, InvertedResidual
    from timm.models.efficientnet import EfficientNet

    if not isinstance(model, EfficientNet):
        return
    stages: Any = model.blocks
    blocks = [(f"blocks.{i}.{j}", b) for i, stage in enumerate(stages) for j, b in enumerate(stage)]
    readers = [*(block for _, block in blocks[1:]), None]
    stream: list[Any] = []  # the BatchNorms that write to it
    read: list[Tensor] = []
    seen: list[tuple[nn.Module, int, int]] = []
    for (name, block), following in zip(blocks, readers, strict=True):
        known = type(block) in (InvertedResidual, DepthwiseSeparableConv)
        norm: Any = getattr(block, "bn3" if isinstance(block, InvertedResidual) else "bn2", None)
        if not known or not isinstance(getattr(norm, "act", None), nn.Identity) or getattr(block, "conv_s2d", None):
            return
        if not block.has_skip:
            stream, read, seen = [], [], []
        stream.append(norm)
        seen += [(norm, 1, 0), (block, 1, 0)]
        reader: Any = model.conv_head if following is None else getattr(following, "conv_pw", None)
        if following is not None and type(following) is not InvertedResidual:
            continue
        read.append(reader.weight)
        if following is None or not following.has_skip:
            written = tuple(p for n in stream for p in (n.weight, n.bias))
            yield Group(f"{name} stream", written, tuple(read), tuple(seen))
