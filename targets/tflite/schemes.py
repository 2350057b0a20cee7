"""The precisions that tflite files are made in, or why not, with the source of each reason."""

from __future__ import annotations

from targets.target import Schemes, made, not_made

_AI_EDGE_POLICY = "ai_edge_quantizer/default_policy.py"
_PALETTE = not_made("the format has no palettes (dtypes of the TFLite schema and of xnnpack/serialization/schema.fbs)")
_GROUP_SIZES = (32, 64, 128, 256)

SCHEMES = Schemes(
    "tflite",
    {
        "fp32": made("float32"),
        "fp16": made("weights in half precision, widened to float32 when the file is loaded"),
        "int8": made("the same"),
        "w8a16": made(
            "calibrated scales, activations int16 and symmetric; its integer operators run in LiteRT's own kernels, "
            "outside the delegate"
        ),
        "int8-dynamic": made("Linear and convolution with activations per token; depthwise convolutions stay float32"),
        "w4a8-dynamic": made(
            "Linear with int4 weights in groups, int8 where they do not divide and in convolutions; depthwise ones "
            "stay float32",
            *_GROUP_SIZES,
        ),
        "w8": made("weights per channel, activations float32"),
        "w4": made(
            f"weights per channel (groups are in no weight-only config of {_AI_EDGE_POLICY}), int8 in depthwise "
            "convolutions; XNNPACK does not take them: for size alone, slower than float32"
        ),
        **dict.fromkeys(("lut8", "lut6", "lut4"), _PALETTE),
    },
)
