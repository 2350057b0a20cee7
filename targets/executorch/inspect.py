"""A `.pte` file in, the facts that it holds out: kernels, delegates, and the XNNPACK graph inside each delegate.

The program and each XNNPACK payload are flatbuffers. `flatc`, which ships in ExecuTorch's wheel, verifies them and
turns them into JSON. Large constants live outside of them, in segments after the program.
"""

from __future__ import annotations

import json
import struct
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from targets.executorch.runner import BACKEND
from targets.types import GraphFacts, QuantParams, TargetError, TensorSpec, Unavailable
from targets.weights import is_trained

Json = dict[str, Any]

# XNNPACK nodes that hold a layer's weights, and the field with the id of the weight's value.
_FILTER_FIELDS = {
    "XNNFullyConnected": "filter_id",
    "XNNConv2d": "filter_id",
    "XNNDepthwiseConv2d": "filter_id",
    "XNNConvTranspose2d": "filter_id",
    "XNNBatchMatrixMultiply": "input2_id",
}
# Kernels outside of delegates that hold weights, and the position of the weight among their arguments.
_KERNEL_WEIGHTS = {
    "aten::convolution": 1,
    "aten::linear": 1,
    "aten::addmm": 2,
    "aten::mm": 1,
    "aten::bmm": 1,
}
_INT8_TYPES = ("xnn_datatype_qint8", "xnn_datatype_qcint8")
_FLOAT_TYPES = ("xnn_datatype_fp32", "xnn_datatype_fp16", "xnn_datatype_bf16", "xnn_datatype_pfp32")
# Quantized biases have in_scale * weight_scale: derived from trained scales, and no trained scale themselves.
_BIAS_TYPES = ("xnn_datatype_qint32", "xnn_datatype_qcint32")


@dataclass(frozen=True)
class _Container:
    """The parsed program and the bytes of its segments."""

    program: Json
    segments: tuple[bytes, ...]

    @property
    def plan(self) -> Json:
        plan: Json = self.program["execution_plan"][0]
        return plan

    def named_data(self, key: str) -> bytes:
        index = next(entry["segment_index"] for entry in self.program["named_data"] if entry["key"] == key)
        return self.segments[index]


@dataclass
class _Tally:
    """What is counted while walking through kernels and delegates."""

    int8_weights: int = 0
    float_weight_names: tuple[str, ...] = ()
    quant_params: tuple[QuantParams, ...] = ()

    def add_weight(self, name: str, is_int8: bool) -> None:
        if is_int8:
            self.int8_weights += 1
        else:
            self.float_weight_names += (name,)


