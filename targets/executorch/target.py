"""ExecuTorch with the XNNPACK delegate: `.pte` files for `executorch.runtime`."""

from __future__ import annotations

from targets.executorch import convert, inspect, runner
from targets.executorch.schemes import SCHEMES
from targets.sdk import installed
from targets.target import Target
from targets.types import Capability, Probe


def probe() -> Probe:
    """Import the SDK: the reason says what fails to import."""
    problem = runner.unavailable_reason()
    run = Capability(not problem, problem)
    problem = convert.unavailable_reason()
    return Probe(Capability(not problem, problem), {runner.RUNTIME: run}, installed("executorch", "torch", "torchao"))


TARGET = Target(
    name="executorch",
    suffix=".pte",
    runtimes=(runner.RUNTIME,),
    schemes=SCHEMES,
    scale_rtol=1e-6,  # float32
    probe=probe,
    convert=convert.convert,
    inspect=inspect.inspect,
    load=runner.load,
)
