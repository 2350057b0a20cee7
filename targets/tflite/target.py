"""TFLite with LiteRT's converter: `.tflite` files for ai-edge-litert and for TensorFlow's own interpreter."""

from __future__ import annotations

from targets.sdk import installed
from targets.target import Target
from targets.tflite import convert, inspect, runner
from targets.tflite.schemes import SCHEMES
from targets.types import Capability, Probe


def probe() -> Probe:
    """Import the SDKs, which takes seconds: the reason says what fails to import."""
    problems = {runtime: runner.unavailable_reason(runtime) for runtime in runner.RUNTIMES}
    run = {runtime: Capability(not problem, problem) for runtime, problem in problems.items()}
    problem = convert.unavailable_reason()
    return Probe(
        Capability(not problem, problem),
        run,
        installed("litert-torch", "litert-converter", "ai-edge-litert", "ai-edge-quantizer", "tensorflow", "torch"),
    )


TARGET = Target(
    name="tflite",
    suffix=".tflite",
    runtimes=runner.RUNTIMES,
    schemes=SCHEMES,
    scale_rtol=1e-6,  # float32
    probe=probe,
    convert=convert.convert,
    inspect=inspect.inspect,
    load=runner.load,
    shown_tensors="its tensors are those of the runtime's own kernels, without XNNPACK",
)
