"""Rewrite: the LayerNorm of the second soft split moves behind the Linear, with moments of the token grid.

    W z + b = rstd (W x) + b,   rstd = 1 / sqrt(E[x^2] - E[x]^2 + eps),

for a patch x with normalised values z, because the rows of W sum to zero (rewrite `kqv`) and do not see the mean.
E[x] and E[x^2] of a patch are means over nine tokens of the means within each token, so they come from the grid
instead of the overlapping patches. Tokens outside of the image are zero and count as such, as in the official form.

E[x^2] - E[x]^2 is safe here although it is not on pixels: x is the output of a Performer block, whose features differ
within every token, also on a flat image.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.rewrites.algebra import Mean, linear
from pipeline.rewrites.form import DeployForm


class PatchDeviation(nn.Module):
    """1 / standard deviation of every 3x3 patch of stride 2: tokens [B, side^2, C] -> [B, side^2 / 4, 1].

    The sums over three rows and three columns are products with a band matrix.
    """

    window: Tensor

    def __init__(self, side: int, channels: int, eps: float):
        super().__init__()
        self.side, self.eps = side, eps
        self.mean = Mean(channels)
        output, token = torch.arange(side // 2).unsqueeze(1), torch.arange(side)
        window = ((token - 2 * output).abs() <= 1).double() / 3
        self.register_buffer("window", window)  # [side / 2, side]

    def forward(self, x: Tensor) -> Tensor:
        mean, square = self._patch_mean(self.mean(x)), self._patch_mean(self.mean(x * x))
        variance = square - mean * mean
        return torch.rsqrt(variance + self.eps).transpose(1, 2).reshape(-1, (self.side // 2) ** 2, 1)

    def _patch_mean(self, x: Tensor) -> Tensor:
        """[B, side^2, 1] -> [B, columns / 2, rows / 2]."""
        x = F.linear(x.reshape(-1, self.side, self.side), self.window)
        return F.linear(x.transpose(1, 2), self.window)


class ScaledKqv(nn.Module):
    """Tokens [B, side^2, C] -> keys, queries, values of their 3x3 patches, each [B, side^2 / 4, token_dim]."""

    def __init__(self, split: nn.Module, deviation: PatchDeviation, layers: list[nn.Linear]):
        super().__init__()
        self.split, self.deviation = split, deviation
        self.k, self.q, self.v = (ScaledLinear(layer) for layer in layers)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        rstd, patches = self.deviation(x), self.split(x)
        return self.k(patches, rstd), self.q(patches, rstd), self.v(patches, rstd)


class ScaledLinear(nn.Module):
    """scale * (W x) + b: [B, T, in] and scale [B, T, 1] -> [B, T, out]."""

    def __init__(self, layer: nn.Linear):
        super().__init__()
        self.product: nn.Module = linear(layer.weight, None)
        self.bias = layer.bias

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        return self.product(x) * scale + self.bias


def rewrite(form: DeployForm) -> None:
    kqv = form.stage2.kqv
    deviation = PatchDeviation(form.side, kqv.k.weight.shape[1] // 9, kqv.eps)
    form.stage2.kqv = ScaledKqv(kqv.split, deviation, [kqv.k, kqv.q, kqv.v])
