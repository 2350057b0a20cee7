"""Normalisation by given or by computed statistics."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from targets.coreml.interpreter.rounding import Arithmetic


def batch_norm(
    a: Arithmetic,
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    """[B, C, *D], statistics [C]."""

    def by_channel(values: Tensor) -> Tensor:
        return values.reshape(-1, *[1] * (x.dim() - 2))

    scaled = (x - by_channel(mean)) * by_channel(a.keep(torch.rsqrt(variance + epsilon)))
    return _affine(scaled, None if gamma is None else by_channel(gamma), None if beta is None else by_channel(beta))


def layer_norm(
    a: Arithmetic,
    x: Tensor,
    axes: list[int] | None = None,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    """Over `axes` (default: all); gamma and beta have the shape of these axes."""
    dims = sorted(axis % x.dim() for axis in (range(x.dim()) if axes is None else axes))
    shape = [x.shape[d] if d in dims else 1 for d in range(x.dim())]
    normal = _standardised(a, x, dims, epsilon)
    return _affine(
        normal, None if gamma is None else gamma.reshape(shape), None if beta is None else beta.reshape(shape)
    )


def instance_norm(
    a: Arithmetic, x: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None, epsilon: float = 1e-5
) -> Tensor:
    """[B, C, *D], statistics over *D, gamma and beta [C]."""
    shape = [-1, *[1] * (x.dim() - 2)]
    normal = _standardised(a, x, range(2, x.dim()), epsilon)
    return _affine(
        normal, None if gamma is None else gamma.reshape(shape), None if beta is None else beta.reshape(shape)
    )


def l2_norm(a: Arithmetic, x: Tensor, epsilon: float = 1e-6) -> Tensor:
    """Over the last three dimensions."""
    power = a.total(a.keep(x * x), [-3, -2, -1], keepdim=True)
    return x / a.keep(torch.sqrt(a.keep(power + epsilon)))


def _standardised(a: Arithmetic, x: Tensor, dims: Sequence[int], epsilon: float) -> Tensor:
    """(x - mean) / sqrt(variance + epsilon), the variance of the population, from differences to the mean."""
    n = math.prod(x.shape[d] for d in dims)
    centred = a.keep(x - a.keep(a.total(x, dims, keepdim=True) / n))
    variance = a.keep(a.total(a.keep(centred * centred), dims, keepdim=True) / n)
    return a.keep(centred * a.keep(torch.rsqrt(a.keep(variance + epsilon))))


def _affine(x: Tensor, gain: Tensor | None, shift: Tensor | None) -> Tensor:
    x = x if gain is None else x * gain
    return x if shift is None else x + shift
