"""Find constants in an encoding that devices were reported to decode wrongly, and store them in another one.

What was reported is signed 8-bit data in `constexpr_affine_dequantize`, whatever its values: coremltools issue 2114
(`linear_symmetric` weights; with signed data infinity on the Neural Engine and a constant picture on the GPU, with
unsigned data a constant picture on the GPU only), and pull requests 2675 and 2677 (both open), which store the same
weights unsigned. The value -128 is where their re-encoding with zero point 127 stops; with 128 it has room.

Find the trained weights of MIL operators, how the file stores each of them, and what values it stands for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from targets.coreml import mil
from targets.match import is_trained
from targets.words import plural

_OPERATOR = "constexpr_affine_dequantize"
# Added to data and zero point alike, so that their difference stays: -128..127 -> 0..255.
_OFFSET = 128
_SOURCES = "coremltools issue 2114, pull requests 2675 and 2677"


def signed_constants(operations: Iterable[Any]) -> Iterator[Any]:
    """The operators that decode signed data."""
    return (op for op in operations if op.op_type == _OPERATOR and mil.dtype(op.quantized_data) == "int8")


def caution(operations: Iterable[Any]) -> str:
    """One sentence about the known-bad encoding and the way around it; empty where the file has none of it."""
    found = list(signed_constants(operations))
    if not found:
        return ""
    lowest = [op for op in found if (op.quantized_data.val == -_OFFSET).any()]
    at_lowest = f"; -128 is in {mil.listed(op.outputs[0].name for op in lowest)}" if lowest else "; none holds -128"
    return (
        f"{plural(len(found), 'constant')} in {_OPERATOR} as signed int8 "
        f"({mil.listed(op.outputs[0].name for op in found)}{at_lowest}): reported to be decoded wrongly on GPU and "
        f"Neural Engine ({_SOURCES}); compare with CPU only on the device, or convert for coreml without "
        "--signed-weights: uint8 with zero point 128, which decodes to the same values"
    )


def store_unsigned(model: Any) -> Any:
    """An MLModel -> the same model with every signed int8 constant as uint8 and its zero point raised by 128.

    The decoded values are the same, bit by bit: scale * ((data + 128) - (zero point + 128)). `model` itself is
    returned where there is nothing to do. Names and the model's description stay.
    """
    import coremltools as ct
    from coremltools.converters.mil.converter import mil_convert

    spec, program = mil.load_model(model)
    if sum(_raise_all(function) for function in program.functions.values()) == 0:
        return model
    # Not ct.convert: it makes a description of its own, and refuses a program whose last operator gives a label.
    return mil_convert(
        program,
        convert_from="milinternal",
        convert_to="mlprogram",
        specification_version=spec.specificationVersion,
        compute_units=model.compute_unit,
        model_description=spec.description,  # an image input, classes, metadata
        # All passes have run; what is left to do is to drop the signed data, which nothing reads any more.
        main_pipeline=ct.PassPipeline(["common::dead_code_elimination"]),
        skip_model_load=True,
    )


def _raise_all(block: Any) -> int:
    """Replace the operators in place; how many there were."""
    from coremltools.converters.mil.mil import Builder as mb

    found = list(signed_constants(mil.walk(block.operations)))
    for op in found:
        inside = op.enclosing_block
        with inside:
            encoded = mb.constexpr_affine_dequantize(
                quantized_data=_raised(op.quantized_data.val),
                zero_point=_raised(op.zero_point.val),
                scale=op.scale.val,
                axis=op.axis.val,
                name=op.name,
                before_op=op,
            )
        # coremltools guards compressed weights against passes that lose the compression; here it stays.
        inside.replace_uses_of_var_after_op(anchor_op=op, old_var=op.outputs[0], new_var=encoded, force_replace=True)
        inside.remove_ops([op])
    return len(found)


def _raised(signed: np.ndarray) -> np.ndarray:
    return np.asarray(np.asarray(signed, np.int16) + _OFFSET, np.uint8)


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
