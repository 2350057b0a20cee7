"""TFLite with LiteRT's converter and two interpreters, as a targets.types.Target."""

from __future__ import annotations

from targets.schemes import made_by
from targets.tflite import convert, inspect, runner
from targets.types import Capability, Precision, Probe
from targets.versions import installed


class TFLite:
    """`.tflite` files for ai-edge-litert and for TensorFlow's own interpreter."""

    name = "tflite"
    suffix = ".tflite"
    runtimes: tuple[str, ...] = runner.RUNTIMES
    simulated: tuple[str, ...] = ()
    precisions: tuple[Precision, ...] = made_by("tflite")
    scale_rtol = 1e-6  # float32

    convert = staticmethod(convert.convert)
    inspect = staticmethod(inspect.inspect)
    load = staticmethod(runner.load)

    def probe(self) -> Probe:
        """Imports the SDKs, which takes seconds: what fails to import is told as the reason."""
        run = {}
        for runtime in self.runtimes:
            problem = runner.unavailable_reason(runtime)
            run[runtime] = Capability(not problem, problem)
        problem = convert.unavailable_reason()
        return Probe(
            Capability(not problem, problem),
            run,
            installed("litert-torch", "litert-converter", "ai-edge-litert", "ai-edge-quantizer", "tensorflow", "torch"),
        )
