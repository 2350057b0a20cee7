"""Fake quantization as a module of the training graph: a tensor in, the tensor rounded to its int8 grid out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchao.quantization.pt2e.fake_quantize import FakeQuantize

from pipeline.quantization import rounding


class EdgeFakeQuantize(FakeQuantize):
    """torchao's FakeQuantize with the same numbers, arguments and state dict, and with ranges that can be trained.

    Scale and zero point in the buffers are what is rounded to and what is converted. The observer sets them, or the
    parameters do, as long as `observing`.

    Attributes:
        observing, rounding: the two switches, as Python values beside their buffers: a look at the buffers in every
            forward pass would wait for a GPU.
        log_scale: [1], None unless the range is trained. The logarithm, because Adam's steps do not know the size of
            what they change (Jain et al. 2020, "Trained quantization thresholds", section 3).
        offset: [1], the zero point in units of the whole range; None also for a symmetric range.
        sources: how many tensors are observed in a forward pass; their range is that of all of them together.
    """

    log_scale: nn.Parameter | None
    offset: nn.Parameter | None

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.observing = self.rounding = True
        self.sources = 1
        self._waiting: list[Tensor] = []
        self.register_parameter("log_scale", None)
        self.register_parameter("offset", None)

    def enable_observer(self, enabled: bool = True) -> None:
        super().enable_observer(enabled)
        self.observing = bool(enabled)
        self.settle()

    def enable_fake_quant(self, enabled: bool = True) -> None:
        super().enable_fake_quant(enabled)
        self.rounding = bool(enabled)

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """Scale and zero point that are rounded to: [1], of a weight [channels]."""
        return self.scale.detach().clone(), self.zero_point.detach().to(torch.int64)

    def forward(self, x: Tensor, observe: bool = True) -> Tensor:
        if self.observing:
            if self.log_scale is not None:
                self.settle()
            elif observe:
                self._observe(x.detach())
        return self.rounded(x) if self.rounding else x

    def _observe(self, x: Tensor) -> None:
        observer = self.activation_post_process
        if self.sources > 1:
            self._waiting.append(x.flatten())
            x = torch.cat(self._waiting)
            if len(self._waiting) < self.sources:
                if bool(torch.isinf(observer.min_val)):  # nothing to go on with until all of them were seen
                    self.take(*observer._calculate_qparams(*torch.aminmax(x)))
                return
            self._waiting = []
        observer(x)
        self.take(*observer.calculate_qparams())

    def take(self, scale: Tensor, zero_point: Tensor) -> None:
        """Set scale and zero point."""
        if self.scale.shape != scale.shape:
            self.scale.resize_(scale.shape)
            self.zero_point.resize_(zero_point.shape)
        self.scale.copy_(scale)
        self.zero_point.copy_(zero_point)

    def rounded(self, x: Tensor) -> Tensor:
        """`x` on the grid, in float32 under autocast too: the grid has more digits than bfloat16."""
        low, high = self.activation_post_process.quant_min, self.activation_post_process.quant_max
        x = x.float()
        if self.log_scale is not None and self.observing:
            zero_point = self.zero_point if self.offset is None else self.offset * (high - low)
            return rounding.learned(x, self.log_scale, zero_point, low, high)
        # On a GPU the number of kernels counts, and reading the scale would wait for it.
        if x.is_cuda or torch.compiler.is_compiling():
            if self.is_per_channel:
                return torch.fake_quantize_per_channel_affine(x, self.scale, self.zero_point, self.ch_axis, low, high)
            return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero_point, low, high)
        if self.is_per_channel:
            return rounding.per_channel(x, self.scale, self.zero_point, self.ch_axis, low, high)
        return rounding.per_tensor(x, float(self.scale), int(self.zero_point), low, high)

    def learn(self) -> None:
        """Make parameters of the range as it is."""
        low, high = self.activation_post_process.quant_min, self.activation_post_process.quant_max
        self.log_scale = nn.Parameter(self.scale.detach().log())
        if self.qscheme == torch.per_tensor_affine:
            self.offset = nn.Parameter(self.zero_point.detach().float() / (high - low))

    def freeze(self) -> None:
        """Give up the parameters; the range they had stays."""
        self.settle()
        self.log_scale = self.offset = None

    @torch.no_grad()
    def settle(self) -> None:
        """Bring trained parameters to what a grid can have, and take scale and zero point from them."""
        if self.log_scale is None:
            return
        low, high = self.activation_post_process.quant_min, self.activation_post_process.quant_max
        self.log_scale.copy_(torch.maximum(self.log_scale, self.activation_post_process.eps.log()))
        zero_point = self.zero_point
        if self.offset is not None:
            self.offset.clamp_(low / (high - low), high / (high - low))
            zero_point = (self.offset * (high - low)).round()
        self.take(self.log_scale.exp(), zero_point)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.observing, self.rounding = bool(self.observer_enabled[0]), bool(self.fake_quant_enabled[0])
