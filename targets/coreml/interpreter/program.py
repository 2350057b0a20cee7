"""Load a saved `.mlpackage` as a program of torch functions, and run it on one image after the other.

coremltools' own loader reads protobuf and weights file; every operator of the main function is bound to a function of
`operators`. What is not known stops the loading with its name.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import InitVar, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from targets.coreml.interpreter.arithmetic import FP32, Arithmetic, RangeCounts, Rounding, Unsupported, to_half
from targets.coreml.interpreter.operators import MOVES, OPERATORS, RENAMED, Operator
from targets.coreml.mil import load_main
from targets.match import UINT8_OFFSET
from targets.sdk import one_line, typed_line
from targets.types import QuantizedTensor, TargetError

#: MIL dtype -> how torch holds it. Half precision is held as float32 whose values were rounded.
_TORCH = {
    "fp16": torch.float32,
    "fp32": torch.float32,
    "bool": torch.bool,
    "int8": torch.int8,
    "uint8": torch.uint8,
    "int16": torch.int32,
    "uint16": torch.int32,
    "int32": torch.int32,
    "uint32": torch.int64,
    **dict.fromkeys(("uint1", "uint2", "uint3", "uint4", "uint6"), torch.uint8),
    "int4": torch.int8,
}
#: What only a classifier gives.
_NO_TENSOR = ("string", "dict")


@dataclass(frozen=True)
class Value:
    """A variable of the program: MIL dtype and shape, None for a dimension that is not fixed."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Name:
    """An argument that is computed, and the kind of value that the function takes."""

    name: str
    kind: str


@dataclass(frozen=True)
class Step:
    """One operator with its arguments: constants as the function takes them, names of what is computed."""

    name: str
    op_type: str
    function: Operator
    arguments: Mapping[str, Any]
    results: tuple[Value, ...]

    def names(self) -> Iterator[str]:
        """Of the variables that it reads."""
        for argument in self.arguments.values():
            for part in argument if isinstance(argument, list) else [argument]:
                if isinstance(part, Name):
                    yield part.name


@dataclass(eq=False)
class MilProgram:
    """The main function of a package.

    Attributes:
        name: of the package.
        inputs, outputs: of the function.
        metadata: user-defined strings of the package.
    """

    name: str
    inputs: tuple[Value, ...]
    outputs: tuple[str, ...]
    steps: InitVar[tuple[Step, ...]]
    metadata: Mapping[str, str]

    def __post_init__(self, steps: tuple[Step, ...]) -> None:
        self._constant, self._steps = _constant_first(steps, {value.name for value in self.inputs})
        self._last_use = {name: i for i, step in enumerate(self._steps) for name in step.names()}
        self._folded: dict[Rounding, dict[str, Any]] = {}

    def predict(
        self,
        inputs: Mapping[str, Any],
        rounding: Rounding = FP32,
        ranges: RangeCounts | None = None,
        shown: list[QuantizedTensor] | None = None,
    ) -> dict[str, Any]:
        """As `MLModel.predict` of coremltools: arrays by name, and of a classifier the label and all probabilities.

        Args:
            inputs: for each input of the function an array in its shape; for an image input also a PIL picture.
            ranges: counts what left the range of its format.
            shown: takes the result of every quantize operator with one scale.

        Raises:
            TargetError: stage "run"; an input that does not fit, or an operator that cannot be computed, by name.
        """
        if ranges is not None:
            ranges.poisoned = False
        with torch.no_grad():
            values = {**self._constants(rounding), **self._checked(inputs, rounding)}
            for i, step in enumerate(self._steps):
                self._compute(step, values, rounding, ranges)
                if shown is not None and step.op_type == "quantize":
                    shown.extend(_shown(step, values))
                for name in step.names():
                    if self._last_use[name] == i and name not in self.outputs:
                        values.pop(name, None)
        found = ((name, values[name]) for name in self.outputs)
        return {name: value.numpy() if isinstance(value, Tensor) else value for name, value in found}

    def _constants(self, rounding: Rounding) -> dict[str, Any]:
        """What depends on no input, computed once for each rounding model."""
        if rounding not in self._folded:
            values: dict[str, Any] = {}
            for step in self._constant:
                self._compute(step, values, rounding, None)
            self._folded[rounding] = values
        return self._folded[rounding]

    def _checked(self, inputs: Mapping[str, Any], rounding: Rounding) -> dict[str, Tensor]:
        if set(inputs) != {value.name for value in self.inputs}:
            wanted = ", ".join(value.name for value in self.inputs)
            raise TargetError("run", f"{self.name} takes {wanted}, not {', '.join(inputs) or 'nothing'}")
        found = {}
        for value in self.inputs:
            array = _array(inputs[value.name])
            if not _fits(array.shape, value.shape):
                raise TargetError("run", f"{self.name}: {value.name} is {list(value.shape)}, not {list(array.shape)}")
            tensor = torch.from_numpy(np.ascontiguousarray(array)).to(_TORCH[value.dtype])
            found[value.name] = to_half(tensor) if value.dtype == "fp16" and rounding.half_storage else tensor
        return found

    def _compute(self, step: Step, values: dict[str, Any], rounding: Rounding, ranges: RangeCounts | None) -> None:
        half = step.results[0].dtype == "fp16" and rounding.half_storage
        arithmetic = Arithmetic(rounding, half, step.name, step.op_type, ranges)
        try:
            result = step.function(arithmetic, **{k: _resolved(v, values) for k, v in step.arguments.items()})
            results = result if isinstance(result, tuple) else (result,)
            if len(results) != len(step.results):
                raise Unsupported(f"{len(results)} results computed, {len(step.results)} declared")
            for value, computed in zip(step.results, results, strict=True):
                if value.dtype not in _NO_TENSOR:
                    computed = _declared(computed, value)
                    if step.op_type not in MOVES:
                        computed = arithmetic.store(computed)
                values[value.name] = computed
        except (Unsupported, RuntimeError, IndexError, ValueError, TypeError) as error:
            cause = f"{self.name}: operator {step.name} ({step.op_type}): {one_line(error, 300)}"
            raise TargetError("run", cause) from error


