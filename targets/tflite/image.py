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

    graph, codes, kinds = model.subgraphs[0], schema.BuiltinOperator, schema.TensorType
    images, logits = int(graph.inputs[0]), int(graph.outputs[0])
    _, channels, height, width = (int(n) for n in graph.tensors[images].shape)
    shape = [1, height, width, channels]
    taken = _tensor(graph, INPUT, shape, kinds.UINT8)
    graph.tensors[taken].quantization = schema.QuantizationParametersT()
    graph.tensors[taken].quantization.scale = np.ones(1, np.float32)
    graph.tensors[taken].quantization.zeroPoint = np.zeros(1, np.int64)

    front, value = [], _tensor(graph, "pixels", shape, kinds.FLOAT32)
    front.append(_operator(model, codes.DEQUANTIZE, [taken], value))
    for name, code, constant in (("scaled", "DIV", [255.0]), ("centred", "SUB", mean), ("normalised", "DIV", std)):
        result = _tensor(graph, name, shape, kinds.FLOAT32)
        operand = _constant(model, np.asarray(constant, np.float32), kinds.FLOAT32)
        operator = _operator(model, getattr(codes, code), [value, operand], result)
        options = f"{code.capitalize()}Options"
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, options)
        operator.builtinOptions = getattr(schema, f"{options}T")()
        front.append(operator)
        value = result
    if not _take_channels_last(model, images, value):
        operator = _operator(
            model, codes.TRANSPOSE, [value, _constant(model, np.asarray(_TO_NCHW, np.int32), kinds.INT32)], images
        )
        operator.builtinOptionsType = schema.BuiltinOptions.TransposeOptions
        operator.builtinOptions = schema.TransposeOptionsT()
        front.append(operator)

    given = _tensor(graph, OUTPUT, [int(n) for n in graph.tensors[logits].shape], kinds.FLOAT32)
    softmax = _operator(model, codes.SOFTMAX, [logits], given)
    softmax.builtinOptionsType, softmax.builtinOptions = schema.BuiltinOptions.SoftmaxOptions, schema.SoftmaxOptionsT()
    softmax.builtinOptions.beta = 1.0
    graph.operators = [*front, *graph.operators, softmax]
    graph.tensors[images].name, graph.tensors[logits].name = b"network_input", b"logits"
    graph.inputs, graph.outputs = [taken], [given]
    move_signature(model, "inputs", images, taken)
    move_signature(model, "outputs", logits, given)


def _take_channels_last(model: Model, images: int, value: int) -> bool:
    """Let the network read `value` [1, H, W, 3], if all it does first is to bring its images into that layout.

    That is a TRANSPOSE, or a QUANTIZE and one, for each of which there is one reader.
    """
    graph = model.subgraphs[0]
    chain, tensor = [], images
    while True:
        readers = [operator for operator in graph.operators if tensor in list(operator.inputs)]
        if len(readers) != 1 or operator_name(model, readers[0]) not in ("QUANTIZE", "TRANSPOSE"):
            return False
        chain.append(readers[0])
        if operator_name(model, readers[0]) == "TRANSPOSE":
            break
        tensor = int(readers[0].outputs[0])
    *quantize, transpose = chain
    order = np.frombuffer(bytes(model.buffers[graph.tensors[transpose.inputs[1]].buffer].data), np.int32)
    if len(quantize) > 1 or tuple(order) != _TO_NHWC:
        return False
    result = int(transpose.outputs[0])
    graph.operators.remove(transpose)
    if quantize:
        quantize[0].inputs, quantize[0].outputs = [value], [result]
    else:
        for operator in graph.operators:
            operator.inputs = [value if int(index) == result else int(index) for index in operator.inputs]
    return True


def _tensor(graph: Subgraph, name: str, shape: Sequence[int], kind: int) -> int:
    from ai_edge_litert import schema_py_generated as schema

    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.hasRank = name.encode(), list(shape), kind, True
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _constant(model: Model, values: np.ndarray, kind: int) -> int:
    from ai_edge_litert import schema_py_generated as schema

    index = _tensor(model.subgraphs[0], "constant", values.shape, kind)
    stored = schema.BufferT()
    stored.data = values.view(np.uint8)
    model.subgraphs[0].tensors[index].buffer = len(model.buffers)
    model.buffers.append(stored)
    return index


def _operator(model: Model, builtin: int, inputs: Sequence[int], result: int) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    operator = schema.OperatorT()
    operator.opcodeIndex = opcode_index(model, builtin)
    operator.inputs, operator.outputs = list(inputs), [result]
    return operator
