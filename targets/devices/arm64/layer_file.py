"""Layers with their constants in, a `.tflite` file of them in a row out: without a converter, which takes seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from targets.tflite import flatbuffer

# What the schema counts versions by: int8 with a scale for each channel, and dynamic ranges.
_VERSIONS = {"CONV_2D": 5, "DEPTHWISE_CONV_2D": 6, "FULLY_CONNECTED": 9}


class LayerFile:
    """One graph that grows at its end."""

    def __init__(self) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self._schema = schema
        self._model = schema.ModelT()
        self._model.version = 3
        self._model.operatorCodes, self._model.buffers = [], [schema.BufferT()]  # the first stands for "no constant"
        self._graph = schema.SubGraphT()
        self._graph.tensors, self._graph.operators = [], []
        self._model.subgraphs = [self._graph]

    def tensor(
        self,
        shape: Sequence[int],
        dtype: str,
        constant: np.ndarray | None = None,
        scales: np.ndarray | None = None,
        zero_point: int = 0,
        channel: int = 0,
    ) -> int:
        """Its index.

        Args:
            dtype: as the schema calls it: "INT8".
            scales: float32, one, or one for each index along axis `channel`; None: not quantized.
        """
        tensor = self._schema.TensorT()
        tensor.name, tensor.shape = f"tensor_{len(self._graph.tensors)}".encode(), [int(n) for n in shape]
        tensor.type = getattr(self._schema.TensorType, dtype)
        tensor.buffer = 0 if constant is None else len(self._model.buffers)
        if constant is not None:
            buffer = self._schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(constant).tobytes(), np.uint8)
            self._model.buffers.append(buffer)
        if scales is not None:
            tensor.quantization = self._schema.QuantizationParametersT()
            tensor.quantization.scale = scales.astype(np.float32)
            tensor.quantization.zeroPoint = np.full(len(scales), zero_point, np.int64)
            tensor.quantization.quantizedDimension = channel
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def layer(self, name: str, inputs: Sequence[int], result: int, keep_dims: bool = False) -> None:
        """CONV_2D and DEPTHWISE_CONV_2D with stride 1 and zeros around, or FULLY_CONNECTED; inputs, weight, bias."""
        code, operator = self._schema.OperatorCodeT(), self._schema.OperatorT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(self._schema.BuiltinOperator, name)
        code.version = _VERSIONS[name]
        operator.opcodeIndex = len(self._model.operatorCodes)
        operator.inputs, operator.outputs = list(inputs), [result]
        operator.builtinOptionsType, operator.builtinOptions = self._options(name, keep_dims)
        self._model.operatorCodes.append(code)
        self._graph.operators.append(operator)

    def content(self, first: int, last: int) -> bytes:
        """The file, from tensor `first` to tensor `last`."""
        self._graph.inputs, self._graph.outputs = [first], [last]
        return flatbuffer.serialize(self._model)

    # Any: the generated classes of the schema are untyped.
    def _options(self, name: str, keep_dims: bool) -> tuple[int, Any]:
        schema = self._schema
        if name == "FULLY_CONNECTED":
            options: Any = schema.FullyConnectedOptionsT()
            options.keepNumDims, options.asymmetricQuantizeInputs = keep_dims, True
            return schema.BuiltinOptions.FullyConnectedOptions, options
        options = schema.Conv2DOptionsT() if name == "CONV_2D" else schema.DepthwiseConv2DOptionsT()
        options.padding, options.strideW, options.strideH = schema.Padding.SAME, 1, 1
        options.dilationWFactor = options.dilationHFactor = 1
        if name == "CONV_2D":
            return schema.BuiltinOptions.Conv2DOptions, options
        options.depthMultiplier = 1
        return schema.BuiltinOptions.DepthwiseConv2DOptions, options
