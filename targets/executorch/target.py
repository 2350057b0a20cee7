"""ExecuTorch with the XNNPACK delegate: `.pte` files for `executorch.runtime`."""

from __future__ import annotations

from targets.executorch import convert, inspect, runner
from targets.executorch.schemes import SCHEMES
from targets.target import IMAGE_OPTIONS, Target

TARGET = Target(
    name="executorch",
    suffix=".pte",
    runtimes=(runner.RUNTIME,),
    schemes=SCHEMES,
    scale_rtol=1e-6,  # float32
    cannot_convert=convert.unavailable_reason,
    cannot_run=lambda runtime: runner.unavailable_reason(),
    packages=("executorch", "torch", "torchao"),
    convert=convert.convert,
    inspect=inspect.inspect,
    load=runner.load,
    options=IMAGE_OPTIONS,
)
