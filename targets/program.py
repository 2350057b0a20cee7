"""The exported program that all converters start from: load it, fix its batch, fold its weights, list its scales."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from targets.types import ConvertRequest, Precision, QuantParams, TargetError, Unavailable

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram
    from torch.fx import GraphModule, Node

    from targets.target import Schemes

QUANTIZE_OPS = ("quantized_decomposed.quantize_per_tensor.default", "quantized_decomposed.quantize_per_channel.default")
# Activations of the precisions of targets.types.STATIC.
_ACTIVATIONS: dict[Precision, str] = {"int8": "int8", "w8a16": "int16"}
DEQUANTIZE_OPS = (
    "quantized_decomposed.dequantize_per_tensor.default",
    "quantized_decomposed.dequantize_per_channel.default",
)


def load_program(path: Path) -> ExportedProgram:
    """Read a `.pt2`.

    A `.pt2` can execute code when it is loaded: the caller has compared its sha256 with the run's manifest.

    Raises:
        TargetError: stage "load", the file is not an exported program of this torch.
    """
    import torch
    from torchao.quantization.pt2e import quantize_pt2e  # noqa: F401  registers quantized_decomposed

    try:
        return torch.export.load(path)
    except Exception as error:  # torch.export.load raises whatever its unpickler meets
        cause = f"{path.name} is not an exported program that torch {torch.__version__} reads: {error}"
        raise TargetError("load", cause) from error


def check_request(request: ConvertRequest, schemes: Schemes, unavailable_reason: Callable[[], str]) -> None:
    """Refuse what cannot be converted, before any work.

    Raises:
        Unavailable: `unavailable_reason` has one.
        TargetError: stage "convert", a precision that the target is not made in, or a program for another one.
    """
    if reason := schemes.why_not(request.precision):
        raise TargetError("convert", reason)
    _check_quantized_as_asked(request)
    if reason := unavailable_reason():
        raise Unavailable("convert", reason)


def check_labels(request: ConvertRequest) -> None:
    """
    Raises:
        TargetError: stage "convert", class labels, and not one for each logit.
    """
    (logits,) = request.program.graph_signature.user_outputs
    node = next(n for n in request.program.graph.nodes if n.name == logits)
    labels, classes = len(request.options.class_labels), int(node.meta["val"].shape[-1])
    if labels not in (0, classes):
        raise TargetError("convert", f"{labels} class labels for {classes} logits: give one for each")


def _check_quantized_as_asked(request: ConvertRequest) -> None:
    """
    Raises:
        TargetError: stage "convert", a precision with scales of its own of a float program, or of one with other
            activations; any other precision of a QDQ program.
    """
    # What the program quantizes tensors to for itself; nothing in a float program.
    found = {
        str(node.args[-1]).removeprefix("torch.")
        for node in request.program.graph.nodes
        if str(node.target) == QUANTIZE_OPS[0]
    }
    if request.precision not in _ACTIVATIONS:
        if found:
            cause = (
                f"{request.precision} needs a float program, this one has quantize operators: pass the float program"
            )
            raise TargetError("convert", cause)
        return
    wanted = _ACTIVATIONS[request.precision]
    if not found:
        cause = f"{request.precision} needs a program with quantize operators, this one has none: pass the QDQ program"
        raise TargetError("convert", cause)
    if found != {wanted}:
        seen = ", ".join(sorted(found))
        cause = f"{request.precision} has {wanted} activations, those of this program are {seen}: pass its own program"
        raise TargetError("convert", cause)


def input_shape(program: ExportedProgram) -> tuple[int, int, int]:
    """(3, H, W) of the images that the program takes."""
    _, channels, height, width = images_of(program).meta["val"].shape
    return int(channels), int(height), int(width)


def images_of(program: ExportedProgram) -> Node:
    """The placeholder of the images that the program takes."""
    names = set(program.graph_signature.user_inputs)
    return next(n for n in program.graph.nodes if n.op == "placeholder" and n.name in names)


def static_batch(program: ExportedProgram) -> ExportedProgram:
    """The same program for one image: [1, 3, H, W] -> [1, classes]. The input program is not changed."""
    return _export_single(program.module(), input_shape(program))


def fold_quantized_weights(program: ExportedProgram) -> ExportedProgram:
    """`static_batch`, with every weight -> quantize replaced by the int8 constant that it computes.

    ExecuTorch's XNNPACK partitioner and coremltools want stored int8 weights; litert-torch wants the pair unfolded.
    Activations are left alone. The input program is not changed.
    """
    from torchao.quantization.pt2e.constant_fold import constant_fold
    from torchao.quantization.pt2e.quantize_pt2e import _quant_node_constraint

    module = program.module()
    constant_fold(module, _quant_node_constraint)
    return _export_single(module, input_shape(program))


def decomposed(program: ExportedProgram) -> ExportedProgram:
    """The program in core operators, as coremltools wants it.

    A slice that takes everything decomposes into `alias`, which coremltools does not know: the value itself stands in.
    """
    import torch

    core = program.run_decompositions({})
    outputs = {spec.arg.name for spec in core.graph_signature.output_specs}
    for node in list(core.graph.nodes):
        if node.target == torch.ops.aten.alias.default and node.name not in outputs:
            node.replace_all_uses_with(node.args[0])
            core.graph.erase_node(node)
    core.graph_module.recompile()
    return core


def _export_single(module: torch.nn.Module, shape: tuple[int, int, int]) -> ExportedProgram:
    import torch

    with torch.no_grad():
        return torch.export.export(module, (torch.zeros(1, *shape),))


def trained_quant_params(program: ExportedProgram) -> dict[str, QuantParams]:
    """Scale and zero point of every quantize operator of a QDQ program, by the name of the quantized tensor.

    Weights carry their parameter's name (per-channel: one entry per output channel), activations the name of the
    graph node that produces them. Empty for a float program.
    """
    params: dict[str, QuantParams] = {}
    module = program.module()
    for node in module.graph.nodes:
        if str(node.target) not in QUANTIZE_OPS:
            continue
        scale, zero_point = (_constant(module, argument) for argument in node.args[1:3])
        quantized = node.args[0]
        params[str(quantized.target) if quantized.op == "get_attr" else quantized.name] = QuantParams(
            scale=tuple(float(s) for s in scale), zero_point=tuple(int(z) for z in zero_point)
        )
    return params


def _constant(module: GraphModule, argument: object) -> list[float]:
    from torch.fx import Node
    from torch.fx.graph_module import _get_attr

    if isinstance(argument, Node):
        return _get_attr(module, str(argument.target)).flatten().tolist()
    assert isinstance(argument, (int, float))
    return [argument]
