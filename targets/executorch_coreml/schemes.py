"""The precisions that executorch-coreml files are made in, or why not, with the source of each reason."""

from __future__ import annotations

from targets.target import Schemes, made, not_made

_MIL_QUANTIZE = "coremltools .../mil/ops/defs/iOS17/quantization_ops.py"
_ELSEWHERE = not_made("weights alone are compressed in Core ML packages of their own: --target coreml")

SCHEMES = Schemes(
    "executorch-coreml",
    {
        "fp32": made("float32; not on the Neural Engine"),
        "fp16": made("weights and activations in half precision"),
        "int8": made("the same, from iOS 17"),
        "w8a16": not_made(f"as in coreml: no int16 activations ({_MIL_QUANTIZE})"),
        "int8-dynamic": not_made(f"as in coreml: scales of activations are constants ({_MIL_QUANTIZE})"),
        "w4a8-dynamic": not_made(f"as in coreml: scales of activations are constants ({_MIL_QUANTIZE})"),
        "w8": _ELSEWHERE,
        "w4": _ELSEWHERE,
        "lut8": _ELSEWHERE,
        "lut6": _ELSEWHERE,
        "lut4": _ELSEWHERE,
    },
)
