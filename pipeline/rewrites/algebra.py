"""What the rewrites do to weights, computed in float64 and returned in the dtype that came in."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """An nn.Linear with these weights: [out, in] and [out], or no bias."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight = nn.Parameter(weight.detach().clone(memory_format=torch.contiguous_format))
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone())
    return layer


def fold_norm(layer: nn.Linear, norm: nn.LayerNorm) -> nn.Linear:
    """The Linear that reads the normalised values without gain and bias: W (g z + b) + c = (W g) z + (W b + c)."""
    weight, gain, shift = layer.weight.double(), norm.weight.double(), norm.bias.double()
    bias = weight @ shift
    if layer.bias is not None:
        bias = bias + layer.bias.double()
    dtype = layer.weight.dtype
    return linear((weight * gain).to(dtype), bias.to(dtype))


def zero_mean_rows(weight: Tensor) -> Tensor:
    """Rows that sum to zero: the same product with every input whose mean is zero, and blind to a common offset."""
    return weight - weight.mean(dim=1, keepdim=True, dtype=torch.float64).to(weight.dtype)


def centre_outputs(layer: nn.Linear) -> nn.Linear:
    """The Linear whose output is that of `layer` minus its mean over the output features."""
    weight, dtype = layer.weight.double(), layer.weight.dtype
    centred = weight - weight.mean(dim=0, keepdim=True)
    bias = layer.bias.double()
    return linear(centred.to(dtype), (bias - bias.mean()).to(dtype))


class Mean(nn.Module):
    """scale * mean + offset over the last axis as a product, [..., n] -> [..., 1].

    Why: XNNPACK delegates a mean over the image axes only. The row is a buffer: a constant of the float arithmetic, not
    a weight that is trained and quantized. `deploy_form` gives it the dtype of the model.
    """

    row: Tensor
    offset: Tensor | None

    def __init__(self, n: int, scale: float = 1.0, offset: float = 0.0):
        super().__init__()
        self.register_buffer("row", torch.full((1, n), scale / n, dtype=torch.float64))
        self.register_buffer("offset", torch.full((1,), offset, dtype=torch.float64) if offset else None)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.row, self.offset)


class Normalise(nn.Module):
    """(x - mean) / sqrt(var + eps) over the last axis, which has `dim` features."""

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.mean, self.variance = Mean(dim), Mean(dim, offset=eps)

    def forward(self, x: Tensor) -> Tensor:
        x = x - self.mean(x)
        return x * torch.rsqrt(self.variance(x * x))
