"""Put the image boundary around a TFLite file: pixels, normalisation and layout in front, softmax behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from targets.tflite.flatbuffer import Model, Subgraph, operator_name
from targets.tflite.passes import move_signature, opcode_index

INPUT, OUTPUT = "images", "probabilities"
_TO_NCHW, _TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)


def put_image_boundary(model: Model, mean: Sequence[float], std: Sequence[float]) -> None:
    """float32 [1, 3, H, W] -> logits becomes uint8 RGB [1, H, W, 3] -> probabilities.

    The input has scale 1 and zero point 0, so that DEQUANTIZE, which delegates take, is the cast. The divisions are
    those of torchvision's ToTensor and Normalize: what the network gets is the same to the last bit. On the finished
    file, because the converter would compute with reciprocals, and because nothing else of the file changes so.
    """
    from ai_edge_litert import schema_py_generated as schema

    graph, kinds = model.subgraphs[0], schema.TensorType
    images, logits = int(graph.inputs[0]), int(graph.outputs[0])
    _, channels, height, width = (int(n) for n in graph.tensors[images].shape)
    picture, rows = [1, height, width, channels], [1, height, width * channels]
    taken = _tensor(graph, INPUT, picture, kinds.UINT8)
    _pixels_are_their_bytes(graph, taken)

    # As rows of W x 3 values, with constants of a row: kernels that broadcast over the last axis are slow on one of 3.
    flat = _tensor(graph, "rows", rows, kinds.UINT8)
    _pixels_are_their_bytes(graph, flat)
    value = _tensor(graph, "pixels", rows, kinds.FLOAT32)
    front = [
        _operator(model, "RESHAPE", [taken, _constant(model, rows, kinds.INT32)], flat),
        _operator(model, "DEQUANTIZE", [flat], value),
    ]
    for name, code, constant in (
        ("scaled", "DIV", [255.0]),
        ("centred", "SUB", np.tile(mean, width)),
        ("normalised", "DIV", np.tile(std, width)),
    ):
        result = _tensor(graph, name, rows, kinds.FLOAT32)
        front.append(_operator(model, code, [value, _constant(model, constant, kinds.FLOAT32)], result))
        value = result
    back = _constant(model, picture, kinds.INT32)
    start = _channels_last(model, images)
    if start is None:
        shaped = _tensor(graph, "picture", picture, kinds.FLOAT32)
        front.append(_operator(model, "RESHAPE", [value, back], shaped))
        front.append(_operator(model, "TRANSPOSE", [shaped, _constant(model, _TO_NCHW, kinds.INT32)], images))
    else:
        quantize, transpose = start
        graph.operators.remove(transpose)
        if quantize is not None:  # bytes are reshaped, not floats
            graph.operators.remove(quantize)
            inner = graph.tensors[quantize.outputs[0]]
            inner.shape, inner.shapeSignature = rows, None
            quantize.inputs, value = [value], int(quantize.outputs[0])
            front.append(quantize)
        front.append(_operator(model, "RESHAPE", [value, back], int(transpose.outputs[0])))

    given = _tensor(graph, OUTPUT, [int(n) for n in graph.tensors[logits].shape], kinds.FLOAT32)
    softmax = _operator(model, "SOFTMAX", [logits], given)
    softmax.builtinOptions.beta = 1.0
    graph.operators = [*front, *graph.operators, softmax]
    graph.tensors[images].name, graph.tensors[logits].name = b"network_input", b"logits"
    graph.inputs, graph.outputs = [taken], [given]
    move_signature(model, "inputs", images, taken)
    move_signature(model, "outputs", logits, given)


def _channels_last(model: Model, images: int) -> tuple[Any, Any] | None:
    """(QUANTIZE or None, TRANSPOSE), if bringing its images into that layout is all that the network does first.

    None where it does something else, or where several operators read one of the two.
    """
    graph, quantize, tensor = model.subgraphs[0], None, images
    while True:
        readers = [operator for operator in graph.operators if tensor in list(operator.inputs)]
        name = operator_name(model, readers[0]) if len(readers) == 1 else ""
        if name == "QUANTIZE" and quantize is None:
            quantize, tensor = readers[0], int(readers[0].outputs[0])
            continue
        if name != "TRANSPOSE":
            return None
        order = np.frombuffer(bytes(model.buffers[graph.tensors[readers[0].inputs[1]].buffer].data), np.int32)
        return (quantize, readers[0]) if tuple(order) == _TO_NHWC else None


def _pixels_are_their_bytes(graph: Subgraph, index: int) -> None:
    from ai_edge_litert import schema_py_generated as schema

    quantization = schema.QuantizationParametersT()
    quantization.scale, quantization.zeroPoint = np.ones(1, np.float32), np.zeros(1, np.int64)
    graph.tensors[index].quantization = quantization


def _tensor(graph: Subgraph, name: str, shape: Sequence[int], kind: int) -> int:
    from ai_edge_litert import schema_py_generated as schema

    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.hasRank = name.encode(), list(shape), kind, True
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _constant(model: Model, values: Sequence[float] | np.ndarray, kind: int) -> int:
    from ai_edge_litert import schema_py_generated as schema

    array = np.asarray(values, np.int32 if kind == schema.TensorType.INT32 else np.float32)
    index = _tensor(model.subgraphs[0], "constant", array.shape, kind)
    stored = schema.BufferT()
    stored.data = array.view(np.uint8)
    model.subgraphs[0].tensors[index].buffer = len(model.buffers)
    model.buffers.append(stored)
    return index


def _operator(model: Model, code: str, inputs: Sequence[int], result: int) -> Any:
    """With the default options of its kind."""
    from ai_edge_litert import schema_py_generated as schema

    operator = schema.OperatorT()
    operator.opcodeIndex = opcode_index(model, getattr(schema.BuiltinOperator, code))
    operator.inputs, operator.outputs = list(inputs), [result]
    options = f"{code.capitalize()}Options"
    operator.builtinOptionsType = getattr(schema.BuiltinOptions, options)
    operator.builtinOptions = getattr(schema, f"{options}T")()
    return operator
