"""Run a `.tflite` file in LiteRT's or TensorFlow's interpreter, with the XNNPACK delegate."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from targets.sdk import one_line
from targets.types import (
    QuantizedTensor,
    Samples,
    Session,
    Stopwatch,
    TargetError,
    Unavailable,
    check_batch,
    check_threads,
)

LITERT = "litert"
TENSORFLOW = "tensorflow"
RUNTIMES: tuple[str, ...] = (LITERT, TENSORFLOW)


def unavailable_reason(runtime: str) -> str:
    """Why the runtime cannot be used here; empty where it can."""
    try:
        _ = _package(runtime).Interpreter
    except (ImportError, OSError) as error:  # OSError: a shared library does not load
        package = "ai-edge-litert" if runtime == LITERT else "tensorflow"
        return f"the {runtime} runtime does not import ({error}): pip install {package}"
    return ""


def load(path: Path, runtime: str, threads: int) -> TFLiteSession:
    """Open the file and prepare it for `threads` threads.

    Raises:
        Unavailable: not this runtime, or not here.
        TargetError: stage "load", the runtime refuses the file.
    """
    if runtime not in RUNTIMES:
        raise Unavailable("load", f"the tflite target has no runtime {runtime!r} (known: {', '.join(RUNTIMES)})")
    check_threads(threads)
    if reason := unavailable_reason(runtime):
        raise Unavailable("load", reason)
    if not path.is_file():
        raise TargetError("load", f"{path} does not exist: convert the model first")
    start_ns = time.perf_counter_ns()
    interpreter = open_interpreter(path, runtime, threads)
    load_ms = (time.perf_counter_ns() - start_ns) / 1e6
    return TFLiteSession(
        interpreter, path.name, load_ms, lambda: open_interpreter(path, runtime, threads, showing=True)
    )


def open_interpreter(path: Path, runtime: str, threads: int, showing: bool = False) -> Any:
    """The runtime's own interpreter, with its tensors allocated and XNNPACK applied.

    Args:
        showing: keep every tensor readable. That needs the runtime's own kernels: a delegate shows nothing inside.

    Raises:
        TargetError: stage "load".
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tf.lite announces its move to LiteRT
            package, options = _package(runtime), {}
            if showing:
                resolvers = (package if runtime == LITERT else package.experimental).OpResolverType
                options["experimental_preserve_all_tensors"] = True
                options["experimental_op_resolver_type"] = resolvers.BUILTIN_WITHOUT_DEFAULT_DELEGATES
            interpreter = package.Interpreter(str(path), num_threads=threads, **options)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise TargetError("load", f"{runtime} refuses {path.name}: {one_line(error)}") from error
    return interpreter


class TFLiteSession(Session):
    """A loaded model, one image -> [1, classes]; outside float32, or pixels where the file takes them as they are."""

    # Any: the interpreters of both packages are untyped.
    def __init__(self, interpreter: Any, name: str, load_ms: float, open_showing: Callable[[], Any]):
        self.load_ms = load_ms
        self._interpreter = interpreter
        self._open_showing = open_showing
        self._showing: Any = None
        self._name = name
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        if len(inputs) != 1 or len(outputs) != 1:
            raise TargetError("load", f"{name} has {len(inputs)} inputs and {len(outputs)} outputs, not one of each")
        self._input, self._output = inputs[0], outputs[0]
        self._shape = tuple(int(size) for size in self._input["shape"])
        # Scale 1, zero point 0: the bytes are the pixels.
        takes_pixels = self._input["dtype"] == np.uint8 and tuple(self._input["quantization"]) == (1.0, 0)
        self._dtype = "uint8" if takes_pixels else "float32"

    def infer(self, batch: np.ndarray) -> np.ndarray:
        logits = []
        for image in self._images(batch):
            self._set_input(image)
            self._invoke()
            logits.append(dequantize(self._interpreter.get_tensor(self._output["index"]), self._output))
        return np.concatenate(logits)

    def samples(self, batch: np.ndarray, n: int) -> Samples:
        """Setting the input and reading the output are outside the measured interval."""
        images = self._images(batch)
        watch = Stopwatch()
        for i in range(n):
            self._set_input(images[i % len(images)])
            watch.run(self._invoke)
        return watch.samples

    def quantized_tensors(self, image: np.ndarray) -> tuple[QuantizedTensor, ...]:
        """From a second interpreter, without the XNNPACK delegate: its kernels are the runtime's own."""
        (single,) = self._images(image)
        if self._showing is None:
            self._showing = self._open_showing()
        self._set_input(single, self._showing)
        self._invoke(self._showing)
        found = []
        for details in self._showing.get_tensor_details():
            stored = details["quantization_parameters"]
            if details["dtype"] == np.int8 and len(stored["scales"]) == 1:
                values = self._showing.get_tensor(details["index"])
                scale, zero_point = float(stored["scales"][0]), int(stored["zero_points"][0])
                found.append(QuantizedTensor(details["name"], scale, zero_point, values))
        return tuple(found)

    def close(self) -> None:
        self._interpreter = self._showing = None

    def _images(self, batch: np.ndarray) -> list[np.ndarray]:
        """[N, ...] -> N arrays of [1, ...]."""
        check_batch(batch, self._shape[1:], self._name, is_open=self._interpreter is not None, dtype=self._dtype)
        return [np.ascontiguousarray(image[None]) for image in batch]

    def _set_input(self, image: np.ndarray, interpreter: Any = None) -> None:
        (interpreter or self._interpreter).set_tensor(self._input["index"], quantize(image, self._input))

    def _invoke(self, interpreter: Any = None) -> None:
        try:
            (interpreter or self._interpreter).invoke()
        except (ValueError, RuntimeError) as error:
            raise TargetError("run", f"{self._name}: {one_line(error)}") from error


def quantize(values: np.ndarray, details: Mapping[str, Any]) -> np.ndarray:
    """float32 -> the type of the tensor that `details` (of the interpreter) describes, through its scale."""
    if details["dtype"] == values.dtype:
        return values
    scale, zero_point = details["quantization"]
    limits = np.iinfo(details["dtype"])
    # Half to even, like torch's quantize_per_tensor.
    return np.clip(np.rint(values / np.float32(scale)) + zero_point, limits.min, limits.max).astype(details["dtype"])


def dequantize(values: np.ndarray, details: Mapping[str, Any]) -> np.ndarray:
    """The inverse of `quantize`, up to rounding; always a copy."""
    if details["dtype"] == np.float32:
        return values.copy()
    scale, zero_point = details["quantization"]
    return (values.astype(np.float32) - zero_point) * np.float32(scale)


def _package(runtime: str) -> Any:
    """What has the runtime's `Interpreter`."""
    if runtime == LITERT:
        from ai_edge_litert import interpreter

        return interpreter
    import tensorflow

    return tensorflow.lite
