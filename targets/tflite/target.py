"""TFLite with LiteRT's converter: `.tflite` files for ai-edge-litert and for TensorFlow's own interpreter."""

from __future__ import annotations

from targets.target import IMAGE_OPTIONS, Target
from targets.tflite import convert, inspect, runner
from targets.tflite.schemes import SCHEMES

TARGET = Target(
    name="tflite",
    suffix=".tflite",
    runtimes=runner.RUNTIMES,
    schemes=SCHEMES,
    scale_rtol=1e-6,  # float32
    cannot_convert=convert.unavailable_reason,
    cannot_run=runner.unavailable_reason,
    packages=("litert-torch", "litert-converter", "ai-edge-litert", "ai-edge-quantizer", "tensorflow", "torch"),
    convert=convert.convert,
    inspect=inspect.inspect,
    load=runner.load,
    options=IMAGE_OPTIONS,
    gives="probabilities",  # readers of its standard metadata take every output for a head of its own
    shown_tensors="its tensors are those of the runtime's own kernels, without XNNPACK",
)
