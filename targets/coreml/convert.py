"""An exported program in, an `.mlpackage` (mlprogram, iOS 17 and later) out.

fp16 and int8 files compute in half precision, as the Neural Engine does. The deploy form of a T2T-ViT is made for that.
In its official form, what leads from the Performer's projections through its exponentials to the division stays float32
(`float32_region`), which the Neural Engine does not run.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from targets.program import check_quantized_as_asked, fold_quantized_weights, input_shape, static_batch
from targets.quieted import quieted
from targets.triton_first import load_triton_first
from targets.types import ConvertRequest, Precision, TargetError, Unavailable
from targets.weights import is_trained

if TYPE_CHECKING:
    from torch.export import ExportedProgram

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
INPUT, OUTPUT = "images", "logits"

#: Where the backward walk from an exponential stops: weighted layers and what changes the number format.
_REGION_ENTRANCE = ("linear", "conv", "quantize", "dequantize", "layer_norm", "const")
_REGION_EXIT = "real_div"
#: A softmax and a logarithm bring the values back to what half precision holds.
_REGION_ENDS = (_REGION_EXIT, "softmax", "log")


def unavailable_reason() -> str:
    """Why nothing can be converted here; empty where it can."""
    try:
        with quieted():
            load_triton_first()
            import coremltools  # noqa: F401
    except (ImportError, OSError) as error:
        return f"coremltools does not import ({error}): pip install coremltools"
    return ""


def convert(request: ConvertRequest) -> None:
    """Write the package `request.output`, with `request.metadata` in it.

    Raises:
        Unavailable: no coremltools here.
        TargetError: stage "convert"; coremltools names the operator that it does not know.
    """
    check_quantized_as_asked(request)
    if reason := unavailable_reason():
        raise Unavailable("convert", reason)
    model = lower(request.program, request.precision)
    model.short_description = request.metadata.get("model", "") or model.short_description
    for key, value in request.metadata.items():
        model.user_defined_metadata[f"edge_t2t.{key}"] = value
    if request.output.exists():
        shutil.rmtree(request.output)
    with quieted():
        model.save(str(request.output))


def lower(program: ExportedProgram, precision: Precision) -> Any:
    """The coremltools MLModel of a program for one image; it is not loaded into a runtime.

    Raises:
        TargetError: stage "convert".
    """
    with quieted():
        import coremltools as ct

        single = (fold_quantized_weights if precision == "int8" else static_batch)(program)
        try:
            return ct.convert(
                single.run_decompositions({}),
                convert_to="mlprogram",
                inputs=[ct.TensorType(name=INPUT, shape=(1, *input_shape(program)), dtype=np.float32)],
                outputs=[ct.TensorType(name=OUTPUT, dtype=np.float32)],
                minimum_deployment_target=ct.target.iOS17,
                compute_precision=ct.precision.FLOAT32
                if precision == "fp32"
                else ct.transform.FP16ComputePrecision(op_selector=lambda op: not float32_region(op)),
                skip_model_load=True,
            )
        except Exception as error:  # the SDK raises what its passes meet; one cell of the matrix may fail alone
            raise TargetError("convert", f"coremltools: {type(error).__name__}: {_one_line(error)}") from error


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
    return [variable.op for variable in _inputs(operation)]


def _inputs(operation: Any) -> list[Any]:
    """The variables that an operation reads, lists of them (concat) flattened."""
    found: list[Any] = []
    for value in operation.inputs.values():
        found += list(value) if isinstance(value, (list, tuple)) else [value]
    return [variable for variable in found if variable is not None]


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:400]
