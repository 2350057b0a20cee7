"""Convert a float or QDQ program to a `.pte` file for ExecuTorch with the Core ML delegate (iOS 17 and later).

ExecuTorch's own Core ML backend lowers the program with coremltools; the delegate holds an `.mlpackage`. The backend
takes one precision for all operators of a file: half precision for fp16 and int8. There is no float32 region as in
targets/coreml/convert.py, so that the official form of a T2T-ViT is told in the file's cautions (see inspect.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from targets.executorch.convert import cause_of
from targets.program import check_request, fold_quantized_weights, static_batch
from targets.sdk import quieted, why_not_imported
from targets.target import Schemes, made, not_made
from targets.types import WEIGHT_ONLY, ConvertRequest, PackageOptions, Precision, TargetError

if TYPE_CHECKING:
    from torch.export import ExportedProgram

_MIL_QUANTIZE = "coremltools .../mil/ops/defs/iOS17/quantization_ops.py"
_ELSEWHERE = not_made("weights alone are compressed in Core ML packages of their own: --target coreml")

#: The precisions that files are made in, or why not, with the source of each reason.
SCHEMES = Schemes(
    "executorch-coreml",
    {
        "fp32": made("float32; not on the Neural Engine"),
        "fp16": made("weights and activations in half precision"),
        "int8": made("the same, from iOS 17"),
        "w8a16": not_made(f"as in coreml: no int16 activations ({_MIL_QUANTIZE})"),
        "int8-dynamic": not_made(f"as in coreml: scales of activations are constants ({_MIL_QUANTIZE})"),
        "w4a8-dynamic": not_made(f"as in coreml: scales of activations are constants ({_MIL_QUANTIZE})"),
        **dict.fromkeys(WEIGHT_ONLY, _ELSEWHERE),
    },
)


def unavailable_reason() -> str:
    """Why nothing can be converted here; empty where it can."""
    modules = ("executorch.backends.apple.coreml.partition", "executorch.exir")
    return why_not_imported("ExecuTorch's Core ML backend", "executorch coremltools", *modules)


def convert(request: ConvertRequest) -> None:
    """Write `request.output`. The format has no room for `request.metadata`.

    Raises:
        Unavailable: no ExecuTorch or no coremltools here.
        TargetError: stage "convert".
    """
    check_request(request, SCHEMES, unavailable_reason)
    if request.options != PackageOptions():
        cause = f"a .pte file has no room for {request.options}: convert with --target coreml, or without these options"
        raise TargetError("convert", cause)
    program = fold_quantized_weights(request.program) if request.precision == "int8" else static_batch(request.program)
    request.output.write_bytes(_lower(program, request.precision))


def _lower(program: ExportedProgram, precision: Precision) -> bytes:
    with quieted():
        import coremltools as ct
        from executorch.backends.apple.coreml.compiler import CoreMLBackend
        from executorch.backends.apple.coreml.partition import CoreMLPartitioner
        from executorch.exir import to_edge_transform_and_lower

        specs = CoreMLBackend.generate_compile_specs(
            compute_unit=ct.ComputeUnit.ALL,
            minimum_deployment_target=ct.target.iOS17,
            compute_precision=ct.precision.FLOAT32 if precision == "fp32" else ct.precision.FLOAT16,
        )
        try:
            edge = to_edge_transform_and_lower(program, partitioner=[CoreMLPartitioner(compile_specs=specs)])
            return bytes(edge.to_executorch().buffer)
        except Exception as error:  # both SDKs raise what their passes meet; one cell of the matrix may fail alone
            raise TargetError("convert", cause_of(error)) from error
