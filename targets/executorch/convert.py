"""Convert a float or QDQ program to a `.pte` file for ExecuTorch with the XNNPACK delegate."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from targets.executorch.dynamic import quantize_dynamically
from targets.executorch.schemes import SCHEMES
from targets.program import check_quantized_as_asked, fold_quantized_weights, static_batch
from targets.quieted import one_line, quieted, why_not_imported
from targets.types import DYNAMIC, Artifact, ConvertRequest, TargetError, Unavailable

if TYPE_CHECKING:
    from torch.export import ExportedProgram


def unavailable_reason() -> str:
    """Why nothing can be converted here; empty where it can."""
    modules = ("executorch.backends.xnnpack.partition.xnnpack_partitioner", "executorch.exir")
    return why_not_imported("executorch.exir", "executorch", *modules)


def convert(request: ConvertRequest) -> Artifact:
    """Write `request.output`. The format has no room for `request.metadata`.

    Raises:
        Unavailable: no ExecuTorch here.
        TargetError: stage "convert".
    """
    if reason := SCHEMES.why_not(request.precision):
        raise TargetError("convert", reason)
    check_quantized_as_asked(request)
    if reason := unavailable_reason():
        raise Unavailable("convert", reason)
    program = fold_quantized_weights(request.program) if request.precision == "int8" else static_batch(request.program)
    if request.precision in DYNAMIC:
        with quieted():
            program = quantize_dynamically(program, request.precision, request.options.group_size)
    request.output.write_bytes(_lower(program))
    return Artifact("executorch", request.precision, request.output)


def _lower(program: ExportedProgram) -> bytes:
    from executorch.backends.xnnpack._passes.remove_noop_expand_copy_pass import RemoveNoopExpandCopyPass
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    with quieted():
        try:
            # Of a class token, or of the operands of a matmul, to a batch of one: an operator outside the delegate.
            passes = [RemoveNoopExpandCopyPass()]
            edge = to_edge_transform_and_lower(program, transform_passes=passes, partitioner=[XnnpackPartitioner()])
            return bytes(edge.to_executorch().buffer)
        except Exception as error:  # the SDK raises what its passes meet; one cell of the matrix may fail alone
            raise TargetError("convert", cause_of(error)) from error


def cause_of(error: Exception) -> str:
    """An error of ExecuTorch's passes in one line, with the operators that it names."""
    text = one_line(error)
    operators = sorted(set(re.findall(r"\b(?:aten|torch\.ops\.\w+)[.:]+[\w.]+", text)))
    named = f" (operators named: {', '.join(operators)})" if operators else ""
    return f"ExecuTorch: {type(error).__name__}: {text[:400]}{named}"
