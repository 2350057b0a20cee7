"""The precisions that coreml files are made in, or why not, and the oldest system that each is for."""

from __future__ import annotations

import difflib

from targets.target import Schemes, made, not_made
from targets.types import Precision

_MIL_QUANTIZE = "coremltools .../mil/ops/defs/iOS17/quantization_ops.py"

SCHEMES = Schemes(
    "coreml",
    {
        "fp32": made("float32; not on the Neural Engine"),
        "fp16": made("weights and activations in half precision"),
        "int8": made("the same, from iOS 17"),
        "w8a16": not_made(
            f"the quantize operator gives int8 and uint8 only ({_MIL_QUANTIZE}): w8 has int8 weights and fp16 "
            "activations"
        ),
        "int8-dynamic": not_made(f"scale and zero point of the quantize operator are constants ({_MIL_QUANTIZE})"),
        "w4a8-dynamic": not_made(f"as int8-dynamic: scales of activations are constants ({_MIL_QUANTIZE})"),
        "w8": made("weights per channel, activations fp16; from iOS 16"),
        "w4": made(
            "weights in groups, int8 where they do not divide, activations fp16; from iOS 18", 16, 32, 64, 128, 256
        ),
        "lut8": made("palette of 256 values for each weight; from iOS 16"),
        "lut6": made("palette of 64 values; from iOS 16"),
        "lut4": made("palette of 16 values; from iOS 16"),
    },
)

#: Precisions whose weights coremltools stores as signed bytes.
SIGNED: tuple[Precision, ...] = ("int8", "w8")

#: Names that a user may give, with the iOS release whose features they stand for (coremltools.target).
SYSTEMS: dict[str, int] = {
    "iOS15": 15, "iOS16": 16, "iOS17": 17, "iOS18": 18, "iOS26": 26,
    "macOS12": 15, "macOS13": 16, "macOS14": 17, "macOS15": 18, "macOS26": 26,
}  # fmt: skip

#: Operators come with a release: constexpr_affine_dequantize and constexpr_lut_to_dense with iOS 16, quantize and
#: dequantize of activations with iOS 17, constexpr_blockwise_shift_scale (int4) with iOS 18.
_OLDEST: dict[Precision, int] = {
    "fp32": 15, "fp16": 15, "int8": 17, "w8": 16, "w4": 18, "lut8": 16, "lut6": 16, "lut4": 16,
}  # fmt: skip
_DEFAULT = 17


def target_name(precision: Precision, deployment_target: str) -> str:
    """The system a package is written for; the default is iOS 17, or the oldest later one that has the precision."""
    return deployment_target or f"iOS{max(_DEFAULT, _OLDEST[precision])}"


def problem(precision: Precision, deployment_target: str) -> str:
    """Why a package of this precision cannot be for this system, with the nearest that can; empty where it can be."""
    if not deployment_target:
        return ""
    if deployment_target not in SYSTEMS:
        near = difflib.get_close_matches(deployment_target.lower(), [s.lower() for s in SYSTEMS], n=1, cutoff=0.5)
        hint = f" Did you mean {next(s for s in SYSTEMS if s.lower() == near[0])!r}?" if near else ""
        return f"--deployment-target {deployment_target!r} is not one of {', '.join(SYSTEMS)}.{hint}"
    oldest = _OLDEST[precision]
    if SYSTEMS[deployment_target] >= oldest:
        return ""
    family = deployment_target.rstrip("0123456789")
    nearest = next(name for name, release in SYSTEMS.items() if name.startswith(family) and release >= oldest)
    return f"{precision} needs {nearest} or later, --deployment-target {deployment_target} has no operators for it"
