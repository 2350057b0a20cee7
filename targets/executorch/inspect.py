"""Read the facts from a `.pte` file: its program, the segments after it, its delegates and what runs outside them.

The program is a flatbuffer, and so is each XNNPACK payload. `flatc`, which ships in ExecuTorch's wheel, verifies them
and turns them into JSON. Large constants and the payloads live outside of the program, in segments after it.
"""

from __future__ import annotations

import json
import struct
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from targets.executorch.runner import BACKEND
from targets.match import is_trained
from targets.sdk import typed_line
from targets.types import GraphFacts, QuantParams, TargetError, TensorSpec, Unavailable

# XNNPACK nodes that hold a layer's weights, and the field with the id of the weight's value.
_FILTER_FIELDS = {
    "XNNFullyConnected": "filter_id",
    "XNNConv2d": "filter_id",
    "XNNDepthwiseConv2d": "filter_id",
    "XNNConvTranspose2d": "filter_id",
    "XNNBatchMatrixMultiply": "input2_id",
}
_INT8_TYPES = ("xnn_datatype_qint8", "xnn_datatype_qcint8")
_INT4_TYPES = ("xnn_datatype_qcint4", "xnn_datatype_qbint4")
_FLOAT_TYPES = ("xnn_datatype_fp32", "xnn_datatype_fp16", "xnn_datatype_bf16", "xnn_datatype_pfp32")
# Quantized biases have in_scale * weight_scale: derived from trained scales, and no trained scale themselves.
_BIAS_TYPES = ("xnn_datatype_qint32", "xnn_datatype_qcint32")
# XNNPACK's names for a number format -> ours; "qc": with a scale for each channel, "qb": for each group of them,
# "qd": quantized while the file runs.
_DTYPES = {
    "xnn_datatype_fp32": "fp32",
    "xnn_datatype_pfp32": "fp32",
    "xnn_datatype_fp16": "fp16",
    "xnn_datatype_bf16": "bf16",
    "xnn_datatype_qint8": "int8",
    "xnn_datatype_qcint8": "int8",
    "xnn_datatype_qdint8": "int8",
    "xnn_datatype_qpint8": "int8",
    "xnn_datatype_qcint4": "int4",
    "xnn_datatype_qbint4": "int4",
}


def inspect(path: Path) -> GraphFacts:
    """Facts of the file at `path`; errors as of `read_pte`."""
    return read_pte(path, _facts, "ExecuTorch program")


