"""Warn of constants that half precision cannot hold, one sentence for each kind.

They are silent: the file is valid, loads, and gives numbers. Half precision ends at 65504, its normal numbers begin
at 6.1e-5, its smallest number is 6.0e-8, and what is below half of that is zero. When coremltools rounds a constant
of fewer than 400 values to half precision, it writes 6.0e-8 where zero would come out (`_check_underflow_to_zero` of
its pass add_fp16_cast); in a larger one a vanished value looks like any other zero and cannot be told.

Choose the operators of a half precision package that stay float32: those asked for, and Performer attention.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from targets.coreml import mil
from targets.match import is_trained
from targets.types import TargetError
from targets.words import plural

_HALF = np.finfo(np.float16)
SMALLEST, SMALLEST_NORMAL = float(_HALF.smallest_subnormal), float(_HALF.tiny)
# Operators that give infinity or NaN for zero, and the input that must not be zero: what an epsilon is added to.
_GUARDED = {"real_div": "y", "rsqrt": "x", "log": "x", "inverse": "x"}
_GUARDS = ("add", "maximum")
# Operators that hold scales; a scale of 0 may be meant in those of weights, for a channel of zeros.
_ACTIVATIONS, _WEIGHTS = ("quantize", "dequantize"), ("constexpr_affine_dequantize", "constexpr_blockwise_shift_scale")


def cautions(operations: Sequence[Any]) -> Iterator[str]:
    """What is wrong with the constants in half precision; nothing for a file that has none."""
    if names := [op.name for op in operations if op.op_type == "const" and not np.isfinite(_half(op.outputs[0])).all()]:
        yield (
            f"{plural(len(names), 'constant')} in half precision with infinity or NaN ({mil.listed(names)}): "
            "unless it masks an attention, a value above 65504 overflowed: keep its operator in float32"
        )
    lost = {user: constant for op in operations for user, constant in _lost_epsilons(op)}
    if lost:
        yield (
            f"{plural(len(lost), 'operator')} with an epsilon that half precision has no room for "
            f"({mil.listed(lost)}): it is 0, or {SMALLEST:.1e} where coremltools put the smallest number in its place; "
            "nearly zero inputs then give infinity or NaN: raise the epsilon, or keep the operator in float32"
        )
    # All zero or the stand-in for zero, and the stand-in at least once: zeros alone may be meant.
    vanished = [op.name for op in operations if op.op_type == "const" and _largest(op.outputs[0]) == SMALLEST]
    if names := [name for name in vanished if name not in lost.values()]:
        yield (
            f"{plural(len(names), 'constant')} whose values are all too small for half precision "
            f"({mil.listed(names)}): coremltools stored {SMALLEST:.1e} in their place"
        )
    yield from _scale_cautions(operations)


def _half(variable: Any) -> np.ndarray:
    """The values of a constant in half precision; none of any other variable."""
    if variable is None or not mil.is_constant(variable) or variable.val is None or mil.dtype(variable) != "fp16":
        return np.zeros(0)
    return np.asarray(variable.val)


def _largest(variable: Any) -> float:
    """Size of the largest value in half precision; NaN where there is none."""
    values = _half(variable)
    return float(np.abs(values).max()) if values.size else math.nan


def _lost_epsilons(operation: Any) -> Iterator[tuple[str, str]]:
    """(operator, constant) where an epsilon is zero or its stand-in."""
    own = operation.inputs.get("epsilon")
    if _largest(own) <= SMALLEST:
        yield operation.name, own.name
    guarded = operation.inputs.get(_GUARDED.get(operation.op_type, ""))
    if guarded is None:
        return
    if _largest(guarded) <= SMALLEST:
        yield operation.name, guarded.name
    elif guarded.op is not None and guarded.op.op_type in _GUARDS:
        for term in (guarded.op.x, guarded.op.y):
            if _largest(term) <= SMALLEST:
                yield guarded.op.name, term.name


def _scale_cautions(operations: Sequence[Any]) -> Iterator[str]:
    if zero := [name for name, values in _scales(operations, _ACTIVATIONS).items() if (values == 0).any()]:
        yield (
            f"{plural(len(zero), 'tensor')} with a scale of 0 in half precision ({mil.listed(zero)}): what it "
            "scales is lost; quantize with a larger smallest scale"
        )
    scales = _scales(operations, _ACTIVATIONS + _WEIGHTS)
    coarse = {n: v for n, v in scales.items() if ((v > 0) & (v < SMALLEST_NORMAL)).any()}
    if coarse:
        smallest = min(float(values[values > 0].min()) for values in coarse.values())
        # Between two neighbours below the normal numbers lies one smallest number, whatever the scale.
        yield (
            f"{plural(len(coarse), 'tensor')} with a scale below {SMALLEST_NORMAL:.1e}, where half precision has "
            f"no normal numbers ({mil.listed(coarse)}; down to {smallest:.1e}): rounded by up to "
            f"{100 * SMALLEST / 2 / smallest:.2g}%, and 0 on a unit that flushes such numbers"
        )


def _scales(operations: Sequence[Any], kinds: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Sizes of the scales in half precision, by operator."""
    found = {op.name: _half(op.inputs.get("scale")) for op in operations if op.op_type in kinds}
    return {name: np.abs(values) for name, values in found.items() if values.size}


