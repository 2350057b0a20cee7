"""Core ML with coremltools' converter, as a targets.types.Target."""

from __future__ import annotations

from targets.coreml import convert, inspect, runner
from targets.coreml.units import SIMULATED
from targets.schemes import made_by
from targets.types import Capability, Precision, Probe
from targets.versions import installed


class CoreML:
    """`.mlpackage` folders, by default for iOS 17 and macOS 14 and later."""

    name = "coreml"
    suffix = ".mlpackage"
    runtimes: tuple[str, ...] = (runner.RUNTIME,)
    simulated: tuple[str, ...] = SIMULATED
    precisions: tuple[Precision, ...] = made_by("coreml")
    scale_rtol = 1e-3  # int8 files compute in float16, and keep their scales in it

    convert = staticmethod(convert.convert)
    inspect = staticmethod(inspect.inspect)
    load = staticmethod(runner.load)

    def probe(self) -> Probe:
        """Imports the SDK: what fails to import is told as the reason."""
        convert_problem, run_problem = convert.unavailable_reason(), runner.run_unavailable_reason()
        return Probe(
            convert=Capability(not convert_problem, convert_problem),
            run={runner.RUNTIME: Capability(not run_problem, run_problem)},
            versions=installed("coremltools", "torch"),
        )