def read_pte(path: Path, facts: Callable[[bytes], GraphFacts], what: str) -> GraphFacts:
    """What `facts` makes of the content of the file at `path`.

    Raises:
        Unavailable: no ExecuTorch here.
        TargetError: stage "inspect", the file is missing, damaged, or no `what`.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TargetError("inspect", f"{path.name} cannot be read: {error.strerror}") from error
    try:
        return facts(data)
    except ImportError as error:
        raise Unavailable("inspect", f"executorch does not import ({error}): pip install executorch") from error
    except (*_DAMAGE, OSError) as error:
        reason = "flatc refuses it" if isinstance(error, subprocess.CalledProcessError) else typed_line(error, 200)
        raise TargetError("inspect", f"{path.name} is damaged or no {what} ({reason}): convert again") from error


def _facts(data: bytes) -> GraphFacts:
    container = read_container(data)
    plan = container.plan
    tally = tally_kernels(plan)
    delegated: Counter[str] = Counter()
    # Of kernels outside of delegates, which have no dtype of their own, only the weights tell.
    weights = Counter({"int8": tally.int8_weights, "float": len(tally.float_weight_names)})
    typed = Counter(tally.fallback)
    for delegate in plan["delegates"]:
        graph = _delegate_graph(container.payload(delegate, BACKEND))
        delegated.update(node["xnode_union_type"] for node in graph["xnodes"])
        weights.update(_tally_delegate(container, graph, tally))
        typed.update(_typed(graph))

    return GraphFacts(
        size_bytes=len(data),
        inputs=boundary(plan, "input"),
        outputs=boundary(plan, "output"),
        operators=dict(delegated + tally.fallback),
        delegated=delegated.total(),
        fallback=dict(tally.fallback),
        partitions=len(plan["delegates"]),
        int8_weights=tally.int8_weights,
        float_weights=len(tally.float_weight_names),
        float_weight_names=tally.float_weight_names,
        quant_params=tally.quant_params,
        operators_by_dtype=dict(typed.most_common()),
        weights_by_dtype=dict((+weights).most_common()),
    )


def _delegate_graph(payload: bytes) -> Json:
    """The XNNPACK graph of a delegate, with floats as their bits."""
    from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import XNNHeader

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


def _typed(graph: Json) -> Iterator[str]:
    """Type and dtype of the result of each node: "XNNConv2d int8"; the type alone where the format names no result."""
    dtypes = {tensor["id_out"]: tensor["datatype"] for tensor in map(_tensor, graph["xvalues"])}
    for node in graph["xnodes"]:
        datatype = dtypes.get(node["xnode_union"].get("output_id"))
        dtype = f" {_DTYPES.get(datatype, datatype)}" if datatype else ""
        yield f"{node['xnode_union_type']}{dtype}"


def _tensor(value: Json) -> Json:
    """The tensor of a value, whether or not it is quantized."""
    union: Json = value["xvalue_union"]
    tensor: Json = union.get("tensor_value", union)
    return tensor


def _tally_delegate(container: Container, graph: Json, tally: Tally) -> Iterator[str]:
    """Add what a delegate holds to `tally`; the dtype of each of its weights."""
    values = {}
    for value in graph["xvalues"]:
        union = value["xvalue_union"]
        tensor = _tensor(value)
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
        if weight["datatype"] not in (*_INT8_TYPES, *_INT4_TYPES, *_FLOAT_TYPES):
            raise ValueError(f"a weight of type {weight['datatype']}, which this project does not write")
        if weight["datatype"] in _INT4_TYPES:
            yield "int4"
            continue
        is_int8 = weight["datatype"] in _INT8_TYPES
        if is_int8 or is_trained(_float_constant(container, graph, weight)):
            tally.add_weight(f"{node['xnode_union_type']} {weight['dims']}", is_int8)
            yield _DTYPES[weight["datatype"]]


def _float_constant(container: Container, graph: Json, tensor: Json) -> np.ndarray:
    kind = np.float32 if tensor["datatype"] == "xnn_datatype_fp32" else np.uint16
    location = graph["constant_data"][tensor["constant_buffer_idx"]]
    return np.frombuffer(container.named_data(location["named_key"]), kind, int(np.prod(tensor["dims"])))


def _quant_params(container: Container, graph: Json, union: Json) -> Iterator[QuantParams]:
    params = union["quant_params"]
    if union["quant_params_type"] == "PerTensorQuant":
        scale = np.array([params["scale"]], np.uint32).view(np.float32)
        yield QuantParams((float(scale[0]),), (params["zero_point"],))
    elif union["quant_params_type"] in ("PerChannelQuant", "PerChannelGroupQuant"):
        if params["scale_buffer_idx"]:
            location = graph["constant_data"][params["scale_buffer_idx"]]
            stored = container.named_data(location["named_key"])
            scale = _bfloat16(stored) if "group_size" in params else np.frombuffer(stored, np.float32)
            scale = scale[: params["num_scales"]]
        else:
            scale = np.array(params["scale"], np.uint32).view(np.float32)
        yield QuantParams(tuple(map(float, scale)), (0,))


def _bfloat16(stored: bytes) -> np.ndarray:
    """float32 of the same values: its upper halves are bfloat16, in which XNNPACK keeps the scales of groups."""
    return (np.frombuffer(stored, np.uint16).astype(np.uint32) << 16).view(np.float32)


Json = dict[str, Any]

#: What a damaged flatbuffer, or one of another schema, makes of indices, names and sizes.
_DAMAGE = (ValueError, LookupError, TypeError, StopIteration, struct.error, subprocess.CalledProcessError)

# Kernels outside of delegates that hold weights, and the position of the weight among their arguments.
_KERNEL_WEIGHTS = {"aten::convolution": 1, "aten::linear": 1, "aten::addmm": 2, "aten::mm": 1, "aten::bmm": 1}
_SCALAR_TYPES = {"FLOAT": "float32", "HALF": "float16", "CHAR": "int8", "BYTE": "uint8"}


@dataclass(frozen=True)
class Container:
    """The parsed program and the bytes of its segments."""

    program: Json
    segments: tuple[bytes, ...]

    @property
    def plan(self) -> Json:
        plan: Json = next(plan for plan in self.program["execution_plan"] if plan["name"] == "forward")
        return plan

    def named_data(self, key: str) -> bytes:
        index = next(entry["segment_index"] for entry in self.program["named_data"] if entry["key"] == key)
        return self.segments[index]

    def payload(self, delegate: Json, backend: str) -> bytes:
        """What the delegate's backend gets.

        Raises:
            ValueError: the delegate is another backend's.
        """
        if delegate["id"] != backend:
            raise ValueError(f"it has a delegate for {delegate['id']}, of which only {backend} can be read")
        processed = delegate["processed"]
        if processed["location"] == "SEGMENT":
            return self.segments[processed["index"]]
        return bytes(self.program["backend_delegate_data"][processed["index"]]["data"])


@dataclass
class Tally:
    """What is counted while walking through kernels and delegates."""

    fallback: Counter[str] = field(default_factory=Counter)
    int8_weights: int = 0
    float_weight_names: tuple[str, ...] = ()
    quant_params: tuple[QuantParams, ...] = ()

    def add_weight(self, name: str, is_int8: bool) -> None:
        if is_int8:
            self.int8_weights += 1
        else:
            self.float_weight_names += (name,)


def read_container(data: bytes) -> Container:
    """
    Raises:
        one of _DAMAGE: the file is damaged or foreign.
    """
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
    return Container(program, tuple(body[s["offset"] : s["offset"] + s["size"]] for s in program["segments"]))


def tally_kernels(plan: Json) -> Tally:
    """The kernels that run outside of any delegate, their weights and scales."""
    tally = Tally()
    for chain in plan["chains"]:
        for instruction in chain["instructions"]:
            if instruction["instr_args_type"] == "KernelCall":
                _tally_kernel(plan, instruction["instr_args"], tally)
    return tally


def _tally_kernel(plan: Json, call: Json, tally: Tally) -> None:
    name: str = plan["operators"][call["op_index"]]["name"]
    tally.fallback[name] += 1
    values = plan["values"]
    if name in _KERNEL_WEIGHTS:
        weight = values[call["args"][_KERNEL_WEIGHTS[name]]]["val"]
        if weight["data_buffer_idx"] > 0 and "allocation_info" not in weight:
            tally.add_weight(f"{name} {weight['sizes']}", weight["scalar_type"] == "CHAR")
    elif name == "quantized_decomposed::quantize_per_tensor":
        scale, zero_point = (values[argument]["val"] for argument in call["args"][1:3])
        tally.quant_params += (QuantParams((float(scale["double_val"]),), (int(zero_point["int_val"]),)),)


def boundary(plan: Json, side: str) -> tuple[TensorSpec, ...]:
    """The program's inputs or outputs; `side` is "input" or "output"."""
    tensors = (plan["values"][index]["val"] for index in plan[f"{side}s"])
    return tuple(TensorSpec(side, tuple(t["sizes"]), _SCALAR_TYPES[t["scalar_type"]]) for t in tensors)
