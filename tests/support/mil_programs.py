"""A seeded draw of one MIL operator in; its saved `.mlpackage`, its inputs and the values it must give out.

Programs are built with coremltools' builder and written by its backend without any pass, so that the operator stays
as it is: nothing is folded, fused or turned into half precision. References are written out with numpy from the
operator's documentation (coremltools/converters/mil/mil/ops/defs), in float64 where the operator is not exact.
"""

from __future__ import annotations

import shutil
import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

#: iOS 17: what the project converts for. 16 and 18 for operators that another version defines differently.
SPECIFICATION_VERSIONS = {"iOS16": 7, "iOS17": 8, "iOS18": 9}
#: What a package may take and give (coremltools' exporter); anything else is cast inside of the program.
_BOUNDARY = (np.float32, np.float16, np.int32)


@dataclass(frozen=True)
class OneOperator:
    """One operator with what goes in and what must come out.

    Attributes:
        build: MIL variables by input name -> the operator's output, or its outputs in order.
        inputs: by name; dtypes that a package cannot take (bool, int8, ...) are cast in the program.
        expected: one array for each output, in the dtype that the operator gives.
        rtol: of the largest expected value; None where every bit must be right.
        opset: "iOS16", "iOS17" or "iOS18".
    """

    build: Callable[..., Any]
    inputs: Mapping[str, np.ndarray]
    expected: tuple[np.ndarray, ...]
    rtol: float | None = 1e-5
    opset: str = "iOS17"

    def __post_init__(self) -> None:
        if not self.inputs or not self.expected:
            raise ValueError("an operator without inputs or outputs: nothing would be compared")


class Draw:
    """Seeded values and shapes of one case.

    Args:
        operator: name; each has its own stream of random numbers.
        seed: 0, 1, ...; generators also take turns in attributes by it (see `turn`).
        dtype: of float inputs and outputs, numpy.float32 or numpy.float16.
    """

    def __init__(self, operator: str, seed: int, dtype: type[np.floating] = np.float32):
        self.seed = seed
        self.dtype = dtype
        self.rng = np.random.default_rng([zlib.crc32(operator.encode()), seed])

    def turn(self, choices: Sequence[Any]) -> Any:
        """The choice of this seed: consecutive seeds see all of them."""
        return choices[self.seed % len(choices)]

    def any(self, choices: Sequence[Any]) -> Any:
        return choices[int(self.rng.integers(len(choices)))]

    def integer(self, low: int, high: int) -> int:
        """Both ends included."""
        return int(self.rng.integers(low, high + 1))

    def shape(self, low: int = 1, high: int = 5, least: int = 1, most: int = 6) -> tuple[int, ...]:
        """`low` to `high` dimensions of `least` to `most`; every fourth is 1 where 1 is allowed."""
        return tuple(
            1 if least == 1 and self.rng.random() < 0.25 else self.integer(least, most)
            for _ in range(self.integer(low, high))
        )

    def floats(self, shape: Sequence[int], low: float = -4, high: float = 4) -> np.ndarray:
        return np.asarray(self.rng.uniform(low, high, tuple(shape)), dtype=self.dtype)

    def float(self, low: float, high: float) -> Any:
        """A scalar attribute."""
        return self.dtype(self.rng.uniform(low, high))

    def integers(self, shape: Sequence[int], low: int = -9, high: int = 9, dtype: Any = np.int32) -> np.ndarray:
        """Both ends included."""
        return np.asarray(self.rng.integers(low, high + 1, tuple(shape)), dtype=dtype)

    def bools(self, shape: Sequence[int]) -> np.ndarray:
        return np.asarray(self.rng.random(tuple(shape)) < 0.5)

    def axis(self, rank: int) -> int:
        """Counted from either end."""
        return self.integer(-rank, rank - 1)

    def rounded(self, *arrays: Any) -> tuple[np.ndarray, ...]:
        """Float results in the dtype of this draw."""
        with np.errstate(over="ignore"):
            return tuple(np.asarray(array).astype(self.dtype) for array in arrays)


Generator = Callable[[Draw], OneOperator]


def wide(array: Any) -> np.ndarray:
    """float64: a reference that is not the operator's own arithmetic."""
    return np.asarray(array, dtype=np.float64)


