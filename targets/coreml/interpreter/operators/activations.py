"""Activation functions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from targets.coreml.interpreter.operators.unsupported import Unsupported
from targets.coreml.interpreter.rounding import Arithmetic


def relu(a: Arithmetic, x: Tensor) -> Tensor:
    return torch.relu(x)


def relu6(a: Arithmetic, x: Tensor) -> Tensor:
    return torch.clamp(x, 0, 6)


def clamped_relu(a: Arithmetic, x: Tensor, alpha: float, beta: float) -> Tensor:
    return torch.clamp(leaky_relu(a, x, alpha), max=beta)


def leaky_relu(a: Arithmetic, x: Tensor, alpha: float) -> Tensor:
    return torch.where(x >= 0, x, alpha * x)


def prelu(a: Arithmetic, x: Tensor, alpha: Tensor) -> Tensor:
    return torch.where(x > 0, x, _by_channel(alpha, x) * x)


def thresholded_relu(a: Arithmetic, x: Tensor, alpha: float) -> Tensor:
    return torch.where(x >= alpha, x, torch.zeros_like(x))


def elu(a: Arithmetic, x: Tensor, alpha: float) -> Tensor:
    return torch.where(x > 0, x, alpha * torch.expm1(x))


def gelu(a: Arithmetic, x: Tensor, mode: str = "EXACT") -> Tensor:
    formulas: dict[str, Callable[[Tensor], Tensor]] = {
        "EXACT": functional.gelu,
        "TANH_APPROXIMATION": lambda x: functional.gelu(x, approximate="tanh"),
        "SIGMOID_APPROXIMATION": lambda x: x * torch.sigmoid(1.702 * x),
    }
    if mode not in formulas:
        raise Unsupported(f"gelu with mode {mode} (known: {', '.join(formulas)})")
    return formulas[mode](x)


def sigmoid(a: Arithmetic, x: Tensor) -> Tensor:
    return torch.sigmoid(x)


def sigmoid_hard(a: Arithmetic, x: Tensor, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    return torch.clamp(a.keep(alpha * x) + beta, 0, 1)


def silu(a: Arithmetic, x: Tensor) -> Tensor:
    return x * a.keep(torch.sigmoid(x))


def softplus(a: Arithmetic, x: Tensor) -> Tensor:
    return torch.logaddexp(x, torch.zeros_like(x))


def softplus_parametric(a: Arithmetic, x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    return _by_channel(alpha, x) * a.keep(softplus(a, a.keep(_by_channel(beta, x) * x)))


def softsign(a: Arithmetic, x: Tensor) -> Tensor:
    return x / a.keep(1 + x.abs())


def scaled_tanh(a: Arithmetic, x: Tensor, alpha: float, beta: float) -> Tensor:
    return alpha * a.keep(torch.tanh(a.keep(beta * x)))


def linear_activation(a: Arithmetic, x: Tensor, alpha: float, beta: float) -> Tensor:
    return a.keep(alpha * x) + beta


def softmax(a: Arithmetic, x: Tensor, axis: int = -1) -> Tensor:
    """The largest entry is taken off first, so that nothing overflows."""
    if not a.half_sums:
        return torch.softmax(x, axis)
    powers = a.keep(torch.exp(a.keep(x - x.amax(axis, keepdim=True))))
    return powers / a.total(powers, [axis], keepdim=True)


def _by_channel(values: Tensor, x: Tensor) -> Tensor:
    """[C] -> [C, 1, ...] against x [B, C, ...]."""
    return values.reshape(-1, *[1] * (x.dim() - 2)) if x.dim() > 1 else values
