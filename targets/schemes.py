"""A precision and a target in, whether the target is made in it, and how or why not, out: the table of what there is.

Every reason names where it comes from: a source file of the SDK as pinned in pyproject.toml, or a run of our own.
"""

from __future__ import annotations

from dataclasses import dataclass

from targets.types import Precision

_XNNPACK_CONFIG = "executorch/backends/xnnpack/partition/config/gemm_configs.py"
_MIL_QUANTIZE = "coremltools .../mil/ops/defs/iOS17/quantization_ops.py"
_AI_EDGE_POLICY = "ai_edge_quantizer/default_policy.py"


@dataclass(frozen=True)
class Support:
    """Whether and how.

    Attributes:
        made: whether `convert` makes such files.
        words: of a made file what it holds and where it is slow; otherwise the reason and its source.
        group_sizes: input channels that may share a scale of an int4 weight; empty where there is no choice.
    """

    made: bool
    words: str
    group_sizes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.words:
            raise ValueError("a scheme needs words: how it is made, or why it is not")
        if self.group_sizes and not self.made:
            raise ValueError(f"group sizes {self.group_sizes} of a scheme that is not made")


def _made(words: str, *group_sizes: int) -> Support:
    return Support(True, words, group_sizes)


def _not(reason: str) -> Support:
    return Support(False, reason)


#: Input channels that share a scale where nothing else is asked for: the default of coremltools and of torchao.
GROUP_SIZE = 32
_ELSEWHERE = _not("weights alone are compressed in Core ML packages of their own: --target coreml")
_PALETTE = _not("the format has no palettes (dtypes of the TFLite schema and of xnnpack/serialization/schema.fbs)")

#: Precision -> target -> what there is. `convert --list-schemes` prints it, docs/convert.md repeats it.
SCHEMES: dict[Precision, dict[str, Support]] = {
    "fp32": {
        "executorch": _made("float32"),
        "coreml": _made("float32; not on the Neural Engine"),
        "tflite": _made("float32"),
        "executorch-coreml": _made("float32; not on the Neural Engine"),
    },
    "fp16": {
        "executorch": _not("left out of this project: int8 is smaller and faster on the same processors"),
        "coreml": _made("weights and activations in half precision"),
        "tflite": _made("weights in half precision, widened to float32 when the file is loaded"),
        "executorch-coreml": _made("weights and activations in half precision"),
    },
    "int8": {
        "executorch": _made("trained scales, weights per channel, activations per tensor"),
        "coreml": _made("the same, from iOS 17"),
        "tflite": _made("the same"),
        "executorch-coreml": _made("the same, from iOS 17"),
    },
    "w8a16": {
        "executorch": _not(
            "XNNPACK has no int16 activations: its datatypes end at 8 bits (xnnpack/serialization/schema.fbs)"
        ),
        "coreml": _not(
            f"the quantize operator gives int8 and uint8 only ({_MIL_QUANTIZE}): w8 has int8 weights and fp16 "
            "activations"
        ),
        "tflite": _made(
            "calibrated scales, activations int16 and symmetric; its integer operators run in LiteRT's own kernels, "
            "outside the delegate"
        ),
        "executorch-coreml": _not(f"as in coreml: no int16 activations ({_MIL_QUANTIZE})"),
    },
    "int8-dynamic": {
        "executorch": _made("Linear with activations per token; convolutions stay float32"),
        "coreml": _not(f"scale and zero point of the quantize operator are constants ({_MIL_QUANTIZE})"),
        "tflite": _made("Linear and convolution with activations per token; depthwise convolutions stay float32"),
        "executorch-coreml": _not(f"as in coreml: scales of activations are constants ({_MIL_QUANTIZE})"),
    },
    "w4a8-dynamic": {
        "executorch": _made(
            "Linear with int4 weights in groups, int8 where they do not divide; convolutions stay float32",
            32, 64, 128, 256,
        ),
        "coreml": _not(f"as int8-dynamic: scales of activations are constants ({_MIL_QUANTIZE})"),
        "tflite": _made(
            "Linear with int4 weights in groups, int8 where they do not divide and in convolutions; depthwise ones "
            "stay float32",
            32, 64, 128, 256,
        ),
        "executorch-coreml": _not(f"as in coreml: scales of activations are constants ({_MIL_QUANTIZE})"),
    },
    "w8": {
        "executorch": _not(
            f"the partitioner wants quantized activations beside quantized weights ({_XNNPACK_CONFIG}, _get_act_deps): "
            "int8-dynamic has the same weights"
        ),
        "coreml": _made("weights per channel, activations fp16; from iOS 16"),
        "tflite": _made("weights per channel, activations float32"),
        "executorch-coreml": _ELSEWHERE,
    },
    "w4": {
        "executorch": _not(
            f"as w8, and int4 in groups under dynamic activations only ({_XNNPACK_CONFIG}): w4a8-dynamic has the same "
            "weights"
        ),
        "coreml": _made(
            "weights in groups, int8 where they do not divide, activations fp16; from iOS 18", 16, 32, 64, 128, 256
        ),
        "tflite": _made(
            f"weights per channel (groups are in no weight-only config of {_AI_EDGE_POLICY}), int8 in depthwise "
            "convolutions; XNNPACK does not take them: for size alone, slower than float32"
        ),
        "executorch-coreml": _ELSEWHERE,
    },
    "lut8": {
        "executorch": _PALETTE,
        "coreml": _made("palette of 256 values for each weight; from iOS 16"),
        "tflite": _PALETTE,
        "executorch-coreml": _ELSEWHERE,
    },
    "lut6": {
        "executorch": _PALETTE,
        "coreml": _made("palette of 64 values; from iOS 16"),
        "tflite": _PALETTE,
        "executorch-coreml": _ELSEWHERE,
    },
    "lut4": {
        "executorch": _PALETTE,
        "coreml": _made("palette of 16 values; from iOS 16"),
        "tflite": _PALETTE,
        "executorch-coreml": _ELSEWHERE,
    },
}  # fmt: skip

#: Schemes by the name that papers and other tools use, where that is not the precision's own.
ALIASES: dict[str, Precision] = {"w8a8": "int8", "w8a8-dynamic": "int8-dynamic"}


def made_by(target: str) -> tuple[Precision, ...]:
    """The precisions that files of `target` are made in, in the order of the table."""
    return tuple(precision for precision, by_target in SCHEMES.items() if by_target[target].made)


def why_not(precision: Precision, target: str) -> str:
    """One sentence; empty where such files are made."""
    support = SCHEMES[precision][target]
    return "" if support.made else f"{target} is not converted in {precision}: {support.words}"


def group_size(precision: Precision, target: str, asked: int | None) -> int:
    """Input channels that share a scale.

    Raises:
        ValueError: `asked` is none that the target has, or there are no groups.
    """
    sizes = SCHEMES[precision][target].group_sizes
    if asked is not None and asked not in sizes:
        known = f"one of {', '.join(map(str, sizes))}" if sizes else "no groups"
        raise ValueError(f"group size {asked}: {target} has {known} in {precision}")
    return asked or GROUP_SIZE
