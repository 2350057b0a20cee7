"""Rounding to an integer grid with a straight-through gradient: a float32 tensor and its grid in, rounded values out.

Every function computes (clamp(round(x / scale) + zero_point, low, high) - zero_point) * scale with the reciprocal of
the scale in float32, as the runtimes and the QDQ operators do. The gradient of x passes inside of the range (Bengio et
al. 2013, "Estimating or propagating gradients through stochastic neurons").

torch has operators for it; on a CPU they are not vectorised, and take about fourteen times as long.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

#: A number, or a tensor that broadcasts with what is rounded.
Grid = float | Tensor


def per_tensor(x: Tensor, scale: float, zero_point: int, low: int, high: int) -> Tensor:
    """One grid for all of `x`; scale and zero point get no gradient."""
    return _PerTensor.apply(x, scale, low - zero_point, high - zero_point)


def per_channel(x: Tensor, scale: Tensor, zero_point: Tensor, axis: int, low: int, high: int) -> Tensor:
    """A grid for each channel along `axis`, scale and zero point [channels]; these get no gradient."""
    shape = [1] * x.dim()
    shape[axis] = -1
    return _PerChannel.apply(x, scale.view(shape), zero_point.view(shape), low, high)


def learned(x: Tensor, log_scale: Tensor, zero_point: Tensor, low: int, high: int) -> Tensor:
    """One grid for all of `x`, which gets gradients.

    With t = x / scale, of y = (clamp(round(t) + z) - z) scale: dy/dscale = round(t) - t inside of the range and the
    last step outside of it (Esser et al. 2020, "Learned step size quantization", equation 3), dy/dz = 0 and -scale
    (Bhalgat et al. 2020, "LSQ+", section 3.1, with an integer offset, which all runtimes have). Both gradients are
    divided by the root of (values of one image x steps of the range): Esser et al., section 2.2.

    Args:
        log_scale: [1], natural logarithm of the scale.
        zero_point: [1], an integer, or a real number that is rounded here.
    """
    return _Learned.apply(x, log_scale, zero_point, low, high)


def _round(x: Tensor, scale: Grid, low: Grid, high: Grid) -> Tensor:
    reciprocal = 1.0 / scale if isinstance(scale, Tensor) or scale else math.nan
    return x.mul(reciprocal).round_().clamp_(low, high).mul_(scale)  # type: ignore[arg-type]


def _inside(gradient: Tensor, x: Tensor, scale: Grid, low: Grid, high: Grid) -> Tensor:
    """The gradient where `x` is not clamped, else 0."""
    first, last = (low - 0.5) * scale, (high + 0.5) * scale
    if isinstance(first, Tensor):
        return torch.where((x > first) & (x < last), gradient, 0.0)
    # Of all operators that do this the one with a vectorised kernel.
    return torch.ops.aten.hardtanh_backward(gradient, x, first, last)


class _PerTensor(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float, low: int, high: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.grid = scale, low, high
        return _round(x, scale, low, high)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (x,) = ctx.saved_tensors
        return _inside(gradients[0], x, *ctx.grid), None, None, None


class _PerChannel(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor, low: int, high: int) -> Tensor:
        first, last = low - zero_point, high - zero_point
        ctx.save_for_backward(x, scale, first, last)
        return _round(x, scale, first, last)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        x, scale, first, last = ctx.saved_tensors
        return _inside(gradients[0], x, scale, first, last), None, None, None, None


class _Learned(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, log_scale: Tensor, zero_point: Tensor, low: int, high: int) -> Tensor:
        scale, offset = log_scale.exp(), zero_point.round()
        grid: tuple[Grid, Grid, Grid] = scale, low - offset, high - offset
        if not x.is_cuda:  # where reading them would wait for the device
            grid = float(scale), float(low - offset), float(high - offset)
        ctx.save_for_backward(x)
        ctx.grid, ctx.steps = grid, high - low
        return _round(x, *grid)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        (x,) = ctx.saved_tensors
        gradient = gradients[0]
        passed = _inside(gradient, x, *ctx.grid)
        # scale * dy/dscale is y - x inside, y outside; the gradient of the logarithm is that of the scale times it.
        of_scale = _dot(gradient, _round(x, *ctx.grid)) - _dot(passed, x)
        of_zero_point = ctx.grid[0] * (passed.sum() - gradient.sum())
        factor = (x[0].numel() * ctx.steps) ** -0.5
        return passed, (of_scale * factor).reshape(1), (of_zero_point * factor).reshape(1), None, None


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return torch.dot(a.flatten(), b.flatten())
