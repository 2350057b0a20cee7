"""Arithmetic, comparison and logic, element by element with numpy's broadcasting."""

from __future__ import annotations

import torch
from torch import Tensor

from targets.coreml.interpreter.operators.unsupported import Unsupported
from targets.coreml.interpreter.rounding import Arithmetic


def add(a: Arithmetic, x: Tensor, y: Tensor) -> Tensor:
    return x + y


def sub(a: Arithmetic, x: Tensor, y: Tensor) -> Tensor:
    return x - y


def mul(a: Arithmetic, x: Tensor, y: Tensor) -> Tensor:
    return x * y


def real_div(a: Arithmetic, x: Tensor, y: Tensor) -> Tensor:
    if not x.is_floating_point():
        raise Unsupported("a real_div of integers: the documentation does not say how it is rounded")
    return x / y


def floor_div(a: Arithmetic, x: Tensor, y: Tensor) -> Tensor:
    return torch.div(x, y, rounding_mode="floor")


def mod(a: Arithmetic, x: Tensor, y: Tensor) -> Tensor:
    """With the sign of the divisor, as Python's `%`."""
    return torch.remainder(x, y)


def pow(a: Arithmetic, x: Tensor, y: Tensor) -> Tensor:
    return torch.pow(x, y)


def maximum(a: Arithmetic, x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(x, y)


def minimum(a: Arithmetic, x: Tensor, y: Tensor) -> Tensor:
    return torch.minimum(x, y)


def equal(a: Arithmetic, x: Tensor, y: Tensor) -> Tensor:
    return x == y


def not_equal(a: Arithmetic, x: Tensor, y: Tensor) -> Tensor:
    return x != y


def less(a: Arithmetic, x: Tensor, y: Tensor) -> Tensor:
    return x < y


def less_equal(a: Arithmetic, x: Tensor, y: Tensor) -> Tensor:
    return x <= y


def greater(a: Arithmetic, x: Tensor, y: Tensor) -> Tensor:
    return x > y


def greater_equal(a: Arithmetic, x: Tensor, y: Tensor) -> Tensor:
    return x >= y


def logical_and(a: Arithmetic, x: Tensor, y: Tensor) -> Tensor:
    return torch.logical_and(x, y)


def logical_or(a: Arithmetic, x: Tensor, y: Tensor) -> Tensor:
    return torch.logical_or(x, y)


def logical_xor(a: Arithmetic, x: Tensor, y: Tensor) -> Tensor:
    return torch.logical_xor(x, y)


def logical_not(a: Arithmetic, x: Tensor) -> Tensor:
    return torch.logical_not(x)


def select(a: Arithmetic, cond: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """MIL calls the branches `a` and `b`; see `RENAMED` in table.py."""
    return torch.where(cond.bool(), x, y)


def abs(a: Arithmetic, x: Tensor) -> Tensor:
    return torch.abs(x)


def ceil(a: Arithmetic, x: Tensor) -> Tensor:
    return torch.ceil(x)


def floor(a: Arithmetic, x: Tensor) -> Tensor:
    return torch.floor(x)


def round(a: Arithmetic, x: Tensor) -> Tensor:
    """Half to even."""
    return torch.round(x)


def sign(a: Arithmetic, x: Tensor) -> Tensor:
    return torch.sign(x)


def exp(a: Arithmetic, x: Tensor) -> Tensor:
    return torch.exp(x)


def exp2(a: Arithmetic, x: Tensor) -> Tensor:
    return torch.exp2(x)


def log(a: Arithmetic, x: Tensor, epsilon: float = 1e-45) -> Tensor:
    return torch.log(a.keep(x + epsilon))


def sqrt(a: Arithmetic, x: Tensor) -> Tensor:
    return torch.sqrt(x)


def rsqrt(a: Arithmetic, x: Tensor, epsilon: float = 1e-12) -> Tensor:
    return torch.rsqrt(a.keep(x + epsilon))


def inverse(a: Arithmetic, x: Tensor, epsilon: float = 1e-4) -> Tensor:
    return torch.reciprocal(a.keep(x + epsilon))


def square(a: Arithmetic, x: Tensor) -> Tensor:
    return torch.square(x)


def sin(a: Arithmetic, x: Tensor) -> Tensor:
    return torch.sin(x)


def cos(a: Arithmetic, x: Tensor) -> Tensor:
    return torch.cos(x)


def tan(a: Arithmetic, x: Tensor) -> Tensor:
    return torch.tan(x)


def sinh(a: Arithmetic, x: Tensor) -> Tensor:
    return torch.sinh(x)


def cosh(a: Arithmetic, x: Tensor) -> Tensor:
    return torch.cosh(x)


def tanh(a: Arithmetic, x: Tensor) -> Tensor:
    return torch.tanh(x)


def asin(a: Arithmetic, x: Tensor) -> Tensor:
    return torch.asin(x)


def acos(a: Arithmetic, x: Tensor) -> Tensor:
    return torch.acos(x)


def atan(a: Arithmetic, x: Tensor) -> Tensor:
    return torch.atan(x)


def atanh(a: Arithmetic, x: Tensor) -> Tensor:
    return torch.atanh(x)


def erf(a: Arithmetic, x: Tensor) -> Tensor:
    return torch.erf(x)


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
