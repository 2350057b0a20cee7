"""Slices, gathers and sorting."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from targets.coreml.interpreter.arithmetic import Arithmetic, Unsupported


def slice_by_index(
    a: Arithmetic,
    x: Tensor,
    begin: list[int],
    end: list[int],
    stride: list[int] | None = None,
    begin_mask: list[bool] | None = None,
    end_mask: list[bool] | None = None,
    squeeze_mask: list[bool] | None = None,
) -> Tensor:
    """x[begin:end:stride] by dimension, as numpy; a mask leaves begin or end away, or takes the element at begin."""
    rank = x.dim()
    steps = stride or [1] * rank
    no_begin, no_end = begin_mask or [False] * rank, end_mask or [False] * rank
    single = squeeze_mask or [False] * rank
    for axis in reversed(range(rank)):
        n = x.shape[axis]
        if single[axis]:
            at = 0 if no_begin[axis] else begin[axis]
            if not -n <= at < n:
                raise Unsupported(f"slice_by_index takes element {at} of {n}")
            x = x.select(axis, at)
            continue
        first, last = None if no_begin[axis] else begin[axis], None if no_end[axis] else end[axis]
        span = slice(first, last, steps[axis]).indices(n)
        if span[2] > 0:
            x = x[(slice(None),) * axis + (slice(*span),)]
        else:  # torch has no negative steps
            x = x.index_select(axis, torch.tensor(list(range(*span)), dtype=torch.long))
    return x


def slice_by_size(a: Arithmetic, x: Tensor, begin: list[int], size: list[int]) -> Tensor:
    """`size` -1: to the end."""
    for axis, (start, count) in enumerate(zip(begin, size, strict=True)):
        n = x.shape[axis]
        start = start + n if start < 0 else start
        count = n - start if count == -1 else count
        if not (start >= 0 and count >= 0 and start + count <= n):
            raise Unsupported(f"slice_by_size takes {count} elements from {start} on of {n}")
        x = x.narrow(axis, start, count)
    return x


def gather(
    a: Arithmetic, x: Tensor, indices: Tensor, axis: int = 0, batch_dims: int = 0, validate_indices: bool = False
) -> Tensor:
    """numpy's take along `axis`; the first `batch_dims` dimensions of both go together."""
    axis %= x.dim()
    index = _checked(indices, x.shape[axis], "gather")
    if batch_dims == 0:
        taken = x.index_select(axis, index.reshape(-1))
        return taken.reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])
    return _by_batch(lambda row, pick: gather(a, row, pick, axis - batch_dims), x, index, batch_dims)


def gather_along_axis(
    a: Arithmetic, x: Tensor, indices: Tensor, axis: int = 0, validate_indices: bool = False
) -> Tensor:
    """numpy's take_along_axis."""
    return x.gather(axis, _checked(indices, x.shape[axis], "gather_along_axis"))


def gather_nd(a: Arithmetic, x: Tensor, indices: Tensor, batch_dims: int = 0, validate_indices: bool = False) -> Tensor:
    """The last dimension of `indices` [..., K] points into K dimensions of x, after the `batch_dims` of both."""
    if batch_dims:
        return _by_batch(lambda row, pick: gather_nd(a, row, pick), x, indices, batch_dims)
    # One index into each dimension.
    return x[tuple(_checked(column, x.shape[axis], "gather_nd") for axis, column in enumerate(indices.unbind(-1)))]


def one_hot(
    a: Arithmetic,
    indices: Tensor,
    one_hot_vector_size: int,
    axis: int = -1,
    on_value: Tensor | None = None,
    off_value: Tensor | None = None,
) -> Tensor:
    """One and zero, as integers, unless given."""
    index = _checked(indices, one_hot_vector_size, "one_hot")
    hot = torch.nn.functional.one_hot(index, one_hot_vector_size).movedim(-1, axis)
    one, zero = torch.tensor(1, dtype=torch.int32), torch.tensor(0, dtype=torch.int32)
    return torch.where(hot.bool(), one if on_value is None else on_value, zero if off_value is None else off_value)


def topk(
    a: Arithmetic,
    x: Tensor,
    k: int = 1,
    axis: int = -1,
    ascending: bool = False,
    sort: bool = True,
    return_indices: bool = True,
    output_indices_dtype: str = "int32",
) -> Tensor | tuple[Tensor, Tensor]:
    """The largest, with `ascending` the smallest; the order of equal entries is that of x."""
    values, index = torch.sort(x, dim=axis, descending=not ascending, stable=True)
    top, where = values.narrow(axis, 0, k), index.narrow(axis, 0, k).int()
    return (top, where) if return_indices else top


def argsort(a: Arithmetic, x: Tensor, axis: int = -1, ascending: bool = False) -> Tensor:
    return torch.argsort(x, dim=axis, descending=not ascending, stable=True).int()


def _by_batch(gather_one: Callable[[Tensor, Tensor], Tensor], x: Tensor, indices: Tensor, batch_dims: int) -> Tensor:
    """`gather_one` of x and indices at each position of their first `batch_dims` dimensions."""
    rows, picks = x.flatten(0, batch_dims - 1), indices.flatten(0, batch_dims - 1)
    parts = [gather_one(row, pick) for row, pick in zip(rows, picks, strict=True)]
    return torch.stack(parts).reshape(*x.shape[:batch_dims], *parts[0].shape)


def _checked(indices: Tensor, size: int, name: str) -> Tensor:
    """Indices from -size to size - 1 as 0 to size - 1.

    Raises:
        Unsupported: one is outside, where the documentation promises nothing.
    """
    index = indices.long()
    if index.numel() and not (-size <= int(index.min()) and int(index.max()) < size):
        raise Unsupported(f"{name} reads from {int(index.min())} to {int(index.max())} of {size} elements")
    return torch.where(index < 0, index + size, index)
