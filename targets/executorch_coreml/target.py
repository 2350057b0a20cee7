"""ExecuTorch with the Core ML delegate: `.pte` files for `executorch.runtime` on iOS 17 and macOS 14 and later."""

from __future__ import annotations

from targets.executorch_coreml import convert, inspect, runner
from targets.executorch_coreml.schemes import SCHEMES
from targets.sdk import installed
from targets.target import Target
from targets.types import Capability, Probe


def probe() -> Probe:
    """Import the SDKs: the reason says what fails to import."""
    problem = runner.unavailable_reason()
    run = Capability(not problem, problem)
    problem = convert.unavailable_reason()
    return Probe(
        Capability(not problem, problem), {runner.RUNTIME: run}, installed("executorch", "coremltools", "torch")
    )


TARGET = Target(
    name="executorch-coreml",
    suffix=".pte",
    runtimes=(runner.RUNTIME,),
    schemes=SCHEMES,
    scale_rtol=1e-3,  # int8 files compute in float16, and keep their scales in it
    probe=probe,
    convert=convert.convert,
    inspect=inspect.inspect,
    load=runner.load,
)
