"""Sums, extremes and norms over axes, normalization, and the label of a classifier."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from targets.coreml.interpreter.arithmetic import Arithmetic, Unsupported


def reduce_sum(a: Arithmetic, x: Tensor, axes: list[int] | None = None, keep_dims: bool = False) -> Tensor:
    return _total(a, x, axes, keep_dims)


def reduce_mean(a: Arithmetic, x: Tensor, axes: list[int] | None = None, keep_dims: bool = False) -> Tensor:
    _floats_only(x, "reduce_mean")
    n = math.prod(x.shape[axis] for axis in _axes(x, axes))
    return _total(a, x, axes, keep_dims) / n


def reduce_prod(a: Arithmetic, x: Tensor, axes: list[int] | None = None, keep_dims: bool = False) -> Tensor:
    for axis in sorted((axis % x.dim() for axis in _axes(x, axes)), reverse=True):
        x = x.prod(axis, keepdim=keep_dims, dtype=x.dtype)
    return x


def reduce_max(a: Arithmetic, x: Tensor, axes: list[int] | None = None, keep_dims: bool = False) -> Tensor:
    return x.amax(_axes(x, axes), keepdim=keep_dims)


def reduce_min(a: Arithmetic, x: Tensor, axes: list[int] | None = None, keep_dims: bool = False) -> Tensor:
    return x.amin(_axes(x, axes), keepdim=keep_dims)


def reduce_l2_norm(a: Arithmetic, x: Tensor, axes: list[int] | None = None, keep_dims: bool = False) -> Tensor:
    _floats_only(x, "reduce_l2_norm")
    return torch.sqrt(_total(a, a.keep(x * x), axes, keep_dims))


def reduce_log_sum_exp(a: Arithmetic, x: Tensor, axes: list[int] | None = None, keep_dims: bool = False) -> Tensor:
    """The largest entry is taken off first, so that nothing overflows."""
    _floats_only(x, "reduce_log_sum_exp")
    dims = _axes(x, axes)
    largest = x.amax(dims, keepdim=True)
    powers = a.keep(torch.exp(a.keep(x - largest)))
    return a.keep(torch.log(a.total(powers, dims, keepdim=keep_dims))) + (
        largest if keep_dims else largest.squeeze(dims)
    )


def reduce_argmax(
    a: Arithmetic, x: Tensor, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32"
) -> Tensor:
    """The first of equal entries; the documentation guarantees none."""
    return _index(x.argmax(axis, keepdim=keep_dims), output_dtype)


def reduce_argmin(
    a: Arithmetic, x: Tensor, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32"
) -> Tensor:
    """The first of equal entries; the documentation guarantees none."""
    return _index(x.argmin(axis, keepdim=keep_dims), output_dtype)


def classify(a: Arithmetic, probabilities: Tensor, classes: list[str]) -> tuple[str, dict[str, float]]:
    """The class with the largest probability, and the probability of each."""
    values = probabilities.reshape(-1).tolist()
    if len(values) != len(classes):
        raise Unsupported(f"classify of {len(values)} probabilities with {len(classes)} classes")
    table = dict(zip(classes, values, strict=True))
    return max(table, key=table.__getitem__), table


def cumsum(a: Arithmetic, x: Tensor, axis: int = 0, exclusive: bool = False, reverse: bool = False) -> Tensor:
    """`exclusive`: the sum of what comes before an element, without itself."""
    x = x.flip(axis) if reverse else x
    if a.half_sums:
        running, rows = torch.zeros_like(x.select(axis, 0)), []
        for row in x.unbind(axis):
            running = a.keep(running + row)
            rows.append(running)
        sums = torch.stack(rows, axis)
    else:
        sums = x.cumsum(axis, dtype=x.dtype)
    if exclusive:
        sums = torch.cat([torch.zeros_like(sums.narrow(axis, 0, 1)), sums.narrow(axis, 0, x.shape[axis] - 1)], axis)
    return sums.flip(axis) if reverse else sums


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
    by_channel = [-1, *[1] * (x.dim() - 2)]
    scaled = (x - mean.reshape(by_channel)) * a.keep(torch.rsqrt(variance + epsilon)).reshape(by_channel)
    return _affine(scaled, gamma, beta, by_channel)


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
    return _affine(_standardised(a, x, dims, epsilon), gamma, beta, shape)


def instance_norm(
    a: Arithmetic, x: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None, epsilon: float = 1e-5
) -> Tensor:
    """[B, C, *D], statistics over *D, gamma and beta [C]."""
    return _affine(_standardised(a, x, range(2, x.dim()), epsilon), gamma, beta, [-1, *[1] * (x.dim() - 2)])


def _standardised(a: Arithmetic, x: Tensor, dims: Sequence[int], epsilon: float) -> Tensor:
    """(x - mean) / sqrt(variance + epsilon), the variance of the population, from differences to the mean."""
    n = math.prod(x.shape[d] for d in dims)
    centred = a.keep(x - a.keep(a.total(x, dims, keepdim=True) / n))
    variance = a.keep(a.total(a.keep(centred * centred), dims, keepdim=True) / n)
    return a.keep(centred * a.keep(torch.rsqrt(a.keep(variance + epsilon))))


def _affine(x: Tensor, gain: Tensor | None, shift: Tensor | None, shape: list[int]) -> Tensor:
    x = x if gain is None else x * gain.reshape(shape)
    return x if shift is None else x + shift.reshape(shape)


def _total(a: Arithmetic, x: Tensor, axes: list[int] | None, keep_dims: bool) -> Tensor:
    if not x.is_floating_point():
        return x.sum(_axes(x, axes), keepdim=keep_dims, dtype=x.dtype)
    return a.total(x, _axes(x, axes), keep_dims)


def _axes(x: Tensor, axes: list[int] | None) -> list[int]:
    return list(range(x.dim())) if axes is None else axes


def _floats_only(x: Tensor, name: str) -> None:
    if not x.is_floating_point():
        raise Unsupported(f"{name} of integers: the documentation does not say how it is rounded")


def _index(index: Tensor, dtype: str) -> Tensor:
    if dtype not in ("int32", "uint16"):
        raise Unsupported(f"indices as {dtype}")
    return index.int()
