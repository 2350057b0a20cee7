"""Rewrite: the last block computes the class token only, and neither keys nor values of the others.

The head reads one token. Its scores and its attention need every token, but not every token's key and value:

    q_h . (Wk_h z_j) = (Wk_h^T q_h) . z_j         one product of the query instead of one of each token
    sum_j a_hj (Wv_h z_j) = Wv_h (sum_j a_hj z_j)  one product of the weighted mean instead of one of each token

with z the normalised tokens and h the head: the same by associativity, at 1/N of the cost.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.models.t2t_vit import Block
from pipeline.rewrites.algebra import linear
from pipeline.rewrites.attention import SplitAttention
from pipeline.rewrites.form import DeployForm


class ClassTokenAttention(nn.Module):
    """Attention of the first token to all: normalised tokens [B, N, dim] -> [B, 1, dim]."""

    def __init__(self, attention: SplitAttention):
        super().__init__()
        self.heads, self.scale, self.proj = attention.heads, attention.scale, attention.proj
        q = attention.q
        self.q = linear(q.weight / self.scale, q.bias / self.scale)
        self.k = nn.ModuleList(linear(w.T, None) for w in attention.k.weight.chunk(self.heads))
        self.v = nn.ModuleList(linear(w, None) for w in attention.v.weight.chunk(self.heads))

    def forward(self, z: Tensor) -> Tensor:
        dim = z.shape[2]
        width = dim // self.heads
        q = self.q(z[:, :1])
        keys = [k(q[:, :, h * width : (h + 1) * width]).reshape(-1, dim, 1) for h, k in enumerate(self.k)]
        scores = torch.bmm(z, torch.cat(keys, dim=2) * self.scale)  # [B, N, heads]
        attention = scores.transpose(1, 2).softmax(dim=-1)
        mean = torch.bmm(attention, z)  # [B, heads, dim]
        y = torch.cat([v(mean[:, h : h + 1]) for h, v in enumerate(self.v)], dim=2)
        return self.proj(y)


class ClassTokenBlock(nn.Module):
    """The last block: tokens [B, N, dim] -> the class token [B, 1, dim]."""

    def __init__(self, block: Block, attention: SplitAttention):
        super().__init__()
        self.norm1, self.attn = block.norm1, ClassTokenAttention(attention)
        self.norm2, self.mlp = block.norm2, block.mlp

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :1] + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ClassTokenReadout(nn.Module):
    """Final norm and head: class token [B, 1, dim] -> logits [B, classes]."""

    def __init__(self, norm: nn.Module, head: nn.Linear):
        super().__init__()
        self.norm, self.head = norm, head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(x.reshape(-1, x.shape[2])))


def rewrite(form: DeployForm) -> None:
    last = form.blocks[-1]
    form.blocks[-1] = ClassTokenBlock(last, last.attn)
    form.readout = ClassTokenReadout(form.readout.norm, form.readout.head)