def load_program(path: Path) -> MilProgram:
    """Read the package at `path`, its weights file included.

    Raises:
        TargetError: stage "load"; the package is damaged, or an operator, attribute or dtype, by name, is not known.
    """
    from targets.coreml.package import check_seal

    try:
        check_seal(path)
    except ValueError as error:  # it names the package and says what to do
        raise TargetError("load", str(error)) from error
    try:
        spec, function = load_main(path)
        inputs = tuple(_value(variable) for variable in function.inputs.values())
        steps = tuple(_step(op) for op in function.operations if op.op_type != "const")
        outputs = tuple(feature.name for feature in spec.description.output)
        if lost := set(outputs) - {variable.name for variable in function.outputs}:
            raise ValueError(f"outputs {sorted(lost)} are described and not computed")
        return MilProgram(path.name, inputs, outputs, steps, dict(spec.description.metadata.userDefined))
    except TargetError:
        raise
    except Unsupported as error:
        raise TargetError("load", f"{path.name}: the MIL reference does not know {error}") from error
    except Exception as error:  # the loader raises whatever a damaged protobuf or weights file makes it meet
        cause = f"{path.name} is damaged or no ML Program ({typed_line(error, 300)}): convert again"
        raise TargetError("load", cause) from error


def _step(operation: Any) -> Step:
    op_type, name = operation.op_type, operation.name
    if op_type not in OPERATORS:
        raise Unsupported(f"operator {op_type} ({name})")
    function, renamed = OPERATORS[op_type], RENAMED.get(op_type, {})
    kinds = _parameters(function)
    arguments: dict[str, Any] = {}
    for key, argument in operation.inputs.items():
        if argument is None:
            continue
        parameter = renamed.get(key, key)
        if parameter not in kinds:
            raise Unsupported(f"attribute {key} of operator {op_type} ({name})")
        arguments[parameter] = _argument(argument, kinds[parameter])
    return Step(name, op_type, function, arguments, tuple(_value(variable) for variable in operation.outputs))


@cache
def _parameters(function: Operator) -> dict[str, str]:
    """Parameter -> its annotation as it is written, without "| None"; the arithmetic is left out."""
    return {
        name: str(parameter.annotation).removesuffix(" | None")
        for name, parameter in inspect.signature(function).parameters.items()
        if name != "a"
    }


