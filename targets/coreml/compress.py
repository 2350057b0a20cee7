"""A half precision MLModel and a weight-only precision in, the MLModel with its trained weights compressed out.

Compressed are the trained constants (targets.weights.is_trained) of linear, convolution and matmul operators. The rest,
activations included, stays as it was: the runtime decompresses weights to half precision, and computes in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from targets.coreml.mil import load_model
from targets.coreml.palette import palette
from targets.schemes import group_size
from targets.types import Precision, TargetError
from targets.weights import is_trained

#: Operators that hold a layer's weights, and the input that is the weight.
_WEIGHT_INPUT = {"linear": "weight", "conv": "weight", "conv_transpose": "weight", "matmul": "y"}
_PALETTE_BITS: dict[Precision, int] = {"lut8": 8, "lut6": 6, "lut4": 4}
_FP16_BITS = 16


def compress(model: Any, precision: Precision, asked_group_size: int | None = None) -> Any:
    """Compress the weights of `model` (as ct.convert returns it); the description stays.

    - w8: linear, symmetric, one scale for each output channel, integers -127..127. Without -128 the data fit
      every re-encoding that is used where a device decodes signed data wrongly (targets.coreml.encodings).
    - w4: linear, symmetric, one scale for each output channel and group of input channels (32, or what is asked for),
      integers -7..7. A weight whose input channels do not divide into groups (depthwise, stem) becomes w8.
    - lut8, lut6, lut4: one palette of 256, 64 or 16 values for each weight, by k-means, wherever palette and indices
      take less room than the weight; other weights stay half precision.

    Raises:
        TargetError: stage "convert", coremltools refuses, a group size that is not made, or nothing to compress.
    """
    try:
        size = group_size(precision, "coreml", asked_group_size)
    except ValueError as error:
        raise TargetError("convert", str(error)) from error
    try:
        if bits := _PALETTE_BITS.get(precision):
            return _palettized(model, bits)
        if precision == "w4":
            model = _quantized(model, {"dtype": "int4", "granularity": "per_block", "block_size": size})
        return _quantized(model, {"dtype": "int8", "granularity": "per_channel"})
    except TargetError:
        raise
    except Exception as error:  # the SDK raises what its passes meet; one cell of the matrix may fail alone
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:400]
        raise TargetError("convert", f"coremltools cannot compress the weights to {precision}: {reason}") from error


def _quantized(model: Any, how: dict[str, Any]) -> Any:
    """Linear symmetric quantization of every weight that is still float and that `how` fits."""
    import coremltools.optimize.coreml as cto

    config = cto.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=0, **how)
    chosen = {name: config for name, _ in _float_weights(model)}
    # An all-zero channel has scale 0, and numpy warns of its 0 / 0: whatever integer that gives decodes to 0.
    with np.errstate(invalid="ignore", divide="ignore"):
        return cto.linear_quantize_weights(model, cto.OptimizationConfig(op_name_configs=chosen)) if chosen else model


def _palettized(model: Any, bits: int) -> Any:
    import coremltools.optimize.coreml as cto

    config = cto.OpPalettizerConfig(
        mode="custom", lut_function=lambda weight: palette(weight, bits), weight_threshold=0
    )
    chosen = {name: config for name, weight in _float_weights(model) if _saves_room(weight, bits)}
    if not chosen:
        raise TargetError("convert", f"no weight is large enough for a palette of {1 << bits} values: convert to fp16")
    return cto.palettize_weights(model, cto.OptimizationConfig(op_name_configs=chosen))


def _saves_room(weight: np.ndarray, bits: int) -> bool:
    return weight.size * bits + (_FP16_BITS << bits) < weight.size * _FP16_BITS


def _float_weights(model: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Name and value of each trained constant that is the weight of an operator and not compressed yet.

    Read as coremltools' own passes will read it. Its get_weights_metadata stops on operators that take lists (concat).
    """
    _, program = load_model(model)
    seen: set[str] = set()
    for operation in program.functions["main"].operations:
        argument = _WEIGHT_INPUT.get(operation.op_type)
        weight = operation.inputs.get(argument) if argument else None
        if weight is None or weight.op is None or weight.op.op_type != "const" or weight.op.name in seen:
            continue
        seen.add(weight.op.name)
        if is_trained(weight.val):
            yield weight.op.name, weight.val
