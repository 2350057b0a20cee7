"""Read the facts of a `.pte` file from the file: kernels, delegates, and the XNNPACK graph inside each delegate.

Each XNNPACK payload is a flatbuffer, which `flatc` verifies and turns into JSON as it does the program around it.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from targets.executorch.container import DAMAGE, Container, Json, Tally, boundary, read_container, reason, tally_kernels
from targets.executorch.runner import BACKEND
from targets.types import GraphFacts, QuantParams, TargetError, Unavailable
from targets.weights import is_trained

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
    except DAMAGE as error:
        raise TargetError(
            "inspect", f"{path.name} is damaged or no ExecuTorch program ({reason(error)}): convert again"
        ) from error


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
