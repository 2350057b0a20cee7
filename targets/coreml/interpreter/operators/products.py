"""Matrix products."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from targets.coreml.interpreter.arithmetic import Arithmetic, Unsupported


def linear(a: Arithmetic, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """[..., D_in] with [D_out, D_in] -> [..., D_out]."""
    result = matmul(a, x, weight, transpose_y=True)
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
