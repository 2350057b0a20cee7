"""TFLite with LiteRT's converter and two interpreters, as a targets.types.Target."""

from __future__ import annotations

from pathlib import Path

from targets.tflite import convert, inspect, runner
from targets.types import Artifact, Capability, ConvertRequest, GraphFacts, Precision, Probe, Session
from targets.versions import installed


class TFLite:
    """`.tflite` files for ai-edge-litert and for TensorFlow's own interpreter."""

    name = "tflite"
    suffix = ".tflite"
    runtimes: tuple[str, ...] = runner.RUNTIMES
    simulated: tuple[str, ...] = ()
    precisions: tuple[Precision, ...] = convert.PRECISIONS
    scale_rtol = 1e-6  # float32

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

    def convert(self, request: ConvertRequest) -> Artifact:
        convert.convert(request)
        return Artifact(self.name, request.precision, request.output)

    def inspect(self, path: Path) -> GraphFacts:
        return inspect.inspect(path)

    def load(self, path: Path, runtime: str, threads: int) -> Session:
        return runner.load(path, runtime, threads)
