"""ExecuTorch with the XNNPACK delegate, as a targets.types.Target."""

from __future__ import annotations

from targets.executorch import convert, inspect, runner
from targets.schemes import made_by
from targets.types import Capability, Precision, Probe
from targets.versions import installed


class ExecuTorch:
    """`.pte` files for `executorch.runtime`."""

    name = "executorch"
    suffix = ".pte"
    runtimes: tuple[str, ...] = (runner.RUNTIME,)
    simulated: tuple[str, ...] = ()
    precisions: tuple[Precision, ...] = made_by("executorch")
    scale_rtol = 1e-6  # float32

    convert = staticmethod(convert.convert)
    inspect = staticmethod(inspect.inspect)
    load = staticmethod(runner.load)

    def probe(self) -> Probe:
        """Imports the SDK: what fails to import is told as the reason."""
        problem = runner.unavailable_reason()
        run = Capability(not problem, problem)
        problem = convert.unavailable_reason()
        return Probe(
            Capability(not problem, problem), {runner.RUNTIME: run}, installed("executorch", "torch", "torchao")
        )
