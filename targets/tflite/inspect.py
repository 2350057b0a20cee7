"""Read the facts of a `.tflite` file: operators, weights and scales, and what XNNPACK takes of it.

The first three are read from the flatbuffer. Which operators are delegated is not in the file: XNNPACK decides that
each time the file is loaded. So the file is loaded in LiteRT, and its node list is read. The list keeps the nodes that
were replaced, and has one DELEGATE node for each partition with the tensors that enter and leave it; the nodes between
these are the partition's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from targets.tflite import flatbuffer, runner
from targets.tflite.compress import WEIGHT_INPUT
from targets.tflite.flatbuffer import Model, Operator, Subgraph, Tensor
from targets.types import GraphFacts, QuantParams, TargetError, TensorSpec, Unavailable

_FLOAT_TYPES = ("FLOAT32", "FLOAT16", "BFLOAT16")
# The schema's names for a number format -> ours; others are ours in small letters.
_DTYPES = {"FLOAT32": "fp32", "FLOAT16": "fp16", "BFLOAT16": "bf16"}


def inspect(path: Path) -> GraphFacts:
    """Read the facts from the file at `path`.

    Raises:
        Unavailable: no ai-edge-litert here, which brings the schema.
        TargetError: stage "inspect", for a corrupt or foreign file.
    """
    if reason := runner.unavailable_reason(runner.LITERT):
        raise Unavailable("inspect", reason)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise TargetError(
            "inspect", f"{path.name} cannot be read ({error.strerror}): convert the model first"
        ) from error
    model = flatbuffer.parse(content, path.name)
    graph = model.subgraphs[0]
    weights = _weights(model)
    floats = tuple(name for name, tensor in weights if flatbuffer.type_name(tensor) in _FLOAT_TYPES)
    nodes = _nodes(path)
    partitions = [_partition(nodes, delegate) for delegate in nodes if delegate["op_name"] == "DELEGATE"]
    inside = frozenset[int]().union(*partitions)
    outside = [n["op_name"] for n in nodes if n["op_name"] != "DELEGATE" and n["index"] not in inside]
    return GraphFacts(
        size_bytes=len(content),
        inputs=tuple(_spec(graph.tensors[index]) for index in graph.inputs),
        outputs=tuple(_spec(graph.tensors[index]) for index in graph.outputs),
        operators=_counted(flatbuffer.operator_name(model, operator) for operator in graph.operators),
        delegated=len(inside),
        fallback=_counted(outside),
        partitions=len(partitions),
        int8_weights=sum(flatbuffer.type_name(tensor) == "INT8" for _, tensor in weights),
        float_weights=len(floats),
        float_weight_names=floats,
        quant_params=tuple(_all_quant_params(model, graph)),
        operators_by_dtype=_counted(_typed(model, graph, operator) for operator in graph.operators),
        weights_by_dtype=_counted(_dtype(tensor) for _, tensor in weights),
    )


def _typed(model: Model, graph: Subgraph, operator: Operator) -> str:
    """Type and dtype of the first result: "CONV_2D int8"."""
    return f"{flatbuffer.operator_name(model, operator)} {_dtype(graph.tensors[operator.outputs[0]])}"


def _dtype(tensor: Tensor) -> str:
    name = flatbuffer.type_name(tensor)
    return _DTYPES.get(name, name.lower())


def _weights(model: Model) -> list[tuple[str, Tensor]]:
    """Name and tensor of each trained constant that is some operator's weight; one that two share counts once."""
    weights: dict[tuple[int, int], tuple[str, Tensor]] = {}
    for number, graph in enumerate(model.subgraphs):
        # float16 weights are widened by a DEQUANTIZE of the constant; int8 ones would be, were they not computed with.
        widened = {
            op.outputs[0]: op.inputs[0] for op in graph.operators if flatbuffer.operator_name(model, op) == "DEQUANTIZE"
        }
        for operator in graph.operators:
            position = WEIGHT_INPUT.get(flatbuffer.operator_name(model, operator))
            if position is None:
                continue
            index = operator.inputs[position]
            index = widened.get(index, index)
            tensor = graph.tensors[index]
            if (number, index) not in weights and flatbuffer.is_trained_constant(model, tensor):
                weights[number, index] = (_weight_name(graph, tensor, operator), tensor)
    return list(weights.values())


def _weight_name(graph: Subgraph, weight: Tensor, operator: Operator) -> str:
    """The module path of the weight, or of the operator's result where the converter gave the weight no such name."""
    for tensor in (weight, graph.tensors[operator.outputs[0]]):
        name = tensor.name.decode()
        path = flatbuffer.module_path(name) or name.split(";")[0]  # as the converter named it; as we shortened it
        if path != flatbuffer.CONSTANT:
            return path
    return weight.name.decode()


def _nodes(path: Path) -> Sequence[Mapping[str, Any]]:
    """The interpreter's nodes after XNNPACK was applied: index, op_name, inputs, outputs."""
    try:
        # One thread: which nodes XNNPACK takes does not depend on their number.
        interpreter = runner.open_interpreter(path, runner.LITERT, threads=1)
    except TargetError as error:
        raise TargetError("inspect", error.cause) from error
    nodes: Sequence[Mapping[str, Any]] = interpreter._get_ops_details()  # no public function lists the nodes
    return nodes


def _partition(nodes: Sequence[Mapping[str, Any]], delegate: Mapping[str, Any]) -> set[int]:
    """Indices of the nodes that `delegate` replaced: back from the tensors that leave it to those that enter it."""
    producers = {int(t): n for n in nodes if n["op_name"] != "DELEGATE" for t in n["outputs"]}
    seen = {int(tensor) for tensor in delegate["inputs"]}
    open_tensors = [int(tensor) for tensor in delegate["outputs"]]
    replaced: set[int] = set()
    while open_tensors:
        tensor = open_tensors.pop()
        if tensor in seen or tensor not in producers:
            continue
        seen.add(tensor)
        replaced.add(producers[tensor]["index"])
        open_tensors += [int(source) for source in producers[tensor]["inputs"]]
    return replaced


def _all_quant_params(model: Model, graph: Subgraph) -> Iterator[QuantParams]:
    for tensor in graph.tensors:
        # int32 and int64 biases carry scales too: input scale times weight scale, derived and not trained.
        if flatbuffer.type_name(tensor) not in flatbuffer.QUANTIZED_TYPES:
            continue
        if flatbuffer.has_scale(tensor):
            scale, zero_point = tensor.quantization.scale, tensor.quantization.zeroPoint
            yield QuantParams(
                scale=tuple(float(s) for s in scale),
                zero_point=tuple(int(z) for z in zero_point) if zero_point is not None else (0,) * len(scale),
            )
        elif (groups := flatbuffer.group_scales(model, graph, tensor)) is not None:
            yield QuantParams(tuple(map(float, groups)), (0,))


def _spec(tensor: Tensor) -> TensorSpec:
    shape = tuple(int(size) for size in tensor.shape) if tensor.shape is not None else ()
    return TensorSpec(tensor.name.decode(), shape, flatbuffer.type_name(tensor).lower())


def _counted(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(names).most_common())
