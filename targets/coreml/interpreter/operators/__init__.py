"""The MIL operators that the reference knows, one small function each; `OPERATORS` has them by their type.

A function takes the arithmetic of its rounding model first, and then the operator's inputs by the names that MIL gives
them: tensors as float32, int32, int8, uint8 or bool tensors, everything else as plain Python values. Semantics are
those of coremltools' operator documentation (its "MIL Ops" reference) for the iOS15 to iOS18 operator sets. What the
documentation leaves open raises `Unsupported`: nothing is guessed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

from torch import Tensor

from targets.coreml.interpreter.arithmetic import Arithmetic
from targets.coreml.interpreter.operators import pointwise, products, quantization, shapes, statistics, windows

Operator = Callable[..., Any]


def _of_one(compute: pointwise.OneTensor) -> Operator:
    def operator(a: Arithmetic, x: Tensor) -> Tensor:
        return compute(x)

    return operator


def _of_two(compute: pointwise.TwoTensors) -> Operator:
    def operator(a: Arithmetic, x: Tensor, y: Tensor) -> Tensor:
        return compute(x, y)

    return operator


def _defined_in(module: ModuleType) -> dict[str, Operator]:
    """Every public function of a module is the operator of its name."""
    functions = inspect.getmembers(module, inspect.isfunction)
    return {name: f for name, f in functions if f.__module__ == module.__name__ and not name.startswith("_")}


_MODULES = (pointwise, products, windows, statistics, shapes, quantization)
OPERATORS: dict[str, Operator] = {
    **{name: _of_one(compute) for name, compute in pointwise.ONE_TENSOR.items()},
    **{name: _of_two(compute) for name, compute in pointwise.TWO_TENSORS.items()},
    **{name: function for module in _MODULES for name, function in _defined_in(module).items()},
}

#: Input of MIL -> parameter of the function, where MIL's name is taken.
RENAMED: dict[str, dict[str, str]] = {"select": {"a": "x", "b": "y"}}

#: Results are elements of the inputs (or zeros): there is nothing to round.
MOVES = frozenset(
    {
        *_defined_in(shapes),
        *("abs", "clip", "maximum", "max_pool", "minimum", "reduce_max", "reduce_min"),
        *("relu", "relu6", "select", "threshold"),
    }
)