def save_package(case: OneOperator, path: Path) -> None:
    """Write the program of `case` as a package; its outputs are named y0, y1, ...

    Raises:
        ValueError: coremltools infers another shape or dtype for an output than the reference has.
    """
    import coremltools as ct

    def program(**variables: Any) -> list[Any]:
        outputs = _as_list(case.build(**variables))
        _check_types(outputs, case.expected)
        return outputs

    save_program(program, case.inputs, path, getattr(ct.target, case.opset), SPECIFICATION_VERSIONS[case.opset])


def save_program(
    build: Callable[..., list[Any]], inputs: Mapping[str, np.ndarray], path: Path, target: Any, version: int
) -> None:
    """Write a main function of `build` over inputs like `inputs` as a package at `path`, which is replaced."""
    from coremltools.converters.mil.backend.mil.load import load as to_spec
    from coremltools.converters.mil.mil import Builder as mb
    from coremltools.converters.mil.mil import Function, Program, types
    from coremltools.models.utils import save_spec

    placeholders = {
        name: mb.placeholder(array.shape, dtype=types.numpy_type_to_builtin_type(_boundary(array.dtype)))
        for name, array in inputs.items()
    }
    with Function(placeholders, opset_version=target) as main:
        variables = {
            name: variable if inputs[name].dtype in _BOUNDARY else mb.cast(x=variable, dtype=inputs[name].dtype.name)
            for name, variable in main.inputs.items()
        }
        outputs = [_given_out(variable) for variable in build(**variables)]
        for index, variable in enumerate(outputs):
            variable.name = f"y{index}"
        main.set_outputs(outputs)
    program = Program()
    program.add_function("main", main)
    shutil.rmtree(path, ignore_errors=True)
    with tempfile.TemporaryDirectory() as weights:
        spec = to_spec(program, weights, specification_version=version)
        save_spec(spec, str(path), weights_dir=weights)


def given_in(case: OneOperator) -> dict[str, np.ndarray]:
    """The inputs as the package takes them."""
    return {name: np.asarray(array).astype(_boundary(array.dtype)) for name, array in case.inputs.items()}


def given_out(case: OneOperator) -> dict[str, np.ndarray]:
    """The expected outputs as the package gives them."""
    return {f"y{i}": np.asarray(array).astype(_boundary(array.dtype)) for i, array in enumerate(case.expected)}


def inferred(case: OneOperator) -> list[np.ndarray | None]:
    """What coremltools' own value inference computes for constant inputs; None for outputs where it has none."""
    import coremltools as ct
    from coremltools.converters.mil.mil import Builder as mb
    from coremltools.converters.mil.mil import Function

    with Function({}, opset_version=getattr(ct.target, case.opset)):
        constants = {name: mb.const(val=array.copy()) for name, array in case.inputs.items()}
        outputs = _as_list(case.build(**constants))
        return [_inferred(output) for output in outputs]


def _inferred(variable: Any) -> np.ndarray | None:
    """Compressed constants and what reads them are never values to coremltools: they are decoded on demand."""
    operation = variable.op
    if variable.val is not None:
        return np.asarray(variable.val)
    if operation.op_type.startswith("constexpr_") or operation.op_type == "dequantize":
        return np.asarray(operation.materialized_val_inference())
    if operation.op_type == "add" and (y := _inferred(operation.y)) is not None:
        return np.asarray(operation.x.val + y)
    return None


def _as_list(outputs: Any) -> list[Any]:
    return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]


def _boundary(dtype: Any) -> Any:
    return dtype if dtype in _BOUNDARY else np.dtype(np.int32)


def _given_out(variable: Any) -> Any:
    from coremltools.converters.mil.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    allowed = types.nptype_from_builtin(variable.dtype) in _BOUNDARY
    return variable if allowed else mb.cast(x=variable, dtype="int32")


def _check_types(outputs: list[Any], expected: Sequence[np.ndarray]) -> None:
    from coremltools.converters.mil.mil import types

    inferred_types = [(tuple(v.shape), np.dtype(types.nptype_from_builtin(v.dtype))) for v in outputs]
    reference_types = [(array.shape, array.dtype) for array in expected]
    if inferred_types != reference_types:
        raise ValueError(f"coremltools infers {inferred_types}, the reference gives {reference_types}")
