"""How the reference computes: its rounding models, and the arithmetic of one operator under one of them.

What Apple's units do inside of an operator is not documented. The three models span what is plausible: everything in
single precision; tensors stored in half precision, sums inside of an operator in single precision; and sums in half
precision too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from targets.types import RangeKind


class Unsupported(ValueError):
    """An attribute, dtype or shape that the documentation does not define or this reference does not know."""


@dataclass(frozen=True)
class Rounding:
    """A rounding model for tensors that the program declares as fp16. fp32 tensors are fp32 in every model.

    Attributes:
        half_storage: the result of each operator is rounded to half precision.
        half_sums: so are the steps inside of an operator, and a running sum after every `terms` terms.
        terms: that are added exactly before the running sum is rounded; a matrix unit adds several products at once,
            how many is not documented. 1 is the most pessimistic.
    """

    name: str
    half_storage: bool = False
    half_sums: bool = False
    terms: int = 32


FP32 = Rounding("fp32")
FP16 = Rounding("fp16", half_storage=True)
FP16_ACCUMULATE = Rounding("fp16-accumulate", half_storage=True, half_sums=True)
ROUNDINGS = (FP32, FP16, FP16_ACCUMULATE)


def to_half(x: Tensor) -> Tensor:
    """float32 -> float32 with values of half precision (round to nearest even; beyond 65504 is infinity)."""
    # numpy's way back to float32 is faster than torch's.
    return torch.from_numpy(np.asarray(x.half().numpy().astype(np.float32)))


@dataclass
class RangeCounts:
    """Numbers that left the range of their format, by (operator name, type, kind), in the order of the program.

    NaN is counted where it first appears for an image; every operator behind it has it too.
    """

    counts: dict[tuple[str, str, RangeKind], int] = field(default_factory=dict)
    poisoned: bool = False

    def add(self, operator: str, op_type: str, kind: RangeKind, count: int) -> None:
        if kind == "nan":
            count, self.poisoned = 0 if self.poisoned else count, self.poisoned or count > 0
        if count:
            key = (operator, op_type, kind)
            self.counts[key] = self.counts.get(key, 0) + count


@dataclass(frozen=True)
class Arithmetic:
    """What one operator computes with. `half`: it works on fp16 tensors under a model that rounds these."""

    rounding: Rounding
    half: bool
    operator: str = ""
    op_type: str = ""
    ranges: RangeCounts | None = None

    @property
    def half_sums(self) -> bool:
        return self.half and self.rounding.half_sums

    def keep(self, x: Tensor) -> Tensor:
        """A value between two steps inside of an operator."""
        return to_half(x) if self.half_sums else x

    def store(self, x: Tensor) -> Tensor:
        """A result of the operator, rounded to the precision it is declared in."""
        if not self.half:
            return x
        stored = to_half(x)
        if self.ranges is not None:
            self._note("vanished", int(torch.count_nonzero(x) - torch.count_nonzero(stored)))
            if not torch.isfinite(stored.sum()):  # numbers below 65505 have no infinite sum
                self._note("overflowed", int((stored.isinf() & ~x.isinf()).sum()))
                self._note("nan", int(stored.isnan().sum()))
        return stored

    def saturated(self, count: int) -> None:
        """Note numbers that an integer format had to clip."""
        self._note("saturated", count)

    def _note(self, kind: RangeKind, count: int) -> None:
        if self.ranges is not None:
            self.ranges.add(self.operator, self.op_type, kind, count)

    def total(self, x: Tensor, dims: Sequence[int], keepdim: bool = False) -> Tensor:
        """Sum over `dims`; with `half_sums` a running sum, rounded after every `terms` terms."""
        dims = sorted(d % x.dim() for d in dims)
        if not dims:
            return x
        if not self.half_sums:
            return x.sum(dims, keepdim=keepdim)
        kept = [d for d in range(x.dim()) if d not in dims]
        flat = x.permute(*kept, *dims).flatten(len(kept))  # [..., terms]
        result = torch.zeros_like(flat[..., 0])
        for part in flat.split(self.rounding.terms, dim=-1):
            result = to_half(result + part.sum(-1))
        for d in dims if keepdim else ():
            result = result.unsqueeze(d)
        return result

    def product(self, x: Tensor, y: Tensor) -> Tensor:
        """[..., M, K] @ [..., K, N] -> [..., M, N], batch dimensions broadcast."""
        if not self.half_sums:
            return x @ y
        terms = self.rounding.terms
        result: Tensor | None = None
        for left, right in zip(x.split(terms, dim=-1), y.split(terms, dim=-2), strict=True):
            part = left @ right
            result = to_half(part if result is None else result + part)
        assert result is not None
        return result

    def convolve(
        self, x: Tensor, weight: Tensor, strides: Sequence[int], dilations: Sequence[int], groups: int
    ) -> Tensor:
        """[N, C, *D] with [O, C / groups, *K] -> [N, O, *D'], without padding, 1 to 3 spatial dimensions."""
        rank = weight.dim() - 2
        if not self.half_sums:
            operators = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
            return operators[rank](x, weight, None, list(strides), 0, list(dilations), groups)
        patches = _patches(x, weight.shape[2:], strides, dilations)  # [N, C, *D', K]
        n, c = patches.shape[:2]
        size = patches.shape[2:-1]
        # [N, G, 1, D', C/G * K] and [G, C/G * K, O/G] -> [N, G, D', O/G]
        columns = patches.reshape(n, groups, c // groups, size.numel(), -1).transpose(2, 3).flatten(3)
        kernels = weight.reshape(groups, weight.shape[0] // groups, -1).transpose(1, 2)
        return self.product(columns, kernels).transpose(2, 3).reshape(n, weight.shape[0], *size)


def _patches(x: Tensor, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> Tensor:
    """[N, C, *D] -> [N, C, *D', prod(kernel)], each position with the pixels under its kernel in row-major order."""
    rank = len(kernel)
    for axis, (size, stride, dilation) in enumerate(zip(kernel, strides, dilations, strict=True)):
        # unfold takes neighbours; every `dilation`-th of them is under the kernel.
        x = x.unfold(2 + axis, (size - 1) * dilation + 1, stride)[..., ::dilation]
    return x.flatten(2 + rank)
