"""The precisions that coreml files are made in, or why not, with the source of each reason."""

from __future__ import annotations

from targets.schemes import Schemes, made, not_made

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
