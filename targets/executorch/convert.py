"""Convert a float or QDQ program to a `.pte` file for XNNPACK, dynamic quantization included.

XNNPACK takes a Linear with activations per token and weights in int8 (a scale for each output channel) or int4 (one
for each group of input channels), and a convolution without groups with activations per tensor and int8 weights. The
rest stays float: depthwise convolutions have no dynamic kernel (gemm_configs.py of ExecuTorch's XNNPACK backend).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from targets.executorch.schemes import SCHEMES
from targets.match import is_trained
from targets.program import check_labels, check_request, fold_quantized_weights, images_of, input_shape, static_batch
from targets.sdk import one_line, quieted, why_not_imported
from targets.types import DYNAMIC, ConvertRequest, PackageOptions, Precision, TargetError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import ExportedProgram
    from torch.fx import Graph, GraphModule, Node


ROOM = 1e-4  # of a step; what is nearer to half-way may be rounded either way


def unavailable_reason() -> str:
    """Why nothing can be converted here; empty where it can."""
    modules = ("executorch.backends.xnnpack.partition.xnnpack_partitioner", "executorch.exir")
    return why_not_imported("executorch.exir", "executorch", *modules)


def convert(request: ConvertRequest) -> None:
    """Write `request.output`; the format has no room for `request.metadata`.

    With an image input, the methods of `constant_methods` lie beside `forward`.

    Raises:
        Unavailable: no ExecuTorch here.
        TargetError: stage "convert".
    """
    check_request(request, SCHEMES, unavailable_reason)
    check_labels(request)
    program = fold_quantized_weights(request.program) if request.precision == "int8" else static_batch(request.program)
    if request.precision in DYNAMIC:
        with quieted():
            program = quantize_dynamically(program, request.precision, request.options.group_size)
    methods = None
    if request.options.image_input:
        methods = constant_methods(request.options, input_shape(program))
        with quieted():
            program = with_image_boundary(program, request.options.mean, request.options.std)
    request.output.write_bytes(_lower(program, methods))


def constant_methods(options: PackageOptions, shape: tuple[int, int, int]) -> dict[str, object]:
    """Methods of the file without input, for an app: each gives one value, `labels` one string for each class.

    Args:
        shape: (3, H, W) of the program's images.
    """
    _, height, width = shape
    methods: dict[str, object] = {"layout": "NHWC", "colors": "RGB", "height": height, "width": width}
    if options.crop_pct is not None:
        methods["crop_pct"] = options.crop_pct
    if options.interpolation:
        methods["interpolation"] = options.interpolation
    if options.class_labels:
        methods["labels"] = list(options.class_labels)
    return methods


def with_image_boundary(program: ExportedProgram, mean: tuple[float, ...], std: tuple[float, ...]) -> ExportedProgram:
    """uint8 RGB [1, H, W, 3] -> (probabilities, logits), each [1, classes], around the program as it is.

    Channels last, because a bitmap's bytes in their order are that tensor, and because LiteRT's files take the same.
    The divisions are those of torchvision's ToTensor and Normalize, so that the floats are the same to the last bit. An
    int8 program sees steps of its grid alone: where a product and a sum, which are faster, give all pixels the same
    ones, they stand there instead.
    XNNPACK has no unsigned bytes: the cast is the one operator that stays outside of the delegate. It is written as a
    dequantization with scale 1, whose kernel took 0.03 ms for 224 px where that of a cast took 0.3.
    """
    import executorch.kernels.quantized  # noqa: F401  registers how the dequantization writes into given memory
    import torch
    from torch import nn
    from torchao.quantization.pt2e import quantize_pt2e  # noqa: F401  registers quantized_decomposed

    dequantize = torch.ops.quantized_decomposed.dequantize_per_tensor.default
    quantize = torch.ops.quantized_decomposed.quantize_per_tensor.default
    grid = _grid_of_images(program)
    factor, offset = [1 / (255 * s) for s in std], [-m / s for m, s in zip(mean, std, strict=True)]
    on_grid = grid is not None and _same_steps(mean, std, factor, offset, float(str(grid[0])))
    channels, height, width = input_shape(program)

    class Image(nn.Module):
        mean: Tensor
        std: Tensor
        factor: Tensor
        offset: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.program = program.module()
            # Rows of W x 3 values: kernels that broadcast over the last axis are slow on one of 3.
            for name, values in (("mean", mean), ("std", std), ("factor", factor), ("offset", offset)):
                self.register_buffer(name, torch.tensor(values, dtype=torch.float32).repeat(width))

        def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
            rows = dequantize(pixels, 1.0, 0, 0, 255, torch.uint8).reshape(1, height, width * channels)
            rows = rows * self.factor + self.offset if on_grid else (rows / 255.0 - self.mean) / self.std
            images = rows.reshape(1, height, width, channels)
            if grid is not None:  # a quarter of the bytes to move; the program's own quantize then changes nothing
                images = dequantize(quantize(images, *grid), *grid)
            # Contiguous: else what follows keeps the strides of channels last, and is copied outside of the delegate.
            logits = self.program(images.permute(0, 3, 1, 2).contiguous())
            return torch.softmax(logits, dim=-1), logits

    with torch.no_grad():
        return torch.export.export(Image(), (torch.zeros(1, height, width, channels, dtype=torch.uint8),))


def _grid_of_images(program: ExportedProgram) -> tuple[object, ...] | None:
    """Scale, zero point, range and dtype that all readers of the images quantize them with; None if one does not."""
    users = images_of(program).users
    grids = {user.args[1:] if "quantize_per_tensor" in str(user.target) else None for user in users}
    return grids.pop() if len(grids) == 1 else None


def _same_steps(
    mean: Sequence[float], std: Sequence[float], factor: Sequence[float], offset: Sequence[float], scale: float
) -> bool:
    """Whether pixel * factor + offset is on the step of (pixel / 255 - mean) / std, for all 256 pixels and channels.

    And off by less than the way to the next step, with room for how float32 rounds: about 1e-5 of a step.
    """
    import numpy as np

    pixels = np.arange(256, dtype=np.float32)[:, None]
    one, other, plus, times = (np.asarray(values, np.float32) for values in (mean, std, offset, factor))
    divided = ((pixels / np.float32(255) - one) / other) / np.float32(scale)
    multiplied = (pixels * times + plus) / np.float32(scale)
    from_tie = np.abs(divided - np.floor(divided) - 0.5)
    return bool((np.rint(divided) == np.rint(multiplied)).all() and from_tie.min() > ROOM)


def _lower(program: ExportedProgram, methods: Mapping[str, object] | None) -> bytes:
    from executorch.backends.xnnpack._passes.remove_noop_expand_copy_pass import RemoveNoopExpandCopyPass
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    with quieted():
        try:
            # Of a class token, or of the operands of a matmul, to a batch of one: an operator outside the delegate.
            passes = [RemoveNoopExpandCopyPass()]
            edge = to_edge_transform_and_lower(
                program,
                transform_passes=passes,
                partitioner=[XnnpackPartitioner()],
                constant_methods=None if methods is None else dict(methods),
            )
            return bytes(edge.to_executorch().buffer)
        except Exception as error:  # the SDK raises what its passes meet; one cell of the matrix may fail alone
            raise TargetError("convert", cause_of(error)) from error


def cause_of(error: Exception) -> str:
    """An error of ExecuTorch's passes in one line, with the operators that it names."""
    text = one_line(error)
    operators = sorted(set(re.findall(r"\b(?:aten|torch\.ops\.\w+)[.:]+[\w.]+", text)))
    named = f" (operators named: {', '.join(operators)})" if operators else ""
    return f"ExecuTorch: {type(error).__name__}: {text[:400]}{named}"


