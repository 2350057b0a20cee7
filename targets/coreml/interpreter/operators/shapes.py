"""Shapes, slices, gathers and sorting: operators that move values and compute none."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from targets.coreml.interpreter.arithmetic import Arithmetic, Unsupported


def identity(a: Arithmetic, x: Tensor) -> Tensor:
    return x


def reshape(a: Arithmetic, x: Tensor, shape: list[int]) -> Tensor:
    """-1: what is left; 0: the size of the same dimension of x, where the ranks are equal."""
    if 0 in shape:
        if len(shape) != x.dim():
            raise Unsupported(f"reshape of {list(x.shape)} to {shape}: a 0 needs equal ranks")
        shape = [old if new == 0 else new for old, new in zip(x.shape, shape, strict=True)]
    return x.reshape(shape)


def transpose(a: Arithmetic, x: Tensor, perm: list[int]) -> Tensor:
    return x.permute(perm)


def expand_dims(a: Arithmetic, x: Tensor, axes: list[int]) -> Tensor:
    """`axes` count in the result."""
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def squeeze(a: Arithmetic, x: Tensor, axes: list[int] | None = None) -> Tensor:
    """Dimensions that are not 1 stay."""
    return x.squeeze() if axes is None else x.squeeze(axes)


def concat(a: Arithmetic, values: list[Tensor], axis: int, interleave: bool = False) -> Tensor:
    """`interleave` takes one slice of each in turn."""
    if interleave:
        axis %= values[0].dim()
        return torch.stack(values, axis + 1).flatten(axis, axis + 1)
    return torch.cat(values, axis)


def split(
    a: Arithmetic, x: Tensor, axis: int, num_splits: int | None = None, split_sizes: list[int] | None = None
) -> tuple[Tensor, ...]:
    if split_sizes is not None:
        return x.split(split_sizes, axis)
    if num_splits is None or x.shape[axis] % num_splits:
        raise Unsupported(f"split of {x.shape[axis]} into {num_splits} equal parts")
    return x.split(x.shape[axis] // num_splits, axis)


def stack(a: Arithmetic, values: list[Tensor], axis: int) -> Tensor:
    return torch.stack(values, axis)


def tile(a: Arithmetic, x: Tensor, reps: list[int]) -> Tensor:
    return x.repeat(reps)


def reverse(a: Arithmetic, x: Tensor, axes: list[int] | None = None) -> Tensor:
    return x.flip(list(range(x.dim())) if axes is None else axes)


def pad(a: Arithmetic, x: Tensor, pad: list[int], mode: str = "constant", constant_val: float = 0.0) -> Tensor:
    """`pad`: (before, after) of each of the last dimensions, in their order."""
    pairs = list(zip(pad[::2], pad[1::2], strict=True))
    if mode == "constant":
        return torch.nn.functional.pad(x, [n for pair in reversed(pairs) for n in pair], value=constant_val)
    if mode not in ("reflect", "replicate"):
        raise Unsupported(f"pad with mode {mode!r} (known: constant, reflect, replicate)")
    for axis, (before, after) in enumerate(pairs, start=x.dim() - len(pairs)):
        n = x.shape[axis]
        index = torch.arange(-before, n + after)
        if mode == "reflect":
            if max(before, after) >= n:
                raise Unsupported(f"reflection of {max(before, after)} elements of {n}")
            index = index.abs()
            index = torch.where(index < n, index, 2 * (n - 1) - index)
        x = x.index_select(axis, index.clamp(0, n - 1))
    return x


def pixel_shuffle(a: Arithmetic, x: Tensor, upscale_factor: int) -> Tensor:
    """[B, C f^2, H, W] -> [B, C, H f, W f]; a channel's pixels lie beside each other."""
    return torch.pixel_shuffle(x, upscale_factor)


def pixel_unshuffle(a: Arithmetic, x: Tensor, downscale_factor: int) -> Tensor:
    return torch.pixel_unshuffle(x, downscale_factor)


def band_part(a: Arithmetic, x: Tensor, lower: int = -1, upper: int = -1) -> Tensor:
    """Zero outside of a band around the diagonal of the last two dimensions; a negative number keeps that side."""
    row, column = torch.arange(x.shape[-2])[:, None], torch.arange(x.shape[-1])[None]
    inside = torch.ones(x.shape[-2:], dtype=torch.bool)
    if lower >= 0:
        inside &= row - column <= lower
    if upper >= 0:
        inside &= column - row <= upper
    return torch.where(inside, x, torch.zeros_like(x))


def shape(a: Arithmetic, x: Tensor) -> Tensor:
    return torch.tensor(x.shape, dtype=torch.int32)


def fill(a: Arithmetic, shape: list[int], value: Tensor) -> Tensor:
    return value.expand(shape).clone()


def fill_like(a: Arithmetic, ref_tensor: Tensor, value: Tensor) -> Tensor:
    return value.expand(ref_tensor.shape).clone()


def range_1d(a: Arithmetic, end: Tensor, start: Tensor, step: Tensor) -> Tensor:
    count = max(math.ceil((end.item() - start.item()) / step.item()), 0)
    return start + step * torch.arange(count, dtype=start.dtype)


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