def _argument(variable: Any, kind: str) -> Any:
    """A constant as the function takes it, or the name of what is computed."""
    if isinstance(variable, (list, tuple)):
        if not kind.startswith("list["):
            raise Unsupported(f"a list of {len(variable)} values where one is expected")
        return [_argument(part, kind.removeprefix("list[").removesuffix("]")) for part in variable]
    if variable.op is None or variable.op.op_type != "const":
        return Name(variable.name, kind)
    return _tensor(variable) if kind == "Tensor" else _python(variable.val, kind)


def _tensor(variable: Any) -> Tensor:
    return torch.from_numpy(np.array(variable.val)).to(_TORCH[_dtype(variable)])


def _python(value: Any, kind: str) -> Any:
    """A numpy value as int, float, bool, str or a list of them."""
    scalar = {"int": int, "float": float, "bool": bool, "str": str}
    if kind in scalar:
        return scalar[kind](np.asarray(value).item())
    convert = scalar[kind.removeprefix("list[").removesuffix("]")]
    return [convert(item) for item in (value if isinstance(value, list) else np.asarray(value).reshape(-1).tolist())]


def _value(variable: Any) -> Value:
    dtype = _dtype(variable)
    if dtype in _NO_TENSOR:
        return Value(variable.name, dtype, ())
    return Value(
        variable.name, dtype, tuple(int(n) if isinstance(n, (int, np.integer)) else None for n in variable.shape)
    )


def _dtype(variable: Any) -> str:
    from coremltools.converters.mil.mil import types

    dtype = types.builtin_to_string(variable.dtype)
    if dtype not in _TORCH and dtype not in _NO_TENSOR:
        raise Unsupported(f"dtype {dtype} of {variable.name}")
    return dtype


def _constant_first(steps: tuple[Step, ...], inputs: set[str]) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """The steps that depend on no input, and the others, each in order."""
    dependent = set(inputs)
    constant, rest = [], []
    for step in steps:
        if dependent.isdisjoint(step.names()):
            constant.append(step)
        else:
            rest.append(step)
            dependent |= {value.name for value in step.results}
    return tuple(constant), tuple(rest)


def _shown(step: Step, values: Mapping[str, Any]) -> Iterator[QuantizedTensor]:
    """The result of a quantize operator; nothing for one with a scale for each channel."""
    scale, zero_point = (_resolved(step.arguments.get(key), values) for key in ("scale", "zero_point"))
    if scale.numel() != 1:
        return
    result = values[step.results[0].name].numpy()
    offset = UINT8_OFFSET if result.dtype == np.uint8 else 0
    point = (0 if zero_point is None else int(zero_point)) - offset
    yield QuantizedTensor(step.name, float(scale), point, (result.astype(np.int16) - offset).astype(np.int8))


def _resolved(argument: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(argument, list):
        return [_resolved(part, values) for part in argument]
    if not isinstance(argument, Name):
        return argument
    value = values[argument.name]
    return value if argument.kind == "Tensor" else _python(value.numpy(), argument.kind)


def _declared(computed: Tensor, value: Value) -> Tensor:
    """A result as it is declared.

    Raises:
        Unsupported: it has another shape or kind of number.
    """
    if not _fits(computed.shape, value.shape):
        raise Unsupported(f"the result is {list(computed.shape)}, declared as {list(value.shape)}")
    wanted = _TORCH[value.dtype]
    if computed.is_floating_point() != wanted.is_floating_point or (computed.dtype == torch.bool) != (
        wanted == torch.bool
    ):
        raise Unsupported(f"the result is {computed.dtype}, declared as {value.dtype}")
    return computed.to(wanted)


def _fits(shape: Sequence[int], declared: Sequence[int | None]) -> bool:
    return len(shape) == len(declared) and all(d in (None, n) for n, d in zip(shape, declared, strict=True))


def _array(value: Any) -> np.ndarray:
    """A PIL picture -> float32 [1, 3, H, W] of 0 to 255; anything else as an array."""
    if not hasattr(value, "getbands"):
        return np.asarray(value)
    return np.asarray(value.convert("RGB"), dtype=np.float32).transpose(2, 0, 1)[None]
