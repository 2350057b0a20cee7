"""Draws of MIL quantization operators and compressed constants, decoded by the formulas of their documentation."""

from __future__ import annotations

from typing import Any

import numpy as np
from mil_programs import Draw, Generator, OneOperator, wide


def _mb() -> Any:
    from coremltools.converters.mil.mil import Builder

    return Builder


def _scales(draw: Draw, shape: tuple[int, ...], dtype: Any) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """Attributes of a linear encoding per tensor or per channel; its scale and zero point broadcast to `shape`."""
    axis = draw.axis(len(shape)) if draw.seed % 2 else None
    size = () if axis is None else (shape[axis],)
    attributes: dict[str, Any] = {"scale": np.asarray(draw.floats(size, 0.02, 0.2))}
    if axis is not None:
        attributes["axis"] = axis
    if draw.seed % 3:
        low, high = (1, 250) if dtype is np.uint8 else (-100, 100)
        attributes["zero_point"] = draw.integers(size, low, high, dtype)
    along = () if axis is None else [-1 if i == axis % len(shape) else 1 for i in range(len(shape))]
    zero_point = attributes.get("zero_point", np.zeros(size, dtype))
    return attributes, wide(attributes["scale"]).reshape(along), wide(zero_point).reshape(along)


def _quantize(draw: Draw) -> OneOperator:
    """Nearest even of the quotient, shifted, clipped; some values lie beyond the range of the type."""
    dtype = draw.turn([np.int8, np.int8, np.uint8, np.uint8])
    x = draw.floats(draw.shape(1, 4), -20, 20)
    attributes, scale, zero_point = _scales(draw, x.shape, dtype)
    limits = np.iinfo(dtype)
    quotient = wide(x) / scale
    # a quotient beside a half can fall on either side of it in single precision: move these to whole numbers
    close = np.abs(quotient - np.floor(quotient) - 0.5) < 1e-3
    x = np.where(close, (np.floor(quotient) * scale), x).astype(draw.dtype)
    quotient = np.round(wide(x) / scale)
    expected = np.clip(quotient + zero_point, limits.min, limits.max).astype(dtype)
    return OneOperator(
        lambda x: _mb().quantize(input=x, output_dtype=np.dtype(dtype).name, **attributes),
        {"x": x},
        (expected,),
        rtol=None,
    )


def _dequantize(draw: Draw) -> OneOperator:
    dtype = draw.turn([np.int8, np.int8, np.uint8, np.uint8])
    limits = np.iinfo(dtype)
    q = draw.integers(draw.shape(1, 4), limits.min, limits.max, dtype)
    attributes, scale, zero_point = _scales(draw, q.shape, dtype)
    return OneOperator(
        lambda q: _mb().dequantize(input=q, **attributes), {"q": q}, draw.rounded(scale * (wide(q) - zero_point))
    )


def _constant(
    draw: Draw, build: Any, values: np.ndarray, opset: str = "iOS17", rtol: float | None = None
) -> OneOperator:
    """The constant is added to zeros: a package needs an input, and an operator that reads the constant."""
    x = np.zeros(values.shape, draw.dtype)
    return OneOperator(lambda x: _mb().add(x=x, y=build()), {"x": x}, draw.rounded(values), rtol=rtol, opset=opset)


