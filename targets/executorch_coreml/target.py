"""ExecuTorch with the Core ML delegate: `.pte` files for `executorch.runtime` on iOS 17 and macOS 14 and later."""

from __future__ import annotations

from targets.executorch_coreml import convert, inspect, runner
from targets.target import Target

TARGET = Target(
    name="executorch-coreml",
    suffix=".pte",
    runtimes=(runner.RUNTIME,),
    schemes=convert.SCHEMES,
    scale_rtol=1e-3,  # int8 files compute in float16, and keep their scales in it
    cannot_convert=convert.unavailable_reason,
    cannot_run=lambda runtime: runner.unavailable_reason(),
    packages=("executorch", "coremltools", "torch"),
    convert=convert.convert,
    inspect=inspect.inspect,
    load=runner.load,
)
