"""Rewrite: attention with one Linear each for queries, keys and values, and what softmax does not see left out.

    scores = scale (Wq z + bq) . (Wk z_j + bk)

The scale moves into Wq and bq. The term with bk is the same for every key j, and softmax ignores what all its inputs
share: bk goes. The weights of a softmax sum to one, so bv reaches the projection unchanged: P (sum_j a_j (v_j + bv))
+ c = P sum_j a_j v_j + (P bv + c).

Why: the official form cuts q, k and v out of a five-dimensional permutation, which costs copies.
"""

from __future__ import annotations

from torch import Tensor, nn

from pipeline.models.t2t_vit import Attention
from pipeline.rewrites.algebra import linear
from pipeline.rewrites.form import DeployForm


class SplitAttention(nn.Module):
    """Multi-head self-attention: [B, N, dim] -> [B, N, dim]."""

    def __init__(self, attention: Attention):
        super().__init__()
        dtype = attention.qkv.weight.dtype
        wq, wk, wv = attention.qkv.weight.double().chunk(3)
        bq, _, bv = attention.qkv.bias.double().chunk(3)
        proj = attention.proj
        self.heads, self.scale = attention.num_heads, attention.scale
        self.q = linear((wq * attention.scale).to(dtype), (bq * attention.scale).to(dtype))
        self.k, self.v = linear(wk.to(dtype), None), linear(wv.to(dtype), None)
        self.proj = linear(proj.weight, (proj.weight.double() @ bv + proj.bias.double()).to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        tokens, dim = x.shape[1], x.shape[2]
        width = dim // self.heads

        def by_head(t: Tensor) -> Tensor:
            return t.reshape(-1, tokens, self.heads, width)

        q = by_head(self.q(x)).permute(0, 2, 1, 3)
        k = by_head(self.k(x)).permute(0, 2, 3, 1)
        v = by_head(self.v(x)).permute(0, 2, 1, 3)
        y = (q @ k).softmax(dim=-1) @ v
        y = y.permute(0, 2, 1, 3).reshape(-1, tokens, dim)
        return self.proj(y)


def rewrite(form: DeployForm) -> None:
    for block in form.blocks:
        block.attn = SplitAttention(block.attn)
