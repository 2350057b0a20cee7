"""A model and a rate in; the same model that leaves out residual branches by chance while it trains, out.

Stochastic depth (Huang et al. 2016), with the rate growing from 0 at the first block to its full value at the last, as
the authors of T2T-ViT have it (`torch.linspace(0, drop_path_rate, depth)` in their t2t_vit.py). Nothing of it is in the
weights or in evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from calibration.torchvision_compat import ensure_torchvision
from pipeline.errors import UsageError
from pipeline.models.t2t_vit import Block

#: What timm calls the place in a block that a branch goes through.
PLACES = ("drop_path", "drop_path1", "drop_path2")


@contextmanager
def stochastic_depth(module: nn.Module, rate: float) -> Iterator[None]:
    """`module` drops whole branches of single images in training mode while the body runs.

    Args:
        rate: probability at the last block; 0 leaves the module as it is.

    Raises:
        UsageError: it has no branches that can be dropped.
    """
    if not rate:
        yield
        return
    own, others = _blocks(module)
    if not own and not others:
        raise UsageError("--drop-path: this model has no residual branches that can be dropped: leave it out")
    ensure_torchvision()
    from timm.layers import DropPath

    blocks = own or others
    handles: list[Any] = []
    replaced: list[tuple[nn.Module, str, nn.Module]] = []
    for block, block_rate in zip(blocks, torch.linspace(0, rate, len(blocks)).tolist(), strict=True):
        if isinstance(block, Block):
            handles += [branch.register_forward_hook(_dropping(block_rate)) for branch in (block.attn, block.mlp)]
            continue
        for name in PLACES:
            if isinstance(place := getattr(block, name, None), nn.Module):
                replaced.append((block, name, place))
                setattr(block, name, DropPath(block_rate))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for block, name, place in replaced:
            setattr(block, name, place)


def _blocks(module: nn.Module) -> tuple[list[nn.Module], list[nn.Module]]:
    """The blocks of a T2T-ViT, and those of timm's models, in order."""
    parts = list(module.modules())
    timm = [p for p in parts if any(isinstance(getattr(p, name, None), nn.Module) for name in PLACES)]
    return [p for p in parts if isinstance(p, Block)], timm


def _dropping(rate: float):  # type: ignore[no-untyped-def]
    ensure_torchvision()
    from timm.layers import drop_path

    def hook(branch: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        dropped: Tensor = drop_path(output, rate, branch.training)
        return dropped

    return hook
