"""The TFLite flatbuffer as objects: read it, look into it, give it a float32 boundary and provenance, write it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from targets.match import is_trained
from targets.types import TargetError

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


def group_scales(model: Model, graph: Subgraph, tensor: Tensor) -> np.ndarray | None:
    """Scales of a constant whose groups of input channels have one each, row after row; None of any other tensor."""
    details = tensor.quantization.details if tensor.quantization is not None else None
    if details is None or not hasattr(details, "blockSize"):
        return None
    scales = graph.tensors[details.scales]
    kind = {"FLOAT32": np.float32, "FLOAT16": np.float16}[type_name(scales)]
    return np.frombuffer(bytes(model.buffers[scales.buffer].data), kind)


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


def write_metadata(model: Model, metadata: Mapping[str, str]) -> None:
    """Store `metadata` as JSON in the file's metadata entry `METADATA_NAME`."""
    write_entry(model, METADATA_NAME, json.dumps(dict(metadata), sort_keys=True).encode())


def write_entry(model: Model, name: bytes | str, data: bytes) -> None:
    """Store `data` in a metadata entry of the file."""
    from ai_edge_litert import schema_py_generated as schema

    content, entry = schema.BufferT(), schema.MetadataT()
    content.data = np.frombuffer(data, np.uint8)
    entry.name, entry.buffer = name, len(model.buffers)
    model.buffers.append(content)
    model.metadata = [*(model.metadata or []), entry]


def is_int8(tensor: Tensor) -> bool:
    return type_name(tensor) in ("INT8", "UINT8") and has_scale(tensor)


def is_integer(tensor: Tensor) -> bool:
    """An integer tensor that stands for real numbers."""
    return type_name(tensor) in QUANTIZED_TYPES and has_scale(tensor)
