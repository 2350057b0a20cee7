"""Observers by name: tensors seen during calibration and training in, a quantization range out.

In data-parallel training every process sees its shard of a batch, and observers give the range of the whole batch:
otherwise each process would round on a grid of its own.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch import distributed as dist
from torchao.quantization.pt2e.fake_quantize import FakeQuantize
from torchao.quantization.pt2e.observer import (
    HistogramObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
)

from pipeline.quantization.fake_quantize import EdgeFakeQuantize

#: Ranges below this are not told apart from an always-zero tensor. Core ML stores scales in half precision, where
#: this has 8 bits left (its smallest number is 6e-8).
SCALE_EPSILON = 2.0**-16


class MovingRangeObserver(MovingAverageMinMaxObserver):
    """Moving average of the smallest and the largest value of each batch; no branch waits for the device."""

    def forward(self, x_orig: Tensor) -> Tensor:
        if x_orig.numel():
            low, high = torch.aminmax(x_orig.detach().float())
            self.average(*_of_all_processes(low, high))
        return x_orig

    def average(self, low: Tensor, high: Tensor) -> None:
        """Move the range towards that of a batch; the first batch sets it."""
        first = torch.isinf(self.min_val)
        for mean, seen in ((self.min_val, low), (self.max_val, high)):
            mean.copy_(torch.where(first, seen, mean + self.averaging_constant * (seen - mean)))

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """Scale and zero point, both [1]; 1 and 0 before anything was seen. The range always holds zero."""
        low, high = self.min_val.clamp(max=0.0), self.max_val.clamp(min=0.0)
        scale = torch.maximum((high - low) / float(self.quant_max - self.quant_min), self.eps)
        zero_point = torch.clamp(self.quant_min - torch.round(low / scale), self.quant_min, self.quant_max)
        unseen = torch.isinf(self.min_val)
        scale, zero_point = torch.where(unseen, 1.0, scale), torch.where(unseen, 0.0, zero_point)
        return scale.reshape(1), zero_point.to(torch.int32).reshape(1)


class MeanSquaredErrorObserver(MovingRangeObserver):
    """Moving average of the clipped range that quantizes each batch with the least mean squared error.

    Each batch tries `candidates` ranges from the full min-max down to `smallest` of it (the grid search of
    Choukroun et al. 2019, "Low-bit Quantization of Neural Networks for Efficient Inference", section 3.1) on at
    most `samples` evenly spaced elements.
    """

    candidates = 32
    smallest = 0.3
    samples = 1 << 16

    def forward(self, x_orig: Tensor) -> Tensor:
        if x_orig.numel() == 0:
            return x_orig
        x = x_orig.detach().float().flatten()
        low, high = _of_all_processes(*torch.aminmax(x))
        self.average(*self._best_range(x[:: max(1, x.numel() // self.samples)], low, high))
        return x_orig

    def _best_range(self, x: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        shrinks = torch.linspace(1.0, self.smallest, self.candidates).tolist()
        errors = torch.stack([self._error(x, low * shrink, high * shrink) for shrink in shrinks])
        if _processes() > 1:  # equal shards: the sum of their means ranks as the mean over all of them
            dist.all_reduce(errors)
        shrink = shrinks[int(errors.argmin())]  # the first, widest, of equal ones
        return low * shrink, high * shrink

    def _error(self, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Mean squared rounding error over the range from `low` to `high`, float64 []."""
        scale, zero_point = self._calculate_qparams(low, high)
        first, last = self.quant_min - zero_point, self.quant_max - zero_point
        return ((x / scale).round().clamp(first, last) * scale - x).square().mean(dtype=torch.float64)


class PercentileObserver(MovingRangeObserver):
    """Moving average of the range that holds all of a batch but a share of `tail` at either end (Wu et al. 2020,
    "Integer Quantization for Deep Learning Inference", section 5.3), of at most `samples` evenly spaced elements.

    In data-parallel training the widest range of all shards counts.
    """

    tail = 1e-4
    samples = 1 << 20

    def forward(self, x_orig: Tensor) -> Tensor:
        if x_orig.numel():
            x = x_orig.detach().float().flatten()
            ends = x[:: max(1, x.numel() // self.samples)].sort().values
            cut = int(self.tail * ends.numel())
            self.average(*_of_all_processes(ends[cut], ends[-1 - cut]))
        return x_orig


class GlobalHistogramObserver(HistogramObserver):
    """torch's histogram observer; in data-parallel training it sees the shards of all processes.

    They are gathered whole, which is slow: a histogram cannot be merged with others exactly once its bins are fixed.
    """

    def forward(self, x_orig: Tensor) -> Tensor:
        if x_orig.numel() and _processes() > 1:
            shards = [torch.empty_like(x_orig).contiguous() for _ in range(_processes())]
            dist.all_gather(shards, x_orig.detach().contiguous())
            super().forward(torch.cat(shards))
        else:
            super().forward(x_orig)
        return x_orig


class WeightRangeObserver(MovingAveragePerChannelMinMaxObserver):
    """Range of each channel of the current weights, never of past ones."""

    def forward(self, x_orig: Tensor) -> Tensor:
        rows = x_orig.detach().float().movedim(self.ch_axis, 0).flatten(start_dim=1)  # [channels, values]
        low, high = torch.aminmax(rows, dim=1)
        for kept, seen in ((self.min_val, low), (self.max_val, high)):
            kept.resize_(seen.shape).copy_(seen)
        return x_orig

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """Symmetric scale and zero points of zero, both [channels]; [1] with a scale of 1 before anything was seen."""
        if self.min_val.numel() == 0:
            return super().calculate_qparams()
        largest = torch.maximum(-self.min_val, self.max_val)
        scale = torch.maximum(largest / (float(self.quant_max - self.quant_min) / 2), self.eps)
        return scale, torch.zeros_like(scale, dtype=torch.int32)


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _of_all_processes(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest `low` and the largest `high` of all processes."""
    if _processes() == 1:
        return low, high
    ends = torch.stack([-low, high])
    dist.all_reduce(ends, op=dist.ReduceOp.MAX)
    return -ends[0], ends[1]


#: The choices of --observer. The constructors get dtype, range and qscheme from the quantization spec.
OBSERVERS: dict[str, Callable[[], FakeQuantize]] = {
    "moving-average": EdgeFakeQuantize.with_args(observer=MovingRangeObserver, eps=SCALE_EPSILON),
    "histogram": EdgeFakeQuantize.with_args(observer=GlobalHistogramObserver, eps=SCALE_EPSILON),
    "percentile": EdgeFakeQuantize.with_args(observer=PercentileObserver, eps=SCALE_EPSILON),
    "mse": EdgeFakeQuantize.with_args(observer=MeanSquaredErrorObserver, eps=SCALE_EPSILON),
}
#: Of weights.
WEIGHT_OBSERVER: Callable[[], FakeQuantize] = EdgeFakeQuantize.with_args(
    observer=WeightRangeObserver, eps=SCALE_EPSILON
)


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
