"""Functions of one element each, with numpy's broadcasting: arithmetic, comparison, logic and activations."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from targets.coreml.interpreter.arithmetic import Arithmetic, Unsupported

OneTensor = Callable[[Tensor], Tensor]
TwoTensors = Callable[[Tensor, Tensor], Tensor]


def real_div(a: Arithmetic, x: Tensor, y: Tensor) -> Tensor:
    if not x.is_floating_point():
        raise Unsupported("a real_div of integers: the documentation does not say how it is rounded")
    return x / y


def select(a: Arithmetic, cond: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """MIL calls the branches `a` and `b`; see `RENAMED`."""
    return torch.where(cond.bool(), x, y)


def log(a: Arithmetic, x: Tensor, epsilon: float = 1e-45) -> Tensor:
    return torch.log(a.keep(x + epsilon))


def rsqrt(a: Arithmetic, x: Tensor, epsilon: float = 1e-12) -> Tensor:
    return torch.rsqrt(a.keep(x + epsilon))


def inverse(a: Arithmetic, x: Tensor, epsilon: float = 1e-4) -> Tensor:
    return torch.reciprocal(a.keep(x + epsilon))


def clip(a: Arithmetic, x: Tensor, alpha: float, beta: float) -> Tensor:
    return torch.clamp(x, alpha, beta)


def threshold(a: Arithmetic, x: Tensor, alpha: float) -> Tensor:
    """Nothing below `alpha`."""
    return torch.clamp(x, min=alpha)


#: Smallest and largest number. All but int32: iOS17 and later.
_RANGES = {
    "int32": (-(2**31), 2**31 - 1),
    "int16": (-(2**15), 2**15 - 1),
    "uint16": (0, 2**16 - 1),
    "int8": (-128, 127),
    "uint8": (0, 255),
}


def cast(a: Arithmetic, x: Tensor, dtype: str) -> Tensor:
    """To integers towards zero; a number that the integer format does not hold is not defined."""
    if dtype in ("fp16", "fp32"):
        return x.float()
    if dtype == "bool":
        return x.bool()
    if dtype not in _RANGES:
        raise Unsupported(f"a cast to {dtype} (known: fp16, fp32, bool, {', '.join(_RANGES)})")
    low, high = _RANGES[dtype]
    whole = torch.trunc(x.double())
    if not bool(((whole >= low) & (whole <= high)).all()):
        raise Unsupported(f"a cast of {float(x.abs().max()):g} to {dtype}, which does not hold it")
    return whole.to(torch.int32)


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


def sigmoid_hard(a: Arithmetic, x: Tensor, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    return torch.clamp(a.keep(alpha * x) + beta, 0, 1)


def silu(a: Arithmetic, x: Tensor) -> Tensor:
    return x * a.keep(torch.sigmoid(x))


def softplus_parametric(a: Arithmetic, x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    return _by_channel(alpha, x) * a.keep(_softplus(a.keep(_by_channel(beta, x) * x)))


def softsign(a: Arithmetic, x: Tensor) -> Tensor:
    return x / a.keep(1 + x.abs())


def linear_activation(a: Arithmetic, x: Tensor, alpha: float, beta: float) -> Tensor:
    return a.keep(alpha * x) + beta


def softmax(a: Arithmetic, x: Tensor, axis: int = -1) -> Tensor:
    """The largest entry is taken off first, so that nothing overflows."""
    if not a.half_sums:
        return torch.softmax(x, axis)
    powers = a.keep(torch.exp(a.keep(x - x.amax(axis, keepdim=True))))
    return powers / a.total(powers, [axis], keepdim=True)


def _softplus(x: Tensor) -> Tensor:
    return torch.logaddexp(x, torch.zeros_like(x))


def _by_channel(values: Tensor, x: Tensor) -> Tensor:
    """[C] -> [C, 1, ...] against x [B, C, ...]."""
    return values.reshape(-1, *[1] * (x.dim() - 2)) if x.dim() > 1 else values


#: What is one function of torch of x, or of x and y.
ONE_TENSOR: dict[str, OneTensor] = {
    "abs": torch.abs,
    "acos": torch.acos,
    "asin": torch.asin,
    "atan": torch.atan,
    "atanh": torch.atanh,
    "ceil": torch.ceil,
    "cos": torch.cos,
    "cosh": torch.cosh,
    "erf": torch.erf,
    "exp": torch.exp,
    "exp2": torch.exp2,
    "floor": torch.floor,
    "logical_not": torch.logical_not,
    "relu": torch.relu,
    "relu6": lambda x: torch.clamp(x, 0, 6),
    "round": torch.round,  # half to even
    "sigmoid": torch.sigmoid,
    "sign": torch.sign,
    "sin": torch.sin,
    "sinh": torch.sinh,
    "softplus": _softplus,
    "sqrt": torch.sqrt,
    "square": torch.square,
    "tan": torch.tan,
    "tanh": torch.tanh,
}
TWO_TENSORS: dict[str, TwoTensors] = {
    "add": torch.add,
    "equal": torch.eq,
    "floor_div": lambda x, y: torch.div(x, y, rounding_mode="floor"),
    "greater": torch.gt,
    "greater_equal": torch.ge,
    "less": torch.lt,
    "less_equal": torch.le,
    "logical_and": torch.logical_and,
    "logical_or": torch.logical_or,
    "logical_xor": torch.logical_xor,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "mod": torch.remainder,  # with the sign of the divisor, as Python's %
    "mul": torch.mul,
    "not_equal": torch.ne,
    "pow": torch.pow,
    "sub": torch.sub,
}
