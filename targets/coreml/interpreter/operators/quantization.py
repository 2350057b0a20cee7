"""Affine quantization of activations, and constants that are stored compressed."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from targets.coreml.interpreter.arithmetic import Arithmetic, Unsupported

_INTEGERS = {"int8": torch.int8, "uint8": torch.uint8}


def quantize(
    a: Arithmetic,
    input: Tensor,
    scale: Tensor,
    output_dtype: str,
    zero_point: Tensor | None = None,
    axis: int | None = None,
) -> Tensor:
    """clip(round(input / scale) + zero_point), half to even."""
    if output_dtype not in _INTEGERS:
        raise Unsupported(f"quantize to {output_dtype} (known: {', '.join(_INTEGERS)})")
    limits = torch.iinfo(_INTEGERS[output_dtype])
    levels = a.keep(input / _along(scale, input, axis)).round_()
    if zero_point is not None:
        levels += _along(zero_point.float(), input, axis)
    low, high = torch.aminmax(levels)
    if low.isnan():
        raise Unsupported("quantize of NaN: the documentation does not say what that is as an integer")
    if low < limits.min or high > limits.max:
        a.saturated(int(((levels < limits.min) | (levels > limits.max)).sum()))
        levels.clamp_(limits.min, limits.max)
    return levels.to(_INTEGERS[output_dtype])


def dequantize(
    a: Arithmetic, input: Tensor, scale: Tensor, zero_point: Tensor | None = None, axis: int | None = None
) -> Tensor:
    """scale * (input - zero_point)."""
    levels = input.float() if zero_point is None else input.float() - _along(zero_point.float(), input, axis)
    return levels * _along(scale, input, axis)


def constexpr_affine_dequantize(
    a: Arithmetic, quantized_data: Tensor, zero_point: Tensor, scale: Tensor, axis: int
) -> Tensor:
    return dequantize(a, quantized_data, scale, zero_point, axis)


def constexpr_blockwise_shift_scale(a: Arithmetic, data: Tensor, scale: Tensor, offset: Tensor | None = None) -> Tensor:
    """scale * (data - offset); one scale for each block, whose size is data.shape / scale.shape."""
    levels = data.float() if offset is None else data.float() - _repeated(offset.float(), data.shape)
    return levels * _repeated(scale, data.shape)


def constexpr_lut_to_dense(
    a: Arithmetic, indices: Tensor, lut: Tensor, shape: list[int] | None = None, vector_axis: int | None = None
) -> Tensor:
    """Palettized weights.

    iOS16: `indices` are packed into bytes, the least significant bits first, for a tensor of `shape`. iOS18: `indices`
    [*S] and `lut` [*L, entries, vector], one table for each block of S / L; a vector fills `vector_axis`.
    """
    if shape is not None:
        bits = int(math.log2(lut.numel()))
        return lut[_unpacked(indices, bits, math.prod(shape))].reshape(shape)
    rank = indices.dim()
    tables = lut.shape[:rank]
    block = [n // m for n, m in zip(indices.shape, tables, strict=True)]
    table = torch.arange(math.prod(tables)).reshape(tables)
    for axis, size in enumerate(block):
        table = table.repeat_interleave(size, axis)  # [*S]: the number of the table of each index
    values = lut.reshape(-1, *lut.shape[rank:])[table, indices.long()]  # [*S, vector]
    if lut.shape[-1] == 1:
        return values.squeeze(-1)
    if vector_axis is None:
        raise Unsupported(f"constexpr_lut_to_dense of vectors of {lut.shape[-1]} without vector_axis")
    axis = vector_axis % rank
    return values.movedim(-1, axis + 1).flatten(axis, axis + 1)


def constexpr_sparse_to_dense(
    a: Arithmetic, nonzero_data: Tensor, mask: Tensor, shape: list[int] | None = None
) -> Tensor:
    """iOS16: `mask` is packed into bytes, the least significant bit first, for a tensor of `shape`; iOS18: one each."""
    if shape is not None:
        mask = _unpacked(mask, 1, math.prod(shape)).reshape(shape)
    dense = torch.zeros(mask.shape, dtype=nonzero_data.dtype)
    dense[mask.bool()] = nonzero_data
    return dense


def _along(values: Tensor, x: Tensor, axis: int | None) -> Tensor:
    """One value, or one for each index of `axis`, to be broadcast over x."""
    if values.numel() == 1 and values.dim() == 0:
        return values
    if axis is None:
        raise Unsupported(f"{values.numel()} scales without an axis")
    return values.reshape([-1 if d == axis % x.dim() else 1 for d in range(x.dim())])


def _repeated(values: Tensor, shape: torch.Size) -> Tensor:
    for axis, (n, m) in enumerate(zip(shape, values.shape, strict=True)):
        values = values.repeat_interleave(n // m, axis)
    return values


def _unpacked(packed: Tensor, bits: int, count: int) -> Tensor:
    """Bytes -> `count` numbers of `bits` bits each."""
    stream = np.unpackbits(packed.numpy().astype(np.uint8), bitorder="little")[: count * bits]
    weights = 1 << np.arange(bits)
    return torch.from_numpy((stream.reshape(count, bits) * weights).sum(1).astype(np.int64))
