"""Operators that move, repeat or leave out elements and compute nothing."""

from __future__ import annotations

import math

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
