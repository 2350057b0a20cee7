"""Write the small TFLite files, with their answers by NumPy, that an emulated processor is checked with.

    python benchmarks/known_products.py

They are shipped in targets/devices/arm64/known, and needed anew only if what they hold changes. Layers are written
without a converter, whose next version would write other files.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from targets.devices.arm64.emulation import ANSWERS, FOLDER, file_name
from targets.tflite import flatbuffer

# The channels fill the tiles of XNNPACK's Arm kernels (16 outputs, 4 or 8 inputs) and leave a rest of 8; the side and
# the number of channels keep all files together below 100 kB.
_SIDE, _IN, _MIDDLE, _FLOAT_MIDDLE, _OUT = 4, 16, 32, 16, 40
_ZERO = -5
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


@dataclass(frozen=True)
class Made:
    """
    Attributes:
        content: of the file.
        images: float32 [1, 4, 4, 16].
        expected: float32, what the file computes of them.
    """

    content: bytes
    images: np.ndarray
    expected: np.ndarray


def made() -> dict[str, Made]:
    """Kind of products, of those that XNNPACK has kernels of their own for -> a file of them."""
    random = np.random.default_rng(0)
    return {"int8": _int8(random), "int8 weight": _int8_weights(random), "float32": _float32(random)}


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    files = made()
    for kind, one in files.items():
        (folder / file_name(kind)).write_bytes(one.content)
    images = {f"{kind} images": one.images for kind, one in files.items()}
    expected = {f"{kind} expected": one.expected for kind, one in files.items()}
    np.savez(folder / ANSWERS, **images, **expected)


def _int8(random: np.random.Generator) -> Made:
    """3x3 convolution, depthwise 3x3, 1x1 convolution, Linear, with a scale for each output channel."""
    file = LayerFile()
    scale, zero = np.float32(0.02), 3
    values = random.integers(-128, 128, (1, _SIDE, _SIDE, _IN), dtype=np.int8)
    images = (values.astype(np.float32) - zero) * scale
    first = current = file.tensor(values.shape, "INT8", None, np.array([scale]), zero)
    for name, shape in (
        ("CONV_2D", (_MIDDLE, 3, 3, _IN)),
        ("DEPTHWISE_CONV_2D", (1, 3, 3, _MIDDLE)),
        ("CONV_2D", (_MIDDLE, 1, 1, _MIDDLE)),
        ("FULLY_CONNECTED", (_OUT, _SIDE * _SIDE * _MIDDLE)),
    ):
        channel = 3 if name == "DEPTHWISE_CONV_2D" else 0
        weight = random.integers(-127, 128, shape, dtype=np.int8)
        scales = random.uniform(0.001, 0.01, shape[channel]).astype(np.float32)
        bias = random.integers(-2000, 2000, shape[channel], dtype=np.int32)
        constants = [
            file.tensor(shape, "INT8", weight, scales, 0, channel),
            file.tensor(bias.shape, "INT32", bias, scale * scales, 0),
        ]
        sums = _product(name, values.astype(np.int64) - zero, weight.astype(np.int64)) + bias
        real = sums * (scales.astype(np.float64) * scale)
        scale, zero = np.float32(np.abs(real).max() / 120), _ZERO
        values = np.clip(np.rint(real / scale) + zero, -128, 127).astype(np.int8)
        result = file.tensor(values.shape, "INT8", None, np.array([scale]), zero)
        file.layer(name, [current, *constants], result)
        current = result
    expected = (values.astype(np.float32) - zero) * scale
    return Made(file.content(first, current), images, expected)


def _int8_weights(random: np.random.Generator) -> Made:
    """A Linear with int8 weights, whose activations are quantized row by row while it runs."""
    file = LayerFile()
    images = random.standard_normal((1, _SIDE, _SIDE, _IN), dtype=np.float32)
    weight = random.integers(-127, 128, (_OUT, _IN), dtype=np.int8)
    scales = random.uniform(0.001, 0.01, _OUT).astype(np.float32)
    expected = images.astype(np.float64) @ (weight * scales[:, None].astype(np.float64)).T
    first = file.tensor(images.shape, "FLOAT32")
    last = file.tensor(expected.shape, "FLOAT32")
    file.layer("FULLY_CONNECTED", [first, file.tensor(weight.shape, "INT8", weight, scales), -1], last, keep_dims=True)
    return Made(file.content(first, last), images, expected.astype(np.float32))


def _float32(random: np.random.Generator) -> Made:
    """3x3 convolution and Linear."""
    file = LayerFile()
    images = random.standard_normal((1, _SIDE, _SIDE, _IN), dtype=np.float32)
    values = images.astype(np.float64)
    first = current = file.tensor(images.shape, "FLOAT32")
    for name, shape in (
        ("CONV_2D", (_FLOAT_MIDDLE, 3, 3, _IN)),
        ("FULLY_CONNECTED", (_OUT, _SIDE * _SIDE * _FLOAT_MIDDLE)),
    ):
        weight = random.standard_normal(shape, dtype=np.float32)
        bias = random.standard_normal(shape[0], dtype=np.float32)
        constants = [file.tensor(a.shape, "FLOAT32", a) for a in (weight, bias)]
        values = _product(name, values, weight.astype(np.float64)) + bias
        result = file.tensor(values.shape, "FLOAT32")
        file.layer(name, [current, *constants], result)
        current = result
    return Made(file.content(first, current), images, values.astype(np.float32))


def _product(name: str, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """[1, H, W, C] and a weight as TFLite has it -> the sums of products, [1, H, W, channels] or [1, channels]."""
    if name == "FULLY_CONNECTED":
        return x.reshape(1, -1) @ weight.T
    rows, columns = weight.shape[1:3]
    padded = np.pad(x, ((0, 0), (rows // 2,) * 2, (columns // 2,) * 2, (0, 0)))
    total = np.zeros((), x.dtype)
    for row in range(rows):
        for column in range(columns):
            part = padded[:, row : row + x.shape[1], column : column + x.shape[2]]
            tap = weight[:, row, column]  # [O, I]; depthwise [1, C]
            total = total + (part * tap[0] if name == "DEPTHWISE_CONV_2D" else part @ tap.T)
    return total


if __name__ == "__main__":
    write(FOLDER)
