"""The TFLite flatbuffer as objects: read it, look into it, give it a float32 boundary and provenance, write it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from targets.types import TargetError

FILE_IDENTIFIER = b"TFL3"
METADATA_NAME = b"edge-t2t"
QUANTIZED_TYPES = ("INT4", "INT8", "UINT8", "INT16")

# The generated classes of the TFLite schema (ModelT, SubGraphT, TensorT) are untyped.
Model = Any
Subgraph = Any
Tensor = Any
Operator = Any


def parse(content: bytes, name: str) -> Model:
    """A ModelT; constants kept outside of the flatbuffer proper (ai-edge-quantizer does that) are resolved.

    Its first subgraph is the network. Others are the bodies of its operators, such as the sum of a REDUCE_WINDOW.

    Raises:
        TargetError: stage "inspect", `name` does not hold a TFLite model.
    """
    from ai_edge_litert.tools import flatbuffer_utils

    if content[4:8] != FILE_IDENTIFIER:
        raise TargetError(
            "inspect", f"{name} is no TFLite file: bytes 4 to 8 are {content[4:8]!r}, not {FILE_IDENTIFIER!r}"
        )
    try:
        model = flatbuffer_utils.read_model_from_bytearray(content)
        subgraphs = len(model.subgraphs)
    except Exception as error:  # the generated reader follows offsets blindly and raises whatever it meets
        cause = f"{name} is a corrupt TFLite file ({type(error).__name__}: {error}): convert the model again"
        raise TargetError("inspect", cause) from error
    if not subgraphs:
        raise TargetError("inspect", f"{name} has no subgraph: convert the model again")
    return model


def serialize(model: Model) -> bytes:
    """The inverse of `parse`."""
    from ai_edge_litert.tools import flatbuffer_utils

    for buffer in model.buffers:
        if isinstance(buffer.data, bytes | bytearray | memoryview):
            buffer.data = np.frombuffer(buffer.data, np.uint8)  # else it is packed byte by byte, in Python
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def type_name(tensor: Tensor) -> str:
    """The stored type: "FLOAT32", "INT8"."""
    from ai_edge_litert.tools import flatbuffer_utils

    return str(flatbuffer_utils.type_to_name(tensor.type))


def operator_name(model: Model, operator: Operator) -> str:
    """The builtin operator: "CONV_2D"; a custom one by its own name."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    opcode = model.operatorCodes[operator.opcodeIndex]
    builtin = flatbuffer_utils.get_builtin_code_from_operator_code(opcode)
    if builtin == schema.BuiltinOperator.CUSTOM:
        return bytes(opcode.customCode).decode()
    return next(name for name, code in vars(schema.BuiltinOperator).items() if code == builtin)


def has_scale(tensor: Tensor) -> bool:
    """Whether the tensor carries quantization parameters."""
    return (
        tensor.quantization is not None and tensor.quantization.scale is not None and len(tensor.quantization.scale) > 0
    )


def make_boundary_float(model: Model) -> bool:
    """Put QUANTIZE before int8 inputs and DEQUANTIZE after int8 outputs; whether anything was changed.

    The converter drops a quantize that reads an input and a dequantize that writes an output. Back in place, every
    artifact takes and gives float32, and the time of the conversion is measured like in the other files.
    """
    from ai_edge_litert import schema_py_generated as schema

    graph = model.subgraphs[0]
    codes = schema.BuiltinOperator
    changed = False
    for position, index in enumerate(graph.inputs):
        if _is_int8(graph.tensors[index]):
            outer = _float_twin(graph, index)
            graph.operators.insert(0, _operator(model, codes.QUANTIZE, outer, index))
            graph.inputs[position] = outer
            _move_signature(model, "inputs", index, outer)
            changed = True
    for position, index in enumerate(graph.outputs):
        if _is_int8(graph.tensors[index]):
            outer = _float_twin(graph, index)
            graph.operators.append(_operator(model, codes.DEQUANTIZE, index, outer))
            graph.outputs[position] = outer
            _move_signature(model, "outputs", index, outer)
            changed = True
    return changed


def write_metadata(model: Model, metadata: Mapping[str, str]) -> None:
    """Store `metadata` as JSON in the file's metadata entry `METADATA_NAME`."""
    from ai_edge_litert import schema_py_generated as schema

    content, entry = schema.BufferT(), schema.MetadataT()
    content.data = np.frombuffer(json.dumps(dict(metadata), sort_keys=True).encode(), np.uint8)
    entry.name, entry.buffer = METADATA_NAME, len(model.buffers)
    model.buffers.append(content)
    model.metadata = [*(model.metadata or []), entry]


def read_metadata(path: Path) -> dict[str, str]:
    """What `write_metadata` stored; empty where a file has none."""
    model = parse(path.read_bytes(), path.name)
    for entry in model.metadata or []:
        if entry.name == METADATA_NAME:
            stored: dict[str, str] = json.loads(bytes(model.buffers[entry.buffer].data))
            return stored
    return {}


def _is_int8(tensor: Tensor) -> bool:
    return type_name(tensor) in ("INT8", "UINT8") and has_scale(tensor)


def _float_twin(graph: Subgraph, index: int) -> int:
    """Index of a new float32 tensor that takes over the name of tensor `index`."""
    from ai_edge_litert import schema_py_generated as schema

    inner, outer = graph.tensors[index], schema.TensorT()
    outer.name, inner.name = inner.name, inner.name + b"_quantized"
    outer.type, outer.shape, outer.shapeSignature = schema.TensorType.FLOAT32, inner.shape, inner.shapeSignature
    outer.hasRank = inner.hasRank
    graph.tensors.append(outer)
    return len(graph.tensors) - 1


def _operator(model: Model, builtin: int, source: int, result: int) -> Operator:
    from ai_edge_litert import schema_py_generated as schema

    operator = schema.OperatorT()
    operator.opcodeIndex = _opcode_index(model, builtin)
    operator.inputs, operator.outputs = [source], [result]
    return operator


def _opcode_index(model: Model, builtin: int) -> int:
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    for index, opcode in enumerate(model.operatorCodes):
        if flatbuffer_utils.get_builtin_code_from_operator_code(opcode) == builtin:
            return index
    opcode = schema.OperatorCodeT()
    opcode.builtinCode = opcode.deprecatedBuiltinCode = builtin  # both are below 127, where the two fields agree
    opcode.version = 2  # the first version of DEQUANTIZE with int8; QUANTIZE's second only adds input types
    model.operatorCodes.append(opcode)
    return len(model.operatorCodes) - 1


def _move_signature(model: Model, side: str, old: int, new: int) -> None:
    for signature in model.signatureDefs or []:
        for entry in getattr(signature, side):
            if entry.tensorIndex == old:
                entry.tensorIndex = new
