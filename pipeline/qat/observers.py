"""Activation observers by name: tensors seen during calibration and training in, a quantization range out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchao.quantization.pt2e.fake_quantize import FakeQuantize
from torchao.quantization.pt2e.observer import HistogramObserver, MovingAverageMinMaxObserver

#: Ranges below this are not told apart from an always-zero tensor. Core ML stores scales in half precision, where
#: this has 8 bits left (its smallest number is 6e-8).
SCALE_EPSILON = 2.0**-16


class MeanSquaredErrorObserver(MovingAverageMinMaxObserver):
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
        low, high = self._best_range(x[:: max(1, x.numel() // self.samples)], *torch.aminmax(x))
        first_batch = bool(torch.isinf(self.min_val))
        constant = 1.0 if first_batch else self.averaging_constant
        start_low = low if first_batch else self.min_val
        start_high = high if first_batch else self.max_val
        self.min_val.copy_(start_low + constant * (low - start_low))
        self.max_val.copy_(start_high + constant * (high - start_high))
        return x_orig

    def _best_range(self, x: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        best_error, best = float("inf"), (low, high)
        for shrink in torch.linspace(1.0, self.smallest, self.candidates).tolist():
            scale, zero_point = self._calculate_qparams(low * shrink, high * shrink)
            quantized = torch.fake_quantize_per_tensor_affine(
                x, float(scale), int(zero_point), self.quant_min, self.quant_max
            )
            error = float((quantized - x).square().mean())
            if error < best_error:
                best_error, best = error, (low * shrink, high * shrink)
        return best


#: The choices of --observer. The constructors get dtype, range and qscheme from the quantization spec.
OBSERVERS: dict[str, Callable[[], FakeQuantize]] = {
    "moving-average": FakeQuantize.with_args(observer=MovingAverageMinMaxObserver, eps=SCALE_EPSILON),
    "histogram": FakeQuantize.with_args(observer=HistogramObserver, eps=SCALE_EPSILON),
    "mse": FakeQuantize.with_args(observer=MeanSquaredErrorObserver, eps=SCALE_EPSILON),
}
