"""The TFLite flatbuffer as objects: read it, look into it, give it a float32 boundary and provenance, write it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from targets.types import TargetError
from targets.weights import is_trained

FILE_IDENTIFIER = b"TFL3"
METADATA_NAME = b"edge-t2t"
QUANTIZED_TYPES = ("INT4", "INT8", "UINT8", "INT16")

#: Name of a tensor without a module: most are constants.
CONSTANT = "constant"

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
    """The inverse of `parse`; equal vectors are stored once.

    A per-channel scale needs a zero point for every channel, eight bytes each: for T2T-ViT-7 200 KB of zeros.
    """
    for buffer in model.buffers:
        if isinstance(buffer.data, bytes | bytearray | memoryview):
            buffer.data = np.frombuffer(buffer.data, np.uint8)  # else it is packed byte by byte, in Python
    builder = _sharing_builder()
    builder.Finish(model.Pack(builder), file_identifier=FILE_IDENTIFIER)
    return bytes(builder.Output())


def _sharing_builder() -> Any:
    import flatbuffers

    class Builder(flatbuffers.Builder):
        def __init__(self) -> None:
            super().__init__(1024)
            self.written: dict[tuple[str, bytes], int] = {}

        def CreateNumpyVector(self, x: np.ndarray) -> int:
            key = (x.dtype.str, x.tobytes())
            if key not in self.written:
                self.written[key] = super().CreateNumpyVector(x)
            return self.written[key]

    return Builder()


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


def make_operators_float(model: Model, names: Collection[str]) -> bool:
    """Put DEQUANTIZE before and QUANTIZE after the int8 operators of these names; whether anything was changed.

    The converter merges quantize(f(dequantize(x))) into an int8 operator for every f that TFLite has one for, also
    where no delegate takes it. The scales stay what the program says.
    """
    from ai_edge_litert import schema_py_generated as schema

    graph, codes = model.subgraphs[0], schema.BuiltinOperator
    operators = []
    for operator in graph.operators:
        before, after = [], []
        if operator_name(model, operator) in names and _is_int8(graph.tensors[operator.outputs[0]]):
            for position, index in enumerate(operator.inputs):
                if _is_int8(graph.tensors[index]):
                    operator.inputs[position] = _float_copy(graph, index)
                    before.append(_operator(model, codes.DEQUANTIZE, index, operator.inputs[position]))
            for position, index in enumerate(operator.outputs):
                operator.outputs[position] = _float_copy(graph, index)
                after.append(_operator(model, codes.QUANTIZE, operator.outputs[position], index))
        operators += [*before, operator, *after]
    changed = len(operators) > len(graph.operators)
    graph.operators = operators
    return changed


def is_trained_constant(model: Model, tensor: Tensor) -> bool:
    """Whether the tensor is stored in the file and holds something trained."""
    data = model.buffers[tensor.buffer].data
    if data is None or not len(data):
        return False
    kinds = {"FLOAT32": np.float32, "FLOAT16": np.float16, "INT8": np.int8}
    kind = kinds.get(type_name(tensor))
    return kind is None or is_trained(np.frombuffer(bytes(data), kind))


def module_path(name: str) -> str:
    """Dotted attribute path in litert-torch's tensor names; empty for names without one.

    "pkg.Net/torch.nn.modules.container.Sequential_mlp/torch.nn.modules.linear.Linear_0;1" -> "mlp.0". Containers that
    are only indexed (ModuleList) are not in these names.
    """
    first = name.split(";")[0]
    if "/" not in first:
        return ""
    classes = [part.rpartition(".")[2] for part in first.split("/")]  # "Sequential_mlp", "Linear_0"
    return ".".join(attribute for c in classes if (attribute := c.partition("_")[2]))


def shorten_names(model: Model) -> None:
    """Leave the module path of each tensor's name, and its number: the converter writes every class on the way.

    "pkg.Net/pkg.Stage_stage1/torch.nn.modules.linear.Linear_k;" becomes "stage1.k;1". What enters and leaves the model
    keeps its name.
    """
    graph = model.subgraphs[0]
    seen: Counter[str] = Counter()
    for index, tensor in enumerate(graph.tensors):
        if index not in graph.inputs and index not in graph.outputs:
            name = module_path(tensor.name.decode()) or CONSTANT
            seen[name] += 1
            tensor.name = f"{name};{seen[name]}".encode()


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
    inner = graph.tensors[index]
    twin = _float_copy(graph, index)
    graph.tensors[twin].name, inner.name = inner.name, inner.name + b"_quantized"
    return twin


def _float_copy(graph: Subgraph, index: int) -> int:
    """Index of a new float32 tensor of the shape of tensor `index`."""
    from ai_edge_litert import schema_py_generated as schema

    inner, outer = graph.tensors[index], schema.TensorT()
    outer.name = inner.name + b"_float"
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
