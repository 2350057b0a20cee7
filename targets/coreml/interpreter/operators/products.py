"""Matrix products and convolutions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from targets.coreml.interpreter.operators.unsupported import Unsupported
from targets.coreml.interpreter.operators.windows import padding
from targets.coreml.interpreter.rounding import Arithmetic


def linear(a: Arithmetic, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """[..., D_in] with [D_out, D_in] -> [..., D_out]."""
    if not x.is_floating_point():
        return x @ weight.T if bias is None else x @ weight.T + bias
    result = a.product(x.unsqueeze(0) if x.dim() == 1 else x, weight.T)
    result = result.squeeze(0) if x.dim() == 1 else result
    return result if bias is None else result + bias


def matmul(a: Arithmetic, x: Tensor, y: Tensor, transpose_x: bool = False, transpose_y: bool = False) -> Tensor:
    """numpy's rules; a vector is not transposed."""
    left = x.unsqueeze(0) if x.dim() == 1 else x.transpose(-1, -2) if transpose_x else x
    right = y.unsqueeze(1) if y.dim() == 1 else y.transpose(-1, -2) if transpose_y else y
    result = a.product(left, right) if left.is_floating_point() else left @ right
    if x.dim() == 1:
        result = result.squeeze(-2)
    return result.squeeze(-1) if y.dim() == 1 else result


def einsum(a: Arithmetic, values: list[Tensor], equation: str) -> Tensor:
    """Two operands, as one batched matrix product; a dimension of 1 is broadcast."""
    left, right, out = _labels(equation, len(values))
    x, y = values
    sizes = dict(zip(left, x.shape, strict=True))
    sizes |= {label: max(n, sizes.get(label, 1)) for label, n in zip(right, y.shape, strict=True)}
    batch = [label for label in left if label in right and label in out]
    summed = [label for label in left if label in right and label not in out]
    rows = [label for label in left if label not in right]
    columns = [label for label in right if label not in left]

    def arranged(value: Tensor, labels: str, *groups: list[str]) -> Tensor:
        order = [labels.index(label) for group in groups for label in group]
        value = value.expand([sizes[label] for label in labels])
        return value.permute(order).reshape([math.prod(sizes[label] for label in group) for group in groups])

    result = a.product(arranged(x, left, batch, rows, summed), arranged(y, right, batch, summed, columns))
    found = [*batch, *rows, *columns]
    result = result.reshape([sizes[label] for label in found])
    return result.permute([found.index(label) for label in out])


def _labels(equation: str, operands: int) -> tuple[str, str, str]:
    sides = equation.replace(" ", "").split("->")
    inputs = sides[0].split(",")
    if len(sides) != 2 or len(inputs) != 2 or operands != 2:
        raise Unsupported(f"einsum {equation!r} of {operands} operands: two operands and an output are known")
    left, right, out = *inputs, sides[1]
    once = all(len(set(labels)) == len(labels) for labels in (left, right, out))
    alone = [label for label in {*left, *right} if (label in left) != (label in right) and label not in out]
    if not once or alone or not set(out) <= {*left, *right} or "." in equation:
        raise Unsupported(f"einsum {equation!r}: diagonals, ellipses and sums over one operand are not known")
    return left, right, out


def scaled_dot_product_attention(
    a: Arithmetic, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None
) -> Tensor:
    """softmax(query @ key^T / sqrt(d) + mask) @ value; False in a mask of bools takes a position out."""
    scores = a.keep(a.product(query, key.transpose(-1, -2)) / math.sqrt(query.shape[-1]))
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, -math.inf)
        else:
            scores = a.keep(scores + attn_mask)
    powers = a.keep(torch.exp(a.keep(scores - scores.amax(-1, keepdim=True))))
    return a.product(a.keep(powers / a.total(powers, [-1], keepdim=True)), value)


def conv(
    a: Arithmetic,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    strides: list[int] | None = None,
    pad_type: str = "valid",
    pad: list[int] | None = None,
    dilations: list[int] | None = None,
    groups: int = 1,
) -> Tensor:
    """[N, C_in, *D] with [C_out, C_in / groups, *K] -> [N, C_out, *D']."""
    rank = weight.dim() - 2
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    around = padding(pad_type, pad, x.shape[2:], weight.shape[2:], strides, dilations)
    result = a.convolve(_padded(x, around), weight, strides, dilations, groups)
    return _with_bias(result, bias)


def conv_transpose(
    a: Arithmetic,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    pad: list[int] | None = None,
    output_shape: list[int] | None = None,
    pad_type: str = "valid",
    strides: list[int] | None = None,
    dilations: list[int] | None = None,
    groups: int = 1,
) -> Tensor:
    """[N, C_in, *D] with [C_in, C_out / groups, *K] -> [N, C_out, *D'].

    A convolution of the image with zeros between its pixels, with each kernel turned around.
    """
    rank = weight.dim() - 2
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    reach = [(k - 1) * d for k, d in zip(weight.shape[2:], dilations, strict=True)]
    whole = [(n - 1) * s + r + 1 for n, s, r in zip(x.shape[2:], strides, reach, strict=True)]
    before, size = _transposed_window(pad_type, pad, output_shape, x.shape[2:], whole, strides)
    spread = x.new_zeros(*x.shape[:2], *[(n - 1) * s + 1 for n, s in zip(x.shape[2:], strides, strict=True)])
    every = tuple(slice(None, None, s) for s in strides)
    spread[(slice(None), slice(None), *every)] = x
    # Enough zeros for every position of the output; a negative number takes pixels away.
    around = [(r - b, b + n - w + r) for r, b, n, w in zip(reach, before, size, whole, strict=True)]
    c_in, c_out = weight.shape[0], weight.shape[1] * groups
    kernels = weight.flip(*range(2, 2 + rank)).reshape(groups, c_in // groups, c_out // groups, *weight.shape[2:])
    kernels = kernels.transpose(1, 2).reshape(c_out, c_in // groups, *weight.shape[2:])
    return _with_bias(a.convolve(_padded(spread, around), kernels, [1] * rank, dilations, groups), bias)


def _transposed_window(
    pad_type: str,
    pad: list[int] | None,
    output_shape: list[int] | None,
    size: Sequence[int],
    whole: Sequence[int],
    strides: Sequence[int],
) -> tuple[list[int], list[int]]:
    """Where the output begins in the whole transposed convolution, and its size, for each spatial dimension."""
    if pad_type == "valid":
        before, found = [0] * len(whole), list(whole)
    elif pad_type == "custom" and pad is not None:
        before = list(pad[::2])
        found = [w - pad[2 * i] - pad[2 * i + 1] for i, w in enumerate(whole)]
    elif pad_type == "same":
        found = [n * s for n, s in zip(size, strides, strict=True)] if output_shape is None else output_shape[2:]
        before = [max(w - n, 0) // 2 for w, n in zip(whole, found, strict=True)]
    else:
        raise Unsupported(f"conv_transpose with pad_type {pad_type!r} and pad {pad}")
    return before, found if output_shape is None else list(output_shape[2:])


def _padded(x: Tensor, around: Sequence[tuple[int, int]]) -> Tensor:
    return functional.pad(x, [n for pair in reversed(around) for n in pair])


def _with_bias(x: Tensor, bias: Tensor | None) -> Tensor:
    return x if bias is None else x + bias.reshape(-1, *[1] * (x.dim() - 2))