_QUANT_MIN, _QUANT_MAX = -127, 127
# Of scales, as torchao's PT2E observers have it by default: float32's machine epsilon.
_EPSILON = 2.0**-23


def quantize_dynamically(
    program: ExportedProgram, precision: Precision, asked_group_size: int | None = None
) -> ExportedProgram:
    """
    Raises:
        TargetError: stage "convert", a group size that XNNPACK has not, or no layer to quantize.
    """
    import torch

    size = SCHEMES.group_size(precision, asked_group_size)
    module = program.module()
    changed = 0
    for node in list(module.graph.nodes):
        weight = _trained_weight(module, node)
        if weight is None:
            continue
        if node.target == torch.ops.aten.linear.default:
            bits = 4 if precision == "w4a8-dynamic" and weight.shape[1] % size == 0 else 8
            source = cast("Node | None", node.args[2] if len(node.args) > 2 else None)
            layer = _linear(weight, None if source is None else _constant(module, source), bits, size)
            module.add_submodule(f"dynamic_{changed}", layer)
            with module.graph.inserting_before(node):
                result = module.graph.call_module(f"dynamic_{changed}", (node.args[0],))
        else:
            result = _convolution(module, f"dynamic_{changed}", node, weight)
        node.replace_all_uses_with(result)
        module.graph.erase_node(node)
        changed += 1
    if not changed:
        raise TargetError(
            "convert", f"no Linear and no convolution has weights that {precision} takes: convert to fp32"
        )
    module.graph.eliminate_dead_code()
    module.recompile()
    with torch.no_grad():
        return torch.export.export(module, (torch.zeros(1, *input_shape(program)),))