def inspect(path: Path) -> GraphFacts:
    """Facts of the file at `path`.

    Raises:
        Unavailable: no ExecuTorch here.
        TargetError: stage "inspect", the file is missing, damaged, or not a `.pte`.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TargetError("inspect", f"{path.name} cannot be read: {error.strerror}") from error
    try:
        return _facts(data)
    except ImportError as error:
        raise Unavailable("inspect", f"executorch does not import ({error}): pip install executorch") from error
    # What a damaged flatbuffer, or one of another schema, makes of indices, names and sizes.
    except (ValueError, LookupError, TypeError, StopIteration, struct.error, subprocess.CalledProcessError) as error:
        raise TargetError(
            "inspect", f"{path.name} is damaged or no ExecuTorch program ({_reason(error)}): convert again"
        ) from error


def _facts(data: bytes) -> GraphFacts:
    container = _read_container(data)
    plan = container.plan
    instructions = [i for chain in plan["chains"] for i in chain["instructions"]]

    tally = _Tally()
    fallback: Counter[str] = Counter()
    for instruction in instructions:
        if instruction["instr_args_type"] == "KernelCall":
            fallback[_kernel_name(plan, instruction["instr_args"])] += 1
            _tally_kernel(plan, instruction["instr_args"], tally)

    delegated: Counter[str] = Counter()
    for delegate in plan["delegates"]:
        graph = _delegate_graph(container, delegate)
        delegated.update(node["xnode_union_type"] for node in graph["xnodes"])
        _tally_delegate(container, graph, tally)

    return GraphFacts(
        size_bytes=len(data),
        inputs=tuple(_tensor_spec(plan, index, "input") for index in plan["inputs"]),
        outputs=tuple(_tensor_spec(plan, index, "output") for index in plan["outputs"]),
        operators=dict(delegated + fallback),
        delegated=delegated.total(),
        fallback=dict(fallback),
        partitions=len(plan["delegates"]),
        int8_weights=tally.int8_weights,
        float_weights=len(tally.float_weight_names),
        float_weight_names=tally.float_weight_names,
        quant_params=tally.quant_params,
    )


def _read_container(data: bytes) -> _Container:
    from executorch.exir._serialize._flatbuffer import _program_flatbuffer_to_json
    from executorch.exir._serialize._program import _get_extended_header

    if data[4:6] != b"ET":
        raise ValueError(f"it starts with {data[:8]!r}")
    header = _get_extended_header(data)
    if header is None or not header.is_valid():
        raise ValueError("its header is missing")
    end = header.segment_base_offset + header.segment_data_size
    if len(data) < end:
        raise ValueError(f"it has {len(data)} bytes and announces {end}")
    program = json.loads(_program_flatbuffer_to_json(data[: header.program_size]))
    body = data[header.segment_base_offset :]
    return _Container(program, tuple(body[s["offset"] : s["offset"] + s["size"]] for s in program["segments"]))


def _delegate_graph(container: _Container, delegate: Json) -> Json:
    """The XNNPACK graph of a delegate, with floats as their bits."""
    from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import XNNHeader

    if delegate["id"] != BACKEND:
        raise ValueError(f"it has a delegate for {delegate['id']}, of which only {BACKEND} can be read")
    processed = delegate["processed"]
    if processed["location"] == "SEGMENT":
        payload = container.segments[processed["index"]]
    else:
        payload = bytes(container.program["backend_delegate_data"][processed["index"]]["data"])
    header = XNNHeader.from_bytes(payload[: XNNHeader.EXPECTED_LENGTH])
    return _decompile(payload[header.flatbuffer_offset : header.flatbuffer_offset + header.flatbuffer_size])


def _decompile(flatbuffer: bytes) -> Json:
    from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import _get_schema_bytes
    from executorch.exir._serialize._flatbuffer import _flatc_decompile

    with tempfile.TemporaryDirectory() as folder:
        schema, binary = Path(folder, "graph.fbs"), Path(folder, "graph.bin")
        # flatc prints floats with six decimals, which ruins a scale. Read as integers, their bits come out whole.
        schema.write_bytes(_get_schema_bytes().replace(b"float", b"uint"))
        binary.write_bytes(flatbuffer)
        _flatc_decompile(folder, str(schema), str(binary), ["--raw-binary"])
        graph: Json = json.loads(binary.with_suffix(".json").read_bytes())
        return graph


def _tally_delegate(container: _Container, graph: Json, tally: _Tally) -> None:
    values = {}
    for value in graph["xvalues"]:
        union = value["xvalue_union"]
        tensor = union.get("tensor_value", union)
        values[tensor["id_out"]] = tensor
        if "quant_params" in union and tensor["datatype"] not in _BIAS_TYPES:
            tally.quant_params += tuple(_quant_params(container, graph, union))
    for node in graph["xnodes"]:
        field = _FILTER_FIELDS.get(node["xnode_union_type"])
        if field is None:
            continue
        weight = values[node["xnode_union"][field]]
        if weight["constant_buffer_idx"] == 0:  # computed while running: a matrix product of two activations
            continue
        if weight["datatype"] not in (*_INT8_TYPES, *_FLOAT_TYPES):
            raise ValueError(f"a weight of type {weight['datatype']}, which this project does not write")
        is_int8 = weight["datatype"] in _INT8_TYPES
        if is_int8 or is_trained(_float_constant(container, graph, weight)):
            tally.add_weight(f"{node['xnode_union_type']} {weight['dims']}", is_int8)


def _float_constant(container: _Container, graph: Json, tensor: Json) -> np.ndarray:
    kind = np.float32 if tensor["datatype"] == "xnn_datatype_fp32" else np.uint16
    location = graph["constant_data"][tensor["constant_buffer_idx"]]
    return np.frombuffer(container.named_data(location["named_key"]), kind, int(np.prod(tensor["dims"])))


def _quant_params(container: _Container, graph: Json, union: Json) -> Iterator[QuantParams]:
    params = union["quant_params"]
    if union["quant_params_type"] == "PerTensorQuant":
        scale = np.array([params["scale"]], np.uint32).view(np.float32)
        yield QuantParams((float(scale[0]),), (params["zero_point"],))
    elif union["quant_params_type"] == "PerChannelQuant":
        if params["scale_buffer_idx"]:
            location = graph["constant_data"][params["scale_buffer_idx"]]
            scale = np.frombuffer(container.named_data(location["named_key"]), np.float32, params["num_scales"])
        else:
            scale = np.array(params["scale"], np.uint32).view(np.float32)
        yield QuantParams(tuple(map(float, scale)), (0,))


def _tally_kernel(plan: Json, call: Json, tally: _Tally) -> None:
    name = _kernel_name(plan, call)
    values = plan["values"]
    if name in _KERNEL_WEIGHTS:
        weight = values[call["args"][_KERNEL_WEIGHTS[name]]]["val"]
        if weight["data_buffer_idx"] > 0 and "allocation_info" not in weight:
            tally.add_weight(f"{name} {weight['sizes']}", weight["scalar_type"] == "CHAR")
    elif name == "quantized_decomposed::quantize_per_tensor":
        scale, zero_point = (values[argument]["val"] for argument in call["args"][1:3])
        tally.quant_params += (QuantParams((float(scale["double_val"]),), (int(zero_point["int_val"]),)),)


def _kernel_name(plan: Json, call: Json) -> str:
    name: str = plan["operators"][call["op_index"]]["name"]
    return name


def _tensor_spec(plan: Json, index: int, name: str) -> TensorSpec:
    tensor = plan["values"][index]["val"]
    return TensorSpec(
        name, tuple(tensor["sizes"]), {"FLOAT": "float32", "HALF": "float16", "CHAR": "int8"}[tensor["scalar_type"]]
    )


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return "flatc refuses it"
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