def _affine_dequantize(draw: Draw) -> OneOperator:
    dtype = draw.turn([np.int8, np.uint8])
    limits = np.iinfo(dtype)
    shape = draw.shape(1, 4)
    q = draw.integers(shape, limits.min, limits.max, dtype)
    axis = draw.axis(len(shape)) % len(shape)
    size = draw.turn([(), (shape[axis],), (shape[axis],)])
    scale = np.asarray(draw.floats(size, 0.01, 0.2))
    zero_point = draw.integers(draw.turn([(), (), size]), limits.min // 2, limits.max // 2, dtype)
    along = [-1 if i == axis else 1 for i in range(len(shape))]
    widened = [wide(v).reshape(along if np.ndim(v) else ()) for v in (scale, zero_point)]
    return _constant(
        draw,
        lambda: _mb().constexpr_affine_dequantize(quantized_data=q, scale=scale, zero_point=zero_point, axis=axis),
        widened[0] * (wide(q) - widened[1]),
        rtol=1e-5,
    )


def _packed(values: np.ndarray, bits: int) -> np.ndarray:
    """Row-major, the first in the lowest bits of the first byte, over byte borders without a gap."""
    stream = [int(value) >> bit & 1 for value in values.ravel() for bit in range(bits)]
    stream += [0] * (-len(stream) % 8)
    return np.array(
        [sum(bit << i for i, bit in enumerate(stream[at : at + 8])) for at in range(0, len(stream), 8)], np.uint8
    )


def _lut_to_dense(draw: Draw) -> OneOperator:
    """iOS 16: one table for the tensor, indices packed into bytes; iOS 18: tables for groups, vectors as entries."""
    if draw.seed % 2 == 0:
        bits = draw.turn([4, 0, 6, 0, 1, 0, 8, 0, 2, 0])
        shape = draw.shape(1, 4)
        indices = draw.integers(shape, 0, 2**bits - 1, np.uint8)
        lut = draw.floats((2**bits,))
        sizes = np.array(shape, np.uint32)
        return _constant(
            draw,
            lambda: _mb().constexpr_lut_to_dense(indices=_packed(indices, bits), lut=lut, shape=sizes),
            lut[indices],
        )
    from coremltools.converters.mil.mil import types

    bits, stored = draw.turn(
        [
            (0, None),
            (4, types.np_uint4_dtype),
            (0, None),
            (6, types.np_uint6_dtype),
            (0, None),
            (2, types.np_uint2_dtype),
            (0, None),
            (8, np.uint8),
            (0, None),
            (3, types.np_uint3_dtype),
            (0, None),
            (1, types.np_uint1_dtype),
        ]
    )
    groups = (draw.integer(1, 3), draw.integer(1, 2))
    shape = tuple(g * draw.integer(1, 3) for g in groups)
    indices = draw.integers(shape, 0, 2**bits - 1, np.uint8)
    vector = draw.integer(2, 3) if draw.seed % 4 == 3 else 1
    lut = draw.floats((*groups, 2**bits, vector))
    axis = draw.integer(0, 1)
    expected = np.empty([n * (vector if a == axis else 1) for a, n in enumerate(shape)], draw.dtype)
    for i, j in np.ndindex(*shape):
        entry = lut[i * groups[0] // shape[0], j * groups[1] // shape[1], indices[i, j]]
        for k in range(vector):
            place = [i, j]
            place[axis] = place[axis] * vector + k
            expected[tuple(place)] = entry[k]
    attributes = {"vector_axis": axis} if vector > 1 else {}
    return _constant(
        draw,
        lambda: _mb().constexpr_lut_to_dense(indices=indices.astype(stored), lut=lut, **attributes),
        expected,
        opset="iOS18",
    )


def _sparse_to_dense(draw: Draw) -> OneOperator:
    shape = draw.shape(1, 4)
    mask = draw.bools(shape)
    mask.flat[0] = True
    values = draw.floats((int(mask.sum()),))
    expected = np.zeros(shape, draw.dtype)
    for value, place in zip(values, np.argwhere(mask), strict=True):
        expected[tuple(place)] = value
    if draw.seed % 2 == 0:
        bits, sizes = _packed(mask, 1), np.array(shape, np.uint32)
        return _constant(
            draw,
            lambda: _mb().constexpr_sparse_to_dense(nonzero_data=values, mask=bits, shape=sizes),
            expected,
        )
    from coremltools.converters.mil.mil import types

    return _constant(
        draw,
        lambda: _mb().constexpr_sparse_to_dense(nonzero_data=values, mask=mask.astype(types.np_uint1_dtype)),
        expected,
        opset="iOS18",
    )


def _blockwise_shift_scale(draw: Draw) -> OneOperator:
    from coremltools.converters.mil.mil import types

    stored, low, high = draw.turn(
        [
            (types.np_int4_dtype, -8, 7),
            (np.dtype(np.int8), -128, 127),
            (types.np_uint4_dtype, 0, 15),
            (np.dtype(np.uint8), 0, 255),
        ]
    )
    groups = tuple(draw.integer(1, 3) for _ in range(draw.integer(1, 4)))
    blocks = [draw.integer(1, 4) for _ in groups]
    shape = [g * b for g, b in zip(groups, blocks, strict=True)]
    data = draw.integers(shape, low, high, np.int32).astype(stored)
    scale = draw.floats(groups, 0.01, 0.2)
    attributes: dict[str, Any] = {}
    offset = np.zeros(groups)
    if draw.seed // 2 % 2 == 1:
        attributes["offset"] = draw.integers(groups, low // 2, high // 2, np.int32).astype(stored)
        offset = wide(attributes["offset"])
    expected = np.empty(shape)
    for place in np.ndindex(*shape):
        block = tuple(p // b for p, b in zip(place, blocks, strict=True))
        expected[place] = float(scale[block]) * (float(data[place]) - float(offset[block]))
    return _constant(
        draw,
        lambda: _mb().constexpr_blockwise_shift_scale(data=data, scale=scale, **attributes),
        expected,
        opset="iOS18",
        rtol=1e-5,
    )


ENCODINGS: dict[str, Generator] = {
    "quantize": _quantize,
    "dequantize": _dequantize,
    "constexpr_affine_dequantize": _affine_dequantize,
    "constexpr_lut_to_dense": _lut_to_dense,
    "constexpr_sparse_to_dense": _sparse_to_dense,
    "constexpr_blockwise_shift_scale": _blockwise_shift_scale,
}
