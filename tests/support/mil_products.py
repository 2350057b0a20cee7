"""Draws of MIL products: linear, matmul, convolutions, einsum and attention, written out as sums in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from mil_programs import Draw, Generator, OneOperator, wide

#: Sums of tens of products in single precision.
RTOL = 1e-4


def _mb() -> Any:
    from coremltools.converters.mil.mil import Builder

    return Builder


def _linear(draw: Draw) -> OneOperator:
    x = draw.floats(draw.shape(1, 3, most=9))
    weight = draw.floats((draw.integer(1, 7), x.shape[-1]))
    attributes = draw.turn([{}, {"bias": draw.floats((len(weight),))}])
    expected = (wide(x)[..., None, :] * wide(weight)).sum(-1) + attributes.get("bias", 0)
    return OneOperator(lambda x: _mb().linear(x=x, weight=weight, **attributes), {"x": x}, draw.rounded(expected), RTOL)


def _matmul(draw: Draw) -> OneOperator:
    m, k, n = (draw.integer(1, 6) for _ in range(3))
    transpose_x, transpose_y = draw.turn([(False, False), (True, False), (False, True), (True, True)])
    batch = draw.shape(0, 3, most=3)
    # y broadcasts over batch dimensions that are 1 in it or that it lacks
    y_batch = tuple(1 if draw.rng.random() < 0.4 else size for size in batch)[draw.integer(0, len(batch)) :]
    x = draw.floats((*batch, k, m) if transpose_x else (*batch, m, k))
    y = draw.floats((*y_batch, n, k) if transpose_y else (*y_batch, k, n))
    if draw.seed % 8 == 4:  # a vector on the left, of a matrix: coremltools infers a wrong shape for a batch of these
        x, y = draw.floats((k,)), draw.floats((k, n))
    left = np.swapaxes(wide(x), -1, -2) if transpose_x and x.ndim > 1 else wide(x)
    right = np.swapaxes(wide(y), -1, -2) if transpose_y else wide(y)
    expected = (left[..., :, None] * right[..., None, :, :]).sum(-2) if x.ndim > 1 else (left[:, None] * right).sum(-2)
    attributes = {"transpose_x": transpose_x, "transpose_y": transpose_y} if draw.seed % 4 else {}
    if draw.seed % 3 == 2:  # a weight
        return OneOperator(lambda x: _mb().matmul(x=x, y=y, **attributes), {"x": x}, draw.rounded(expected), RTOL)
    return OneOperator(
        lambda x, y: _mb().matmul(x=x, y=y, **attributes), {"x": x, "y": y}, draw.rounded(expected), RTOL
    )


def pads(
    pad_type: str, custom: Sequence[int], sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int]
) -> list[tuple[int, int]]:
    """Before and after each spatial dimension. "same": ceil(size / stride) outputs, the odd one after the data;
    "same_lower": the odd one before. `kernel` includes dilation.
    """
    if pad_type in ("valid", "custom"):
        return [(custom[2 * i], custom[2 * i + 1]) if pad_type == "custom" else (0, 0) for i in range(len(sizes))]
    found = []
    for size, window, stride in zip(sizes, kernel, strides, strict=True):
        total = max((math.ceil(size / stride) - 1) * stride + window - size, 0)
        less, more = total // 2, total - total // 2
        found.append((less, more) if pad_type == "same" else (more, less))
    return found


def _conv(draw: Draw) -> OneOperator:
    rank = draw.turn([2, 2, 1, 2, 3])
    pad_type = draw.turn(["valid", "same", "custom", "same_lower"])
    groups = draw.turn([1, 2, 1, 4, 1, 1])
    depthwise = groups == 4
    c_in = groups if depthwise else groups * draw.integer(1, 3)
    c_out = groups * draw.integer(1, 3)
    kernel = [draw.integer(1, 4 if rank < 3 else 2) for _ in range(rank)]
    strides = [draw.integer(1, 3) for _ in range(rank)]
    dilations = [draw.integer(1, 2) for _ in range(rank)]
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    sizes = [span + draw.integer(0, 4) for span in spans]
    x = draw.floats((draw.integer(1, 2), c_in, *sizes))
    weight = draw.floats((c_out, c_in // groups, *kernel), -1, 1)
    attributes: dict[str, Any] = {"pad_type": pad_type, "strides": strides, "dilations": dilations, "groups": groups}
    custom = [draw.integer(0, 3) for _ in range(2 * rank)]
    if pad_type == "custom":
        attributes["pad"] = custom
    if draw.seed % 2:
        attributes["bias"] = draw.floats((c_out,))
    if pad_type == "valid" and draw.seed % 8 == 0:  # everything that has a default left out
        attributes = {"pad_type": "valid"}
        strides, dilations, groups, spans = [1] * rank, [1] * rank, 1, kernel
    around = pads(pad_type, custom, sizes, spans, strides)
    expected = _convolved(wide(x), wide(weight), strides, dilations, groups, around)
    if "bias" in attributes:
        expected += wide(attributes["bias"]).reshape(-1, *[1] * rank)
    return OneOperator(lambda x: _mb().conv(x=x, weight=weight, **attributes), {"x": x}, draw.rounded(expected), RTOL)


def _convolved(
    x: np.ndarray,
    weight: np.ndarray,
    strides: Sequence[int],
    dilations: Sequence[int],
    groups: int,
    around: Sequence[tuple[int, int]],
) -> np.ndarray:
    """One product for each place in the kernel, added up: [n, c, *d], [o, c / groups, *k] -> [n, o, *d']."""
    x = np.pad(x, [(0, 0), (0, 0), *around])
    kernel = weight.shape[2:]
    sizes = [
        (size - (k - 1) * dilation - 1) // stride + 1
        for size, k, dilation, stride in zip(x.shape[2:], kernel, dilations, strides, strict=True)
    ]
    result = np.zeros((len(x), len(weight), *sizes))
    c, o = weight.shape[1], len(weight) // groups
    for place in np.ndindex(*kernel):
        window = tuple(
            slice(p * dilation, p * dilation + (size - 1) * stride + 1, stride)
            for p, dilation, size, stride in zip(place, dilations, sizes, strides, strict=True)
        )
        for g in range(groups):
            part = x[(slice(None), slice(g * c, (g + 1) * c), *window)]
            taps = weight[(slice(g * o, (g + 1) * o), slice(None), *place)]
            result[:, g * o : (g + 1) * o] += np.einsum("nc...,oc->no...", part, taps)
    return result


def _conv_transpose(draw: Draw) -> OneOperator:
    """Same padding cuts the odd one after the data, as TensorFlow does: coremltools follows its shape logic."""
    rank = draw.turn([2, 1, 2])
    pad_type = draw.turn(["valid", "custom", "same", "custom", "valid"])
    groups = draw.turn([1, 2])
    c_in, c_out = groups * draw.integer(1, 2), groups * draw.integer(1, 3)
    strides = [draw.integer(1, 3) for _ in range(rank)]
    dilations = [draw.integer(1, 2) for _ in range(rank)]
    kernel = [max(draw.integer(1, 4), strides[i]) for i in range(rank)]
    x = draw.floats((draw.integer(1, 2), c_in, *[draw.integer(2, 5) for _ in range(rank)]))
    weight = draw.floats((c_in, c_out // groups, *kernel), -1, 1)
    attributes: dict[str, Any] = {"pad_type": pad_type, "strides": strides, "dilations": dilations, "groups": groups}
    full = [
        (size - 1) * stride + (k - 1) * dilation + 1
        for size, stride, k, dilation in zip(x.shape[2:], strides, kernel, dilations, strict=True)
    ]
    custom = [draw.integer(0, 1) if full[i // 2] > 2 else 0 for i in range(2 * rank)]
    if pad_type == "custom":
        attributes["pad"] = custom
    if draw.seed % 2:
        attributes["bias"] = draw.floats((c_out,))
    cut = []
    for i, size in enumerate(full):
        total = size - x.shape[2 + i] * strides[i] if pad_type == "same" else 0
        cut.append((total // 2, total - total // 2) if pad_type != "custom" else (custom[2 * i], custom[2 * i + 1]))
    expected = _spread(wide(x), wide(weight), strides, dilations, groups, full)
    expected = expected[
        (slice(None), slice(None), *(slice(a, size - b) for (a, b), size in zip(cut, full, strict=True)))
    ]
    if draw.seed % 3 == 2:
        attributes["output_shape"] = list(expected.shape)
    if "bias" in attributes:
        expected = expected + wide(attributes["bias"]).reshape(-1, *[1] * rank)
    return OneOperator(
        lambda x: _mb().conv_transpose(x=x, weight=weight, **attributes), {"x": x}, draw.rounded(expected), RTOL
    )


def _spread(
    x: np.ndarray,
    weight: np.ndarray,
    strides: Sequence[int],
    dilations: Sequence[int],
    groups: int,
    full: Sequence[int],
) -> np.ndarray:
    """Each input value adds its kernel to the output: [n, c, *d], [c, o / groups, *k] -> [n, o, *full]."""
    c, o = len(weight) // groups, weight.shape[1]
    result = np.zeros((len(x), o * groups, *full))
    for place in np.ndindex(*weight.shape[2:]):
        where = tuple(
            slice(p * dilation, p * dilation + (size - 1) * stride + 1, stride)
            for p, dilation, size, stride in zip(place, dilations, x.shape[2:], strides, strict=True)
        )
        for g in range(groups):
            taps = weight[(slice(g * c, (g + 1) * c), slice(None), *place)]
            part = np.einsum("nc...,co->no...", x[:, g * c : (g + 1) * c], taps)
            result[(slice(None), slice(g * o, (g + 1) * o), *where)] += part
    return result


def _einsum(draw: Draw) -> OneOperator:
    b, c, h, w1, w2 = (draw.integer(1, 5) for _ in range(5))
    equation = draw.turn(["nchw,nwhu->nchu", "chw,whr->chr", "abcd,adce->abce"])
    x_shape, y_shape = [b, c, h, w1], [b, w1, h, w2]
    draw.turn([x_shape, y_shape])[2] = draw.any([1, h])  # broadcast
    if equation.index(",") == 3:
        x_shape, y_shape = x_shape[1:], y_shape[1:]
    x, y = draw.floats(x_shape), draw.floats(y_shape)
    # [.., c, h, w1, 1] * [.., 1, h, w1, w2], summed over w1
    expected = (wide(x)[..., None] * np.swapaxes(wide(y), -3, -2)[..., None, :, :, :]).sum(-2)
    return OneOperator(
        lambda x, y: _mb().einsum(values=(x, y), equation=equation), {"x": x, "y": y}, draw.rounded(expected), RTOL
    )


def _attention(draw: Draw) -> OneOperator:
    batch = draw.shape(1, 2, most=3)
    tokens, sources, e, ev = (draw.integer(1, 6) for _ in range(4))
    inputs = {
        "query": draw.floats((*batch, tokens, e)),
        "key": draw.floats((*batch, sources, e)),
        "value": draw.floats((*batch, sources, ev)),
    }
    scores = (wide(inputs["query"])[..., :, None, :] * wide(inputs["key"])[..., None, :, :]).sum(-1) / math.sqrt(e)
    kind = draw.turn(["none", "bool", "float"])
    if kind == "bool":
        inputs["attn_mask"] = draw.bools((*batch, tokens, sources))
        inputs["attn_mask"][..., 0] = True
        scores = np.where(inputs["attn_mask"], scores, -np.inf)
    elif kind == "float":
        inputs["attn_mask"] = draw.floats((tokens, sources))
        scores = scores + wide(inputs["attn_mask"])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    expected = (weights[..., None] * wide(inputs["value"])[..., None, :, :]).sum(-2)
    return OneOperator(
        lambda **v: _mb().scaled_dot_product_attention(**v), inputs, draw.rounded(expected), RTOL, opset="iOS18"
    )


PRODUCTS: dict[str, Generator] = {
    "linear": _linear,
    "matmul": _matmul,
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "einsum": _einsum,
    "scaled_dot_product_attention": _attention,
}
