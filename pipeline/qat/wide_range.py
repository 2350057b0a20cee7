"""The observer of 16-bit activations: tensors seen during calibration in, a symmetric range out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchao.quantization.pt2e.fake_quantize import FakeQuantize

from pipeline.qat.fake_quantize import EdgeFakeQuantize
from pipeline.qat.observers import SCALE_EPSILON, MovingRangeObserver

#: TFLite's int16 kernels want a zero point of zero (8-bit quantization specification, "16x8"). -32768 is left out, as
#: -128 is in weights.
WIDE_MAX = 32767


class SymmetricRangeObserver(MovingRangeObserver):
    """As MovingRangeObserver; the range reaches as far below zero as above."""

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """Scale and zero point of zero, both [1]; a scale of 1 before anything was seen."""
        largest = torch.maximum(-self.min_val, self.max_val)
        scale = torch.maximum(largest / float(self.quant_max), self.eps)
        scale = torch.where(torch.isinf(self.min_val), 1.0, scale).reshape(1)
        return scale, torch.zeros_like(scale, dtype=torch.int32)


#: Whatever --observer says: clipping is worth nothing where a step is 1/256 of int8's. The smallest range is the same
#: as with int8.
WIDE_OBSERVER: Callable[[], FakeQuantize] = EdgeFakeQuantize.with_args(
    observer=SymmetricRangeObserver, eps=SCALE_EPSILON / 256
)
