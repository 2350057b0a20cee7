"""ExecuTorch with the Core ML delegate, as a targets.types.Target."""

from __future__ import annotations

from pathlib import Path

from targets.executorch_coreml import convert, inspect, runner
from targets.types import Artifact, Capability, ConvertRequest, GraphFacts, Precision, Probe, Session
from targets.versions import installed


class ExecuTorchCoreML:
    """`.pte` files for `executorch.runtime` on iOS 17 and macOS 14 and later."""

    name = "executorch-coreml"
    suffix = ".pte"
    runtimes: tuple[str, ...] = (runner.RUNTIME,)
    simulated: tuple[str, ...] = ()
    precisions: tuple[Precision, ...] = convert.PRECISIONS
    scale_rtol = 1e-3  # int8 files compute in float16, and keep their scales in it

    def probe(self) -> Probe:
        """Imports the SDKs: what fails to import is told as the reason."""
        problem = runner.unavailable_reason()
        run = Capability(not problem, problem)
        problem = convert.unavailable_reason()
        return Probe(
            Capability(not problem, problem), {runner.RUNTIME: run}, installed("executorch", "coremltools", "torch")
        )

    def convert(self, request: ConvertRequest) -> Artifact:
        convert.convert(request)
        return Artifact(self.name, request.precision, request.output)

    def inspect(self, path: Path) -> GraphFacts:
        return inspect.inspect(path)

    def load(self, path: Path, runtime: str, threads: int) -> Session:
        return runner.load(path, runtime, threads)
