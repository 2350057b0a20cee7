"""Nothing in; small TFLite files with what they compute, by NumPy, out; and a worker's answers held to it.

An emulated processor may be wrong in single instructions: QEMU 7.2's "max" multiplies int8 matrices wrongly, and says
nothing. A worker that computes these files wrongly is refused before it opens a file of the user's.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from targets.devices.arm64.layer_file import LayerFile
from targets.types import TargetError

if TYPE_CHECKING:
    from targets.worker.client import WorkerClient

_SIDE, _IN, _MIDDLE, _OUT = 8, 16, 32, 40
_ZERO = -5
# A rounding to the other side costs one step of 1/120, which leaves 45 dB and more; wrong products leave none.
_INT8_DB, _INT8_WEIGHTS_DB, _FLOAT32_DB = 35.0, 30.0, 100.0


@dataclass(frozen=True)
class KnownFile:
    """
    Attributes:
        kind: of the products: "int8", "int8 weight", "float32".
        content: of the `.tflite` file.
        images: float32 [1, 8, 8, 16].
        expected: what the file computes of them.
        least_sqnr_db: that a right answer has.
    """

    kind: str
    content: bytes
    images: np.ndarray
    expected: np.ndarray
    least_sqnr_db: float

    def sqnr_db(self, answer: np.ndarray) -> float:
        """Of an answer against `expected`; inf where they are equal."""
        error = float(np.square(answer.astype(np.float64) - self.expected).sum())
        signal = float(np.square(self.expected.astype(np.float64)).sum())
        return float("inf") if error == 0 else 10 * float(np.log10(signal / error))


def check(worker: WorkerClient, who: str) -> None:
    """Let `worker` compute all known files in LiteRT.

    Raises:
        TargetError: stage "device", `who` computes wrong products; or as of the worker.
    """
    with tempfile.TemporaryDirectory(prefix="known-products-") as folder:
        for known in known_files():
            path = Path(folder) / f"{known.kind.replace(' ', '-')}.tflite"
            path.write_bytes(known.content)
            session = worker.open("tflite", path, "litert", 1)
            found = known.sqnr_db(session.infer(known.images))
            session.close()
            if not found >= known.least_sqnr_db:  # NaN too
                raise TargetError(
                    "device",
                    f"{who} computes wrong {known.kind} products: {found:.1f} dB against the known answer, at least "
                    f"{known.least_sqnr_db:g} are needed; nothing is run on it",
                )


def known_files(seed: int = 0) -> tuple[KnownFile, ...]:
    """Of the kinds of products that XNNPACK has kernels of their own for."""
    random = np.random.default_rng(seed)
    return _int8(random), _int8_weights(random), _float32(random)


def _int8(random: np.random.Generator) -> KnownFile:
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
    return KnownFile("int8", file.content(first, current), images, expected, _INT8_DB)


def _int8_weights(random: np.random.Generator) -> KnownFile:
    """A Linear with int8 weights, whose activations are quantized row by row while it runs."""
    file = LayerFile()
    images = random.standard_normal((1, _SIDE, _SIDE, _IN), dtype=np.float32)
    weight = random.integers(-127, 128, (_OUT, _IN), dtype=np.int8)
    scales = random.uniform(0.001, 0.01, _OUT).astype(np.float32)
    expected = images.astype(np.float64) @ (weight * scales[:, None].astype(np.float64)).T
    first = file.tensor(images.shape, "FLOAT32")
    last = file.tensor(expected.shape, "FLOAT32")
    file.layer("FULLY_CONNECTED", [first, file.tensor(weight.shape, "INT8", weight, scales), -1], last, keep_dims=True)
    return KnownFile("int8 weight", file.content(first, last), images, expected, _INT8_WEIGHTS_DB)


def _float32(random: np.random.Generator) -> KnownFile:
    """3x3 convolution and Linear."""
    file = LayerFile()
    images = random.standard_normal((1, _SIDE, _SIDE, _IN), dtype=np.float32)
    values = images.astype(np.float64)
    first = current = file.tensor(images.shape, "FLOAT32")
    for name, shape in (("CONV_2D", (_MIDDLE, 3, 3, _IN)), ("FULLY_CONNECTED", (_OUT, _SIDE * _SIDE * _MIDDLE))):
        weight = random.standard_normal(shape, dtype=np.float32)
        bias = random.standard_normal(shape[0], dtype=np.float32)
        constants = [file.tensor(a.shape, "FLOAT32", a) for a in (weight, bias)]
        values = _product(name, values, weight.astype(np.float64)) + bias
        result = file.tensor(values.shape, "FLOAT32")
        file.layer(name, [current, *constants], result)
        current = result
    return KnownFile("float32", file.content(first, current), images, values, _FLOAT32_DB)


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
