"""Rewrite: every writer of the residual stream is centred, and LayerNorm becomes RMSNorm.

LayerNorm(x) does not change when x loses its mean over the features. The stream is a sum of what is written to it:
patch projection, class token, positions, and proj and fc2 of every block. Take the mean out of each (of a Linear: of
its weight columns and its bias) and the stream has mean zero everywhere, so that LayerNorm(x) = g x / sqrt(mean(x^2)
+ eps) + b, without a mean to subtract. Gain and bias move into the Linear that reads it. (Ashkboos et al., "SliceGPT",
ICLR 2024, section 3.)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.rewrites.algebra import Mean, centre_outputs, fold_norm
from pipeline.rewrites.form import DeployForm


class RmsNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) over the last axis, which has `dim` features."""

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.mean_square = Mean(dim, offset=eps)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(self.mean_square(x * x))


def rewrite(form: DeployForm) -> None:
    embed = form.embed
    embed.project = centre_outputs(embed.project)
    with torch.no_grad():
        for table in (embed.class_token, embed.position):
            table.sub_(table.mean(dim=-1, keepdim=True))
    for block in form.blocks:
        block.attn.qkv = fold_norm(block.attn.qkv, block.norm1)
        block.attn.proj = centre_outputs(block.attn.proj)
        block.mlp.fc1 = fold_norm(block.mlp.fc1, block.norm2)
        block.mlp.fc2 = centre_outputs(block.mlp.fc2)
        block.norm1, block.norm2 = map(_rms, (block.norm1, block.norm2))
    readout = form.readout
    readout.head = fold_norm(readout.head, readout.norm)
    readout.norm = _rms(readout.norm)


def _rms(norm: nn.LayerNorm) -> RmsNorm:
    return RmsNorm(norm.weight.shape[0], norm.eps)
