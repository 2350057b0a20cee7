"""Find the trained weights of MIL operators, how the file stores each of them, and what values it stands for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from targets.coreml import mil
from targets.weights import is_trained

# Operators that hold a layer's weights, and the inputs that can be the weight.
_WEIGHT_INPUTS: dict[str, tuple[str, ...]] = {
    "linear": ("weight",),
    "conv": ("weight",),
    "conv_transpose": ("weight",),
    "matmul": ("x", "y"),
}
#: Stored as one integer of eight bits for each value.
INT8 = ("int8", "uint8")
#: Stored as it is computed with.
FLOAT = ("fp16", "fp32")


@dataclass(frozen=True)
class Weight:
    """A trained constant that feeds a linear, convolution or matmul operator.

    Attributes:
        name: of the variable in the file.
        stored: "fp32", "fp16"; "int8", "uint8", "int4" with scales; "lut4" for indices of four bits into a palette;
            "sparse " before one of these where zeros are left out; the operator's type where this module does not
            know the encoding.
    """

    name: str
    stored: str


def weights(operations: Iterable[Any]) -> tuple[Weight, ...]:
    """The weights in the order of their operators; one that several operators share counts once."""
    found = {
        variable.name: Weight(variable.name, stored_as(variable))
        for operation in operations
        for variable in _weight_inputs(operation)
        if is_trained(values(variable))
    }
    return tuple(found.values())


def _weight_inputs(operation: Any) -> Iterator[Any]:
    for parameter in _WEIGHT_INPUTS.get(operation.op_type, ()):
        variable = operation.inputs.get(parameter)
        if variable is not None and (mil.is_constant(variable) or _is_dequantized_constant(variable)):
            yield variable


def _is_dequantized_constant(variable: Any) -> bool:
    operation = variable.op
    return operation is not None and operation.op_type == "dequantize" and mil.is_constant(operation.input)


def stored_as(variable: Any) -> str:
    """How a constant is stored: see `Weight`."""
    operation = variable.op
    match operation.op_type:
        case "const":
            return mil.dtype(variable)
        case "constexpr_affine_dequantize":
            return mil.dtype(operation.quantized_data)
        case "dequantize":
            return stored_as(operation.input)
        case "constexpr_blockwise_shift_scale":  # a scale may stand before a palette, too
            return stored_as(operation.data)
        case "constexpr_lut_to_dense":
            return f"lut{palette_bits(operation.lut.shape)}"
        case "constexpr_cast":
            return mil.dtype(operation.source_val)
        case "constexpr_sparse_to_dense":
            return f"sparse {mil.dtype(operation.nonzero_data)}"
        case unknown:
            return str(unknown)


def palette_bits(shape: tuple[int, ...]) -> int:
    """Bits of an index into a palette [entries] (iOS 16) or [..., entries, vector] (iOS 18)."""
    entries = shape[0] if len(shape) == 1 else shape[-2]
    return int(entries).bit_length() - 1


def values(variable: Any) -> np.ndarray:
    """What a constant stands for, decompressed by coremltools' own definition of its operator."""
    operation = variable.op
    if operation.op_type == "const":
        return np.asarray(variable.val)
    if operation.op_type == "constexpr_lut_to_dense" and operation.lut.val is None:  # a palette that is compressed too
        axis = None if operation.vector_axis is None else operation.vector_axis.val
        return np.asarray(operation.decompress(operation.indices.val, values(operation.lut), axis))
    return np.asarray(operation.materialized_val_inference())
