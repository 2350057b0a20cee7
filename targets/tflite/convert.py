"""Convert a float or QDQ program to a `.tflite` file for batch 1.

It takes float32 [1, 3, H, W] and gives logits; the converter puts one TRANSPOSE behind that input. With an image input
it takes a picture and gives probabilities, and carries the standard metadata of an image classifier.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from targets.program import check_labels, check_request, input_shape, static_batch
from targets.sdk import quieted, why_not_imported
from targets.tflite import flatbuffer, image, metadata, passes
from targets.tflite.compress import compress
from targets.tflite.schemes import SCHEMES
from targets.types import DYNAMIC, STATIC, WEIGHT_ONLY, ConvertRequest, Precision, TargetError

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

#: XNNPACK takes them in float only.
_NOT_DELEGATED_IN_INT8 = ("GELU", "SOFTMAX", "BATCH_MATMUL")


def unavailable_reason() -> str:
    """Why nothing can be converted here; empty where it can."""
    with _quiet():
        return why_not_imported("litert_torch", "litert-torch", "ai_edge_quantizer", "litert_torch")


def convert(request: ConvertRequest) -> None:
    """Write `request.output`, with `request.metadata` inside.

    Raises:
        Unavailable: no litert-torch here.
        TargetError: stage "convert".
    """
    check_request(request, SCHEMES, unavailable_reason)
    check_labels(request)
    content = lower(static_batch(request.program), request.precision)
    if request.precision == "fp16":
        content = _store_weights_as_float16(content)
    elif request.precision in WEIGHT_ONLY + DYNAMIC:
        with _quiet():
            content = compress(content, request.precision, request.options.group_size)
    model = flatbuffer.parse(content, request.output.name)
    if request.precision == "w8a16":
        passes.remove_barriers(model)
        passes.widen_biases(model)
    passes.make_boundary_float(model)
    passes.make_operators_float(model, _NOT_DELEGATED_IN_INT8)
    passes.make_products_of_activations(model)
    passes.shorten_names(model)
    flatbuffer.write_metadata(model, request.metadata)
    request.output.write_bytes(_with_image_boundary(model, request))


def _with_image_boundary(model: flatbuffer.Model, request: ConvertRequest) -> bytes:
    """The bytes of the file, with an image input if one was asked for.

    Raises:
        TargetError: stage "convert", a class label of several lines.
    """
    options, labels = request.options, request.options.class_labels
    if not options.image_input:
        return flatbuffer.serialize(model)
    _, height, width = input_shape(request.program)
    crop = "" if options.crop_pct is None else f"; the crop keeps {options.crop_pct:g} of the resized picture"
    how = f" ({options.interpolation})" if options.interpolation else ""
    image.put_image_boundary(model, options.mean, options.std)
    content = metadata.metadata(
        name=request.metadata.get("model", ""),
        version=request.metadata.get("run", ""),
        size=(height, width),
        has_labels=bool(labels),
        description=f"RGB pixels of 0 to 255, normalised inside{crop}{how}.",
        tensors=(image.INPUT, image.OUTPUT),
    )
    flatbuffer.write_entry(model, metadata.ENTRY, content)
    try:
        return metadata.pack_labels(flatbuffer.serialize(model), labels) if labels else flatbuffer.serialize(model)
    except ValueError as error:
        raise TargetError("convert", str(error)) from error


def lower(program: ExportedProgram, precision: Precision) -> bytes:
    """The TFLite file that litert-torch makes of a program for one image: float, or with the integers of a QDQ program.

    The boundary of an int8 file is as the converter leaves it: int8 where the program quantizes its input or output.
    One with int16 activations has a second input and additions (targets.tflite.passes).

    Raises:
        TargetError: stage "convert"; operators that litert-torch cannot lower are named.
    """
    import torch

    images = (torch.zeros(1, *input_shape(program)),)
    with _quiet():
        import litert_torch

        try:
            has_barriers = precision == "w8a16"
            model = litert_torch.convert(
                _contiguous(passes.with_barriers(program) if has_barriers else program.module()),
                (*images, torch.zeros(1)) if has_barriers else images,
                quant_config=_static_pt2e() if precision in STATIC else None,
            )
            return bytes(model.model_content())
        except Exception as error:  # the SDK raises what its passes meet; one cell of the matrix may fail alone
            raise TargetError("convert", _cause(program, error)) from error


def _contiguous(module: torch.nn.Module) -> torch.nn.Module:
    """The module with its tensors in row-major order: litert-torch reads others (a transposed weight) wrongly."""
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data = tensor.data.contiguous()
    return module


def _static_pt2e() -> object:
    """The QuantConfig under which litert-torch folds quantize/dequantize pairs into integer operators.

    Of the quantizer only "static or dynamic" is read; scales, and what is quantized, come from the program. Without
    it the pairs stay as operators around float weights.
    """
    from litert_torch.quantize.pt2e_quantizer import PT2EQuantizer, get_symmetric_quantization_config
    from litert_torch.quantize.quant_config import QuantConfig

    scheme = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=False)
    return QuantConfig(pt2e_quantizer=PT2EQuantizer().set_global(scheme))


def _store_weights_as_float16(content: bytes) -> bytes:
    """Cast the weights of linear and convolution operators; DEQUANTIZE operators widen them when the file is loaded."""
    from ai_edge_quantizer import qtyping, quantizer
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    weights = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
    with _quiet():
        casting = quantizer.Quantizer(content)
        casting.update_quantization_recipe(
            regex=".*",
            operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
            op_config=qtyping.OpQuantizationConfig(
                weight_tensor_config=weights, compute_precision=qtyping.ComputePrecision.FLOAT, explicit_dequantize=True
            ),
            algorithm_key=AlgorithmName.FLOAT_CASTING,
        )
        return bytes(casting.quantize().quantized_model)


def _cause(program: ExportedProgram, error: Exception) -> str:
    text = " ".join(str(error).split("Use tlparse")[0].split())
    missing = _operators_without_lowering(program) if "Lowering not found" in text else []
    if missing:
        return f"litert-torch has no lowering for {', '.join(missing)}: replace them, or leave out this target"
    named = sorted(set(re.findall(r"'((?:stablehlo|tfl|tf|chlo)\.\w+)'|target=torch\.ops\.([\w.]+)", text)))
    operators = ", ".join(builtin or aten for builtin, aten in named)
    return f"litert-torch: {type(error).__name__}: {text[:400]}" + (
        f" (operators named: {operators})" if operators else ""
    )


def _operators_without_lowering(program: ExportedProgram) -> list[str]:
    """The SDK stops at the first operator that it does not know; this lists them all."""
    from litert_torch import fx_infra
    from litert_torch.backend import lowerings

    with _quiet():
        decomposed = fx_infra.safe_run_decompositions(program, fx_infra.decomp.pre_lower_decomp(), can_skip=False)
    targets = {node.target for node in decomposed.graph.nodes if node.op == "call_function"}
    return sorted(str(t) for t in targets if hasattr(t, "overloadpacket") and lowerings.lookup(t) is None)


@contextmanager
def _quiet() -> Iterator[None]:
    """`quieted`, and without the SDK's progress bars."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["LITERT_TORCH_SHOW_PROGRESS"] = "n"  # the switch that litert_torch's own config sets
    with quieted():
        yield
