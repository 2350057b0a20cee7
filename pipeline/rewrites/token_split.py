"""Rewrite: the second and third soft split become slices and concatenations, like the first (`soft_split`).

The order of a patch's features is (row, column, channel), which is what slices of channels-last tokens give: columns
are joined first, then rows, and nothing is transposed. The columns of the weights that read the patches follow.

Why not a convolution, which needs no patches in memory: it is one in algebra, and XNNPACK computes it at the same
speed where its kernels are written by hand. In ExecuTorch's x86 wheel they are compiled, and float32 takes 2.5 times as
long (docs/decisions/0005-what-the-deploy-form-leaves-out.md).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.rewrites.algebra import linear
from pipeline.rewrites.form import DeployForm

KERNEL, STRIDE = 3, 2


class TokenSplit(nn.Module):
    """3x3 soft split of stride 2: tokens [B, side^2, C] -> patches [B, side^2 / 4, 9 C]."""

    def __init__(self, side: int):
        super().__init__()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        side, half, channels = self.side, self.side // STRIDE, x.shape[-1]
        x = F.pad(x.reshape(-1, side, side * channels), (channels, channels, 1, 1))
        # Pairs of columns, and the first column of the next pair.
        x = x.reshape(-1, side + 2, half + 1, STRIDE * channels)
        x = torch.cat([x[:, :, :-1], x[:, :, 1:, :channels]], dim=3)
        # Pairs of rows, and the first row of the next pair.
        x = x.reshape(-1, half + 1, STRIDE * half, KERNEL * channels)
        x = torch.cat([x[:, :-1, :half], x[:, :-1, half:], x[:, 1:, :half]], dim=3)
        return x.reshape(-1, half * half, KERNEL * KERNEL * channels)


def reordered(layer: nn.Linear) -> nn.Linear:
    """The Linear that reads features in the order (row, column, channel) instead of (channel, row, column)."""
    out, features = layer.weight.shape
    weight = layer.weight.reshape(out, features // KERNEL**2, KERNEL**2).transpose(1, 2)
    return linear(weight.reshape(out, features), layer.bias)


def rewrite(form: DeployForm) -> None:
    kqv, embed = form.stage2.kqv, form.embed
    for layer in (kqv.k, kqv.q, kqv.v):
        layer.product = reordered(layer.product)
    embed.project = reordered(embed.project)
    kqv.split, embed.split = TokenSplit(form.side), TokenSplit(form.side // 2)
