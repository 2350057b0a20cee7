"""The precisions that executorch files are made in, or why not, with the source of each reason."""

from __future__ import annotations

from targets.target import Schemes, made, not_made

_XNNPACK_CONFIG = "executorch/backends/xnnpack/partition/config/gemm_configs.py"
_PALETTE = not_made("the format has no palettes (dtypes of the TFLite schema and of xnnpack/serialization/schema.fbs)")
_GROUP_SIZES = (32, 64, 128, 256)

SCHEMES = Schemes(
    "executorch",
    {
        "fp32": made("float32"),
        "fp16": not_made("left out of this project: int8 is smaller and faster on the same processors"),
        "int8": made("trained scales, weights per channel, activations per tensor"),
        "w8a16": not_made(
            "XNNPACK has no int16 activations: its datatypes end at 8 bits (xnnpack/serialization/schema.fbs)"
        ),
        "int8-dynamic": made("Linear with activations per token; convolutions stay float32"),
        "w4a8-dynamic": made(
            "Linear with int4 weights in groups, int8 where they do not divide; convolutions stay float32",
            *_GROUP_SIZES,
        ),
        "w8": not_made(
            f"the partitioner wants quantized activations beside quantized weights ({_XNNPACK_CONFIG}, _get_act_deps): "
            "int8-dynamic has the same weights"
        ),
        "w4": not_made(
            f"as w8, and int4 in groups under dynamic activations only ({_XNNPACK_CONFIG}): w4a8-dynamic has the same "
            "weights"
        ),
        **dict.fromkeys(("lut8", "lut6", "lut4"), _PALETTE),
    },
)
