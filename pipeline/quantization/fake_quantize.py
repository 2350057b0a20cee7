"""Fake quantization as a module of the training graph: a tensor in, the tensor rounded to its int8 grid out.

Every `rounded_` function computes (clamp(round(x / scale) + zero_point, low, high) - zero_point) * scale with the
reciprocal of the scale in float32, as the runtimes and the QDQ operators do. Its gradient is straight-through: that of
x passes inside of the range (Bengio et al. 2013, "Estimating or propagating gradients through stochastic neurons").

torch has operators for it; on a CPU they are not vectorised, and take about fourteen times as long.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torchao.quantization.pt2e.fake_quantize import FakeQuantize


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
            return rounded_learned(x, self.log_scale, zero_point, low, high)
        # On a GPU the number of kernels counts, and reading the scale would wait for it.
        if x.is_cuda or torch.compiler.is_compiling():
            if self.is_per_channel:
                return torch.fake_quantize_per_channel_affine(x, self.scale, self.zero_point, self.ch_axis, low, high)
            return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero_point, low, high)
        if self.is_per_channel:
            return rounded_per_channel(x, self.scale, self.zero_point, self.ch_axis, low, high)
        return rounded_per_tensor(x, float(self.scale), int(self.zero_point), low, high)

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


#: A number, or a tensor that broadcasts with what is rounded.
Grid = float | Tensor


def rounded_per_tensor(x: Tensor, scale: float, zero_point: int, low: int, high: int) -> Tensor:
    """One grid for all of `x`; scale and zero point get no gradient."""
    return _PerTensor.apply(x, scale, low - zero_point, high - zero_point)


def rounded_per_channel(x: Tensor, scale: Tensor, zero_point: Tensor, axis: int, low: int, high: int) -> Tensor:
    """A grid for each channel along `axis`, scale and zero point [channels]; these get no gradient."""
    shape = [1] * x.dim()
    shape[axis] = -1
    return _PerChannel.apply(x, scale.view(shape), zero_point.view(shape), low, high)


def rounded_learned(x: Tensor, log_scale: Tensor, zero_point: Tensor, low: int, high: int) -> Tensor:
    """One grid for all of `x`, which gets gradients.

    With t = x / scale, of y = (clamp(round(t) + z) - z) scale: dy/dscale = round(t) - t inside of the range and the
    last step outside of it (Esser et al. 2020, "Learned step size quantization", equation 3), dy/dz = 0 and -scale
    (Bhalgat et al. 2020, "LSQ+", section 3.1, with an integer offset, which all runtimes have). Both gradients are
    divided by the root of (values of one image x steps of the range): Esser et al., section 2.2.

    Args:
        log_scale: [1], natural logarithm of the scale.
        zero_point: [1], an integer, or a real number that is rounded here.
    """
    return _Learned.apply(x, log_scale, zero_point, low, high)


def _round(x: Tensor, scale: Grid, low: Grid, high: Grid) -> Tensor:
    reciprocal = 1.0 / scale if isinstance(scale, Tensor) or scale else math.nan
    return x.mul(reciprocal).round_().clamp_(low, high).mul_(scale)  # type: ignore[arg-type]


def _inside(gradient: Tensor, x: Tensor, scale: Grid, low: Grid, high: Grid) -> Tensor:
    """The gradient where `x` is not clamped, else 0."""
    first, last = (low - 0.5) * scale, (high + 0.5) * scale
    if isinstance(first, Tensor):
        return torch.where((x > first) & (x < last), gradient, 0.0)
    # Of all operators that do this the one with a vectorised kernel.
    return torch.ops.aten.hardtanh_backward(gradient, x, first, last)


class _PerTensor(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float, low: int, high: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.grid = scale, low, high
        return _round(x, scale, low, high)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (x,) = ctx.saved_tensors
        return _inside(gradients[0], x, *ctx.grid), None, None, None


class _PerChannel(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor, low: int, high: int) -> Tensor:
        first, last = low - zero_point, high - zero_point
        ctx.save_for_backward(x, scale, first, last)
        return _round(x, scale, first, last)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        x, scale, first, last = ctx.saved_tensors
        return _inside(gradients[0], x, scale, first, last), None, None, None, None


class _Learned(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, log_scale: Tensor, zero_point: Tensor, low: int, high: int) -> Tensor:
        scale, offset = log_scale.exp(), zero_point.round()
        grid: tuple[Grid, Grid, Grid] = scale, low - offset, high - offset
        if not x.is_cuda:  # where reading them would wait for the device
            grid = float(scale), float(low - offset), float(high - offset)
        ctx.save_for_backward(x)
        ctx.grid, ctx.steps = grid, high - low
        return _round(x, *grid)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        (x,) = ctx.saved_tensors
        gradient = gradients[0]
        passed = _inside(gradient, x, *ctx.grid)
        # scale * dy/dscale is y - x inside, y outside; the gradient of the logarithm is that of the scale times it.
        of_scale = _dot(gradient, _round(x, *ctx.grid)) - _dot(passed, x)
        of_zero_point = ctx.grid[0] * (passed.sum() - gradient.sum())
        factor = (x[0].numel() * ctx.steps) ** -0.5
        return passed, (of_scale * factor).reshape(1), (of_zero_point * factor).reshape(1), None, None


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return torch.dot(a.flatten(), b.flatten())
