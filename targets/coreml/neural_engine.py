"""Warn of what is documented or reported about a package and Apple's Neural Engine, one sentence for each finding.

There is no list of what the Neural Engine runs: it changes with the device, the system and the sizes of tensors
(a maintainer in coremltools issue 1780). So nothing here says that an operator will run on it. Each rule says that
one will not, or comes with a cost, and who says so: Apple's documentation; the maintainers of coremltools, in its code
or its issues; or users, from measurements on their devices. docs/core-ml-neural-engine.md has every source with what
it says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from targets.coreml import mil
from targets.words import plural

_GUIDE = "https://apple.github.io/coremltools/docs-guides/source"
_CORE_ML_TOOLS = "https://github.com/apple/coremltools"
_USERS_LIST = "https://github.com/hollance/neural-engine/blob/master/docs/unsupported-layers.md"

Basis = Literal["Apple documents", "coremltools' maintainers say", "users report"]
#: Largest model that "can be deployed to run on the Neural Engine on an iPhone", in bytes (1 GB in the guide).
PHONE_LIMIT_BYTES = 10**9
#: Core ML has no tensors of more dimensions.
MAX_RANK = 5


@dataclass(frozen=True)
class OperatorRule:
    """Operators that `applies` picks out, and what is said of them.

    Attributes:
        says: ends the sentence "<basis>: <operators> ...".
        source: address of the statement.
    """

    applies: Callable[[Any], bool]
    basis: Basis
    says: str
    source: str


def cautions(spec: Any, operations: Sequence[Any], size_bytes: int) -> Iterator[str]:
    """Findings for a package, those about its whole first, then by rule in the order of RULES."""
    yield from _package_cautions(spec, size_bytes)
    for rule in RULES:
        found = [op for op in operations if rule.applies(op)]
        if found:
            which = f"{plural(len(found), 'operator')} ({mil.tallied(found)})"
            yield f"Neural Engine, {rule.basis}: {which} {rule.says} ({rule.source})"


def _package_cautions(spec: Any, size_bytes: int) -> Iterator[str]:
    if size_bytes > PHONE_LIMIT_BYTES:
        yield (
            f"Neural Engine, Apple documents: a model of {size_bytes / 1e9:.2f} GB is too large for it on an iPhone, "
            f"the limit is 1 GB ({_GUIDE}/mlmodel-utilities.html)"
        )
    if flexible := [feature.name for feature in spec.description.input if _is_flexible(feature)]:
        yield (
            f"Neural Engine, Apple documents: a flexible range of shapes ({mil.listed(flexible)}) is for it only from "
            "iOS 17.4 on and with the hint reshapeFrequency=Infrequent; enumerated shapes need no hint "
            f"({_GUIDE}/flexible-inputs.html)"
        )


def _is_flexible(feature: Any) -> bool:
    """Whether an input takes a range of shapes; a list of shapes (EnumeratedShapes) is compiled shape by shape."""
    kind = feature.type.WhichOneof("Type")
    flexibility = {
        "multiArrayType": ("ShapeFlexibility", "shapeRange"),
        "imageType": ("SizeFlexibility", "imageSizeRange"),
    }
    if kind not in flexibility:
        return False
    field, a_range = flexibility[kind]
    return bool(getattr(feature.type, kind).WhichOneof(field) == a_range)


def _computes_in_float32(operation: Any) -> bool:
    """Casts between formats do not compute; constants and epsilons may be float32 in a half precision operator."""
    if operation.op_type in ("const", "cast", "classify") or operation.op_type.startswith("constexpr_"):
        return False
    read = [variable for _, variable in mil.inputs(operation) if not mil.is_constant(variable)]
    return any(mil.dtype(variable) == "fp32" for variable in (*operation.outputs, *read))


def _of_type(*names: str) -> Callable[[Any], bool]:
    return lambda operation: operation.op_type in names


def _rank_too_high(operation: Any) -> bool:
    """Constants aside: the tables of a palette have two dimensions more than the weight."""
    computed = (variable for variable in operation.outputs if mil.is_tensor(variable) and not mil.is_constant(variable))
    return any(len(variable.shape or ()) > MAX_RANK for variable in computed)


def _reshapes_dynamically(operation: Any) -> bool:
    shape = operation.inputs.get("shape")
    return operation.op_type in ("reshape", "reshape_like") and (shape is None or not mil.is_constant(shape))


def _is_per_block(operation: Any) -> bool:
    """Scales that differ along more than one axis of integer weights: per-channel ones differ along one."""
    if operation.op_type != "constexpr_blockwise_shift_scale" or not mil.dtype(operation.data).lstrip("u").startswith(
        "int"
    ):
        return False
    return sum(size > 1 for size in operation.scale.shape) > 1


def _scales_a_palette(operation: Any) -> bool:
    """A scale for each channel beside a palette: on the palette itself, or on what was looked up in it."""
    if operation.op_type != "constexpr_blockwise_shift_scale" or mil.dtype(operation.data) not in ("fp16", "fp32"):
        return False
    source = operation.data.op
    looked_up = source is not None and source.op_type == "constexpr_lut_to_dense"
    return looked_up or any(child.op_type == "constexpr_lut_to_dense" for child in operation.outputs[0].child_ops)


def _is_dilated(operation: Any) -> bool:
    dilations = operation.inputs.get("dilations")
    return operation.op_type in ("conv", "conv_transpose") and dilations is not None and bool((dilations.val > 1).any())


def _pools_widely(operation: Any) -> bool:
    """Kernels above 13 or strides above 2."""
    if operation.op_type not in ("avg_pool", "max_pool", "l2_pool"):
        return False
    strides = operation.inputs.get("strides")
    return bool((operation.kernel_sizes.val > 13).any() or (strides is not None and (strides.val > 2).any()))


def _upsamples_far(operation: Any) -> bool:
    """Factors above 2."""
    factors = [operation.inputs.get(f"scale_factor_{axis}") for axis in ("height", "width")]
    return operation.op_type.startswith("upsample") and any(
        f is not None and f.val is not None and f.val > 2 for f in factors
    )


#: Apple and the maintainers first.
RULES = (
    OperatorRule(
        _computes_in_float32,
        "Apple documents",
        "compute in float32, which it never runs",
        f"{_GUIDE}/typed-execution.html",
    ),
    OperatorRule(
        _of_type("lstm", "rnn"),
        "coremltools' maintainers say",
        "are not supported on it",
        f"{_CORE_ML_TOOLS}/issues/1780",
    ),
    OperatorRule(
        _of_type("scatter", "scatter_nd"),
        "coremltools' maintainers say",
        "fall off it",
        f"{_CORE_ML_TOOLS}/blob/main/coremltools/converters/mil/frontend/torch/ops.py",
    ),
    OperatorRule(
        _reshapes_dynamically,
        "Apple documents",
        "take their shape while running, which it does not support",
        f"{_GUIDE}/faqs.html",
    ),
    OperatorRule(
        _rank_too_high,
        "coremltools' maintainers say",
        f"give more than {MAX_RANK} dimensions, which Core ML has on no unit",
        f"{_CORE_ML_TOOLS}/issues/2536",
    ),
    OperatorRule(
        _is_per_block,
        "Apple documents",
        "have one scale for each block; one for each channel is recommended for it",
        f"{_GUIDE}/opt-quantization-perf.html",
    ),
    OperatorRule(
        _of_type("quantize"),
        "Apple documents",
        "quantize activations, recommended only if the model runs mostly on it: the CPU, and sometimes the GPU, then "
        "slows down considerably",
        f"{_GUIDE}/opt-quantization-perf.html",
    ),
    OperatorRule(
        _scales_a_palette,
        "users report",
        "scale a palette by channel, and the model then fails to load for it on macOS 26",
        f"{_CORE_ML_TOOLS}/pull/2688",
    ),
    OperatorRule(
        _of_type("gather", "gather_nd"),
        "users report",
        "do not run on it (a comment in coremltools' PyTorch frontend says that gather does)",
        _USERS_LIST,
    ),
    OperatorRule(
        _of_type("topk", "gather_along_axis"),
        "users report",
        "ran on the CPU in compute plans of macOS 27",
        "https://github.com/roboflow/rf-detr/pull/1495",
    ),
    OperatorRule(_of_type("gru"), "users report", "do not run on it", _USERS_LIST),
    OperatorRule(_is_dilated, "users report", "are dilated, and do not run on it", _USERS_LIST),
    OperatorRule(
        _pools_widely, "users report", "pool with a kernel above 13 or a stride above 2, which it does not", _USERS_LIST
    ),
    OperatorRule(_upsamples_far, "users report", "enlarge more than twofold, which it does not", _USERS_LIST),
)
