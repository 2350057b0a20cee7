"""Warn of constants that half precision cannot hold, one sentence for each kind.

They are silent: the file is valid, loads, and gives numbers. Half precision ends at 65504, its normal numbers begin at
6.1e-5, its smallest number is 6.0e-8, and what is below half of that is zero. When coremltools rounds a constant of
fewer than 400 values to half precision, it writes 6.0e-8 where zero would come out (`_check_underflow_to_zero` of its
pass add_fp16_cast); in a larger one a vanished value looks like any other zero and cannot be told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from targets.coreml import mil

_HALF = np.finfo(np.float16)
SMALLEST, SMALLEST_NORMAL = float(_HALF.smallest_subnormal), float(_HALF.tiny)
# Operators that give infinity or NaN for zero, and the input that must not be zero: what an epsilon is added to.
_GUARDED = {"real_div": "y", "rsqrt": "x", "log": "x", "inverse": "x"}
_GUARDS = ("add", "maximum")
# Operators that hold scales; a scale of 0 may be meant in those of weights, for a channel of zeros.
_ACTIVATIONS, _WEIGHTS = ("quantize", "dequantize"), ("constexpr_affine_dequantize", "constexpr_blockwise_shift_scale")


def cautions(operations: Sequence[Any]) -> Iterator[str]:
    """What is wrong with the constants in half precision; nothing for a file that has none."""
    if names := [op.name for op in operations if op.op_type == "const" and _overflowed(op.outputs[0])]:
        yield (
            f"{mil.counted(len(names), 'constant')} in half precision with infinity or NaN ({mil.listed(names)}): "
            "unless it masks an attention, a value above 65504 overflowed: keep its operator in float32"
        )
    lost = {user: constant for op in operations for user, constant in _lost_epsilons(op)}
    if lost:
        yield (
            f"{mil.counted(len(lost), 'operator')} with an epsilon that half precision has no room for "
            f"({mil.listed(lost)}): it is 0, or {SMALLEST:.1e} where coremltools put the smallest number in its place; "
            "nearly zero inputs then give infinity or NaN: raise the epsilon, or keep the operator in float32"
        )
    vanished = [op.name for op in operations if op.op_type == "const" and _vanished(op.outputs[0])]
    if names := [name for name in vanished if name not in lost.values()]:
        yield (
            f"{mil.counted(len(names), 'constant')} whose values are all too small for half precision "
            f"({mil.listed(names)}): coremltools stored {SMALLEST:.1e} in their place"
        )
    yield from _scale_cautions(operations)


def _half(variable: Any) -> np.ndarray | None:
    """The values of a constant in half precision; None for any other variable."""
    if variable is None or not mil.is_constant(variable) or variable.val is None or mil.dtype(variable) != "fp16":
        return None
    return np.asarray(variable.val)


def _overflowed(variable: Any) -> bool:
    values = _half(variable)
    return values is not None and not np.isfinite(values).all()


def _vanished(variable: Any) -> bool:
    """All zero or the stand-in for zero, and the stand-in at least once: zeros alone may be meant."""
    values = _half(variable)
    return values is not None and values.size > 0 and float(np.abs(values).max()) == SMALLEST


def _is_lost(variable: Any) -> bool:
    values = _half(variable)
    return values is not None and values.size > 0 and float(np.abs(values).max()) <= SMALLEST


def _lost_epsilons(operation: Any) -> Iterator[tuple[str, str]]:
    """(operator, constant) where an epsilon is zero or its stand-in."""
    own = operation.inputs.get("epsilon")
    if _is_lost(own):
        yield operation.name, own.name
    guarded = operation.inputs.get(_GUARDED.get(operation.op_type, ""))
    if guarded is None:
        return
    if _is_lost(guarded):
        yield operation.name, guarded.name
    elif guarded.op is not None and guarded.op.op_type in _GUARDS:
        for term in (guarded.op.x, guarded.op.y):
            if _is_lost(term):
                yield guarded.op.name, term.name


def _scale_cautions(operations: Sequence[Any]) -> Iterator[str]:
    if zero := [name for name, values in _scales(operations, _ACTIVATIONS).items() if (values == 0).any()]:
        yield (
            f"{mil.counted(len(zero), 'tensor')} with a scale of 0 in half precision ({mil.listed(zero)}): what it "
            "scales is lost; quantize with a larger smallest scale"
        )
    scales = _scales(operations, _ACTIVATIONS + _WEIGHTS)
    coarse = {n: v for n, v in scales.items() if ((v > 0) & (v < SMALLEST_NORMAL)).any()}
    if coarse:
        smallest = min(float(values[values > 0].min()) for values in coarse.values())
        # Between two neighbours below the normal numbers lies one smallest number, whatever the scale.
        yield (
            f"{mil.counted(len(coarse), 'tensor')} with a scale below {SMALLEST_NORMAL:.1e}, where half precision has "
            f"no normal numbers ({mil.listed(coarse)}; down to {smallest:.1e}): rounded by up to "
            f"{100 * SMALLEST / 2 / smallest:.2g}%, and 0 on a unit that flushes such numbers"
        )


def _scales(operations: Sequence[Any], kinds: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Sizes of the scales in half precision, by operator."""
    found = {op.name: _half(op.inputs.get("scale")) for op in operations if op.op_type in kinds}
    return {name: np.abs(values) for name, values in found.items() if values is not None}