def _trained_weight(module: GraphModule, node: Node) -> Tensor | None:
    """The weight of a Linear, or of a convolution without groups; None of anything else."""
    import torch

    aten = torch.ops.aten
    if node.target not in (aten.linear.default, aten.conv2d.default):
        return None
    if node.target == aten.conv2d.default and (node.args[6] if len(node.args) > 6 else 1) != 1:
        return None
    source = cast("Node", node.args[1])
    if source.op != "get_attr":  # computed: a product of two activations
        return None
    weight = _constant(module, source)
    return weight if is_trained(weight.numpy()) else None


def _constant(module: GraphModule, source: Node) -> Tensor:
    from torch.fx.graph_module import _get_attr

    constant: Tensor = _get_attr(module, str(source.target)).detach()
    return constant


def _linear(weight: Tensor, bias: Tensor | None, bits: int, size: int) -> nn.Module:
    """torchao's quantized Linear, in the form that XNNPACK's partitioner looks for."""
    import torch
    from torch import nn
    from torchao.quantization import quantize_
    from torchao.quantization.granularity import PerAxis, PerGroup
    from torchao.quantization.quant_api import Int8DynamicActivationIntxWeightConfig

    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight = nn.Parameter(weight.clone(), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.clone(), requires_grad=False)
    how = (
        Int8DynamicActivationIntxWeightConfig(weight_dtype=torch.int4, weight_granularity=PerGroup(size))  # type: ignore[attr-defined]
        if bits == 4
        else Int8DynamicActivationIntxWeightConfig(weight_dtype=torch.int8, weight_granularity=PerAxis(0))
    )
    # quantize_ replaces modules inside of the one that it is given.
    holder = nn.Sequential(layer).eval()
    quantize_(holder, how)
    quantized: nn.Module = holder[0]
    return quantized


def _convolution(module: GraphModule, name: str, node: Node, weight: Tensor) -> Node:
    """The convolution `node` between the quantize operators that XNNPACK's partitioner looks for."""
    import torch

    scales = (weight.abs().amax(dim=(1, 2, 3)) / _QUANT_MAX).clamp(min=_EPSILON)
    stored = (weight / scales[:, None, None, None]).round().clamp(_QUANT_MIN, _QUANT_MAX).to(torch.int8)
    module.register_buffer(f"{name}_weight", stored)
    module.register_buffer(f"{name}_scales", scales)
    module.register_buffer(f"{name}_zero_points", torch.zeros(len(scales), dtype=torch.int64))
    with module.graph.inserting_before(node):
        constants = [module.graph.get_attr(f"{name}_{what}") for what in ("weight", "scales", "zero_points")]
        image = _quantized_activation(module.graph, cast("Node", node.args[0]))
        weight_node = module.graph.call_function(
            torch.ops.quantized_decomposed.dequantize_per_channel.default,
            (*constants, 0, _QUANT_MIN, _QUANT_MAX, torch.int8),
        )
        return module.graph.call_function(torch.ops.aten.conv2d.default, (image, weight_node, *node.args[2:]))


def _quantized_activation(graph: Graph, node: Node) -> Node:
    import operator

    import torch

    ops = torch.ops.quantized_decomposed
    chosen = graph.call_function(ops.choose_qparams.tensor, (node, -128, 127, _EPSILON, torch.int8))
    scale, zero_point = (graph.call_function(operator.getitem, (chosen, i)) for i in (0, 1))
    limits = (scale, zero_point, -128, 127, torch.int8)
    quantized = graph.call_function(ops.quantize_per_tensor.tensor, (node, *limits))
    return graph.call_function(ops.dequantize_per_tensor.tensor, (quantized, *limits))
