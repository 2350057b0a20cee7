"""Compress the trained weights of a half precision MLModel to integers or palettes.

Compressed are the trained constants (targets.match.is_trained) of linear, convolution and matmul operators. The rest,
activations included, stays as it was: the runtime decompresses weights to half precision, and computes in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from targets.coreml.mil import load_model
from targets.coreml.schemes import SCHEMES
from targets.match import is_trained
from targets.sdk import typed_line
from targets.types import Precision, TargetError

#: Operators that hold a layer's weights, and the input that is the weight.
_WEIGHT_INPUT = {"linear": "weight", "conv": "weight", "conv_transpose": "weight", "matmul": "y"}
_PALETTE_BITS: dict[Precision, int] = {"lut8": 8, "lut6": 6, "lut4": 4}
_FP16_BITS = 16
# Of k-means; the weights of the zoo settle within 150 at 256 entries.
_MAX_STEPS = 500


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
    size = SCHEMES.group_size(precision, asked_group_size)
    try:
        if bits := _PALETTE_BITS.get(precision):
            return _palettized(model, bits)
        if precision == "w4":
            model = _quantized(model, {"dtype": "int4", "granularity": "per_block", "block_size": size})
        return _quantized(model, {"dtype": "int8", "granularity": "per_channel"})
    except TargetError:
        raise
    except Exception as error:  # the SDK raises what its passes meet; one cell of the matrix may fail alone
        cause = f"coremltools cannot compress the weights to {precision}: {typed_line(error, 400)}"
        raise TargetError("convert", cause) from error


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
    weights = _float_weights(model)
    smaller = (name for name, w in weights if w.size * bits + (_FP16_BITS << bits) < w.size * _FP16_BITS)
    chosen = dict.fromkeys(smaller, config)
    if not chosen:
        raise TargetError("convert", f"no weight is large enough for a palette of {1 << bits} values: convert to fp16")
    return cto.palettize_weights(model, cto.OptimizationConfig(op_name_configs=chosen))


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


def palette(weight: np.ndarray, bits: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """k-means in one dimension (Lloyd 1982) from seeded k-means++ centres (Arthur and Vassilvitskii 2007).

    Elements with the same value are one weighted point, and points are sorted, so that a step costs a binary search for
    each centre: milliseconds where a general k-means takes seconds. The same weight gives the same palette anywhere.

    Args:
        weight: any shape, float.

    Returns:
        palette [2 ** bits] ascending, in the weight's dtype, and indices [weight.size] uint8. A weight with no more
        values than that is kept exactly, its last value repeated to fill the palette.
    """
    values, inverse, counts = np.unique(weight.astype(np.float64), return_inverse=True, return_counts=True)
    entries = 1 << bits
    centres = values if len(values) <= entries else _settle(values, counts, _seeded(values, counts, entries, seed))
    nearest = np.searchsorted((centres[1:] + centres[:-1]) / 2, values, side="right")
    padded = np.concatenate([centres, np.full(entries - len(centres), centres[-1])])
    return padded.astype(weight.dtype), nearest[inverse.ravel()].astype(np.uint8)


def _seeded(values: np.ndarray, counts: np.ndarray, entries: int, seed: int) -> np.ndarray:
    """`entries` of the values, each drawn in proportion to its squared distance from those before it; ascending."""
    rng = np.random.default_rng(seed)
    trials = 2 + int(np.log(entries))  # of each draw, the one that leaves least is kept (scikit-learn's greedy variant)
    chosen = [rng.choice(values, p=counts / counts.sum())]
    distance = (values - chosen[0]) ** 2  # [values], to the nearest centre so far
    for _ in range(entries - 1):
        cumulated = np.cumsum(distance * counts)
        drawn = np.searchsorted(cumulated, rng.random(trials) * cumulated[-1], side="right")
        candidates = values[np.minimum(drawn, len(values) - 1)]
        left = np.minimum(distance, (values - candidates[:, None]) ** 2)  # [trials, values]
        best = int(np.argmin(left @ counts))
        chosen.append(candidates[best])
        distance = left[best]
    return np.sort(np.array(chosen))


def _settle(values: np.ndarray, counts: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Lloyd's steps until nothing moves; a centre without points stays where it is."""
    points = np.concatenate([[0], np.cumsum(counts)])
    sums = np.concatenate([[0.0], np.cumsum(counts * values)])
    for _ in range(_MAX_STEPS):
        inner = np.searchsorted(values, (centres[1:] + centres[:-1]) / 2)
        edges = np.concatenate([[0], inner, [len(values)]])
        members = points[edges[1:]] - points[edges[:-1]]
        moved = np.where(members > 0, (sums[edges[1:]] - sums[edges[:-1]]) / np.maximum(members, 1), centres)
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres
