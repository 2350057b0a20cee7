"""ExecuTorch with the Core ML delegate, as a targets.types.Target."""

from __future__ import annotations

from targets.executorch_coreml import convert, inspect, runner
from targets.schemes import made_by
from targets.types import Capability, Precision, Probe
from targets.versions import installed


class ExecuTorchCoreML:
    """`.pte` files for `executorch.runtime` on iOS 17 and macOS 14 and later."""

    name = "executorch-coreml"
    suffix = ".pte"
    runtimes: tuple[str, ...] = (runner.RUNTIME,)
    simulated: tuple[str, ...] = ()
    precisions: tuple[Precision, ...] = made_by("executorch-coreml")
    scale_rtol = 1e-3  # int8 files compute in float16, and keep their scales in it

    convert = staticmethod(convert.convert)
    inspect = staticmethod(inspect.inspect)
    load = staticmethod(runner.load)

    def probe(self) -> Probe:
        """Imports the SDKs: what fails to import is told as the reason."""
        problem = runner.unavailable_reason()
        run = Capability(not problem, problem)
        problem = convert.unavailable_reason()
        return Probe(
            Capability(not problem, problem), {runner.RUNTIME: run}, installed("executorch", "coremltools", "torch")
        )
