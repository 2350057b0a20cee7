"""Choose the operators of a half precision package that stay float32: those asked for, and Performer attention."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from typing import Any

from targets.coreml import mil
from targets.types import TargetError
from targets.weights import is_trained

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
    return any(op.op_type == "exp" and _is_divisor(op) for op in _within_region(operation, neighbours))


def _is_divisor(exponential: Any) -> bool:
    return any(op.op_type == _REGION_EXIT for op in _within_region(exponential, _readers))


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