#: Where the backward walk from an exponential stops: weighted layers and what changes the number format.
_REGION_ENTRANCE = ("linear", "conv", "quantize", "dequantize", "layer_norm", "const")
_REGION_EXIT = "real_div"
#: A softmax and a logarithm bring the values back to what half precision holds.
_REGION_ENDS = (_REGION_EXIT, "softmax", "log")
#: What coremltools adds to the name of an operator that it casts: names are also taken as a package shows them.
_CAST_SUFFIX = "_cast_fp16"


def half_precision(float32_operators: tuple[str, ...]) -> Callable[[Any], bool]:
    """A selector for ct.transform.FP16ComputePrecision: whether an operator may compute in half precision.

    Args:
        float32_operators: types ("softmax") or names ("linear_0", "linear_0_cast_fp16") that may not.

    Raises:
        TargetError: stage "convert", by the selector when it is first called: one of them is in no operator.
    """
    wanted = {name.removesuffix(_CAST_SUFFIX): name for name in float32_operators}
    checked = False

    def selects(operation: Any) -> bool:
        nonlocal checked
        if not checked:
            _check_known(wanted, operation.enclosing_block)
            checked = True
        return wanted.keys().isdisjoint(_names(operation)) and not float32_region(operation)

    return selects


def _names(operation: Any) -> set[str]:
    """By what a user may call an operator: its type, its name, and those of its outputs."""
    return {operation.op_type, operation.name, *(output.name for output in operation.outputs)}


def _check_known(wanted: dict[str, str], block: Any) -> None:
    operations = [op for op in block.operations if op.op_type != "const"]
    known = set().union(*(_names(op) for op in operations))
    for name, given in wanted.items():
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.5)
            types = ", ".join(sorted({op.op_type for op in operations}))
            hint = f"near ones are {', '.join(near)}; " if near else ""
            raise TargetError(
                "convert", f"no operator has the type or name {given!r} that is to be float32: {hint}types are {types}"
            )


def float32_region(operation: Any) -> bool:
    """Whether a MIL operation lies on the way from a weighted layer through an `exp` to the `real_div` after it.

    That is Performer attention (Choromanski et al. 2021): exp(w.x - |x|^2 / 2), sums over thousands of tokens, and a
    division by them. In half precision the exponent loses its cancellation, small exponentials vanish, the epsilon
    of 1e-8 is zero, and a divisor of zero gives NaN. An exponential that no division follows is no part of it.
    """
    return _reaches_exp(operation, _readers) or _reaches_exp(operation, _sources)


def _reaches_exp(operation: Any, neighbours: Callable[[Any], list[Any]]) -> bool:
    """Whether a walk over `neighbours` meets an `exp` that is divided by, before the region ends."""
    return any(
        behind.op_type == _REGION_EXIT
        for op in _within_region(operation, neighbours)
        if op.op_type == "exp"
        for behind in _within_region(op, _readers)
    )


def _within_region(operation: Any, neighbours: Callable[[Any], list[Any]]) -> Iterator[Any]:
    """`operation` and what a walk over `neighbours` meets up to where the region ends; nothing from outside of it."""
    if _is_entrance(operation):
        return
    seen: set[str] = set()
    pending = [operation]
    while pending:
        current = pending.pop()
        if current is None or current.name in seen:
            continue
        seen.add(current.name)
        yield current
        if current is operation or not (current.op_type in _REGION_ENDS or _is_entrance(current)):
            pending += neighbours(current)


def _is_entrance(operation: Any) -> bool:
    """A weighted layer or a change of the number format. A product with ones is a sum, and no weighted layer."""
    weight = operation.inputs.get("weight") if operation.op_type == "linear" else None
    if weight is not None and weight.val is not None and not is_trained(weight.val):
        return False
    return operation.op_type in _REGION_ENTRANCE


def _readers(operation: Any) -> list[Any]:
    return [child for output in operation.outputs for child in output.child_ops]


def _sources(operation: Any) -> list[Any]:
    return [variable.op for _, variable in mil.inputs(operation)]
