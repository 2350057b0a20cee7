"""Core ML with coremltools' converter: `.mlpackage` folders, by default for iOS 17 and macOS 14 and later."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields

from targets.coreml import compute_plan, convert, inspect, runner, units
from targets.coreml import schemes as deployment
from targets.coreml.schemes import SCHEMES, SIGNED
from targets.target import Target
from targets.types import PackageOptions, Precision


def refusal(precision: Precision, options: PackageOptions) -> str:
    return deployment.problem(precision, options.deployment_target)


def unused(precisions: Collection[Precision], options: PackageOptions) -> str:
    if options.float32_operators and all(precision == "fp32" for precision in precisions):
        return "--float32-op with --precision fp32: every operator of such a file computes in float32 already"
    if options.signed_weights and not any(precision in SIGNED for precision in precisions):
        return f"--signed-weights: only {' and '.join(SIGNED)} files of coreml have int8 weights"
    return ""


TARGET = Target(
    name="coreml",
    suffix=".mlpackage",
    runtimes=(runner.RUNTIME,),
    schemes=SCHEMES,
    scale_rtol=1e-3,  # int8 files compute in float16, and keep their scales in it
    cannot_convert=convert.unavailable_reason,
    cannot_run=lambda runtime: runner.run_unavailable_reason(),
    packages=("coremltools", "torch"),
    convert=convert.convert,
    inspect=inspect.inspect,
    load=runner.load,
    roundings={name.removeprefix(units.REFERENCE_PREFIX): name for name in units.SIMULATED},
    compute_units=units.RUNTIMES,
    options=frozenset(f.name for f in fields(PackageOptions)) - {"group_size"},
    refusal=refusal,
    unused=unused,
    plan=compute_plan.plan_of,
)
