"""Adaptive rounding of post-training quantization: a calibrated graph and images in, the same graph with weights on
their int8 grid.

Rounding each weight to the nearest integer is not the best for what the layer computes: errors of weights that see
correlated inputs add up. Here the columns of a weight are rounded one after the other, and what a column loses is made
up for by those that are not rounded yet, in the way that changes the layer's output on calibration images least:
Frantar et al. 2023, "GPTQ", section 3 (optimal brain quantization with one Cholesky factor); the aim is that of Nagel
et al. 2020, "Up or Down? Adaptive Rounding", without its training.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx import GraphModule, Interpreter
from torch.fx.graph_module import _get_attr

from pipeline.errors import TrainingError
from pipeline.progress import progress
from pipeline.quantization.bias_correction import int8_weight, side_by_side
from pipeline.quantization.fake_quantize import EdgeFakeQuantize

aten = torch.ops.aten
#: Positions of a convolution's output that are looked at in each image, evenly spread.
POSITIONS = 128
#: Of the mean of the Hessian's diagonal, added to it: inputs that never vary would make it singular (GPTQ, 3.3).
DAMPING = 0.01
LARGEST = 127


@dataclass(frozen=True)
class AdaptiveRounding:
    """What was rounded.

    Attributes:
        layers: names, in the order of the graph.
        images: that their inputs are of.
        error: mean over the layers of what is left of the squared error of their outputs, 1 for nearest rounding.
    """

    layers: tuple[str, ...]
    images: int
    error: float


def round_weights(graph: GraphModule, batches: Iterable[Tensor], device: torch.device) -> AdaptiveRounding:
    """Move every int8 weight onto an integer of its grid, first layers first; what a layer reads has been rounded.

    Args:
        batches: of images [B, 3, H, W].

    Raises:
        TrainingError: a layer's inputs are not finite.
    """
    held = [batch.to(device) for batch in batches]
    names: list[str] = []
    left: list[float] = []
    with torch.no_grad(), progress("adaptive rounding", len(graph.graph.nodes), "operators") as bar:
        node: Any
        for node, runs in side_by_side(graph, held):
            bar.advance(1)
            name = int8_weight(graph, node) if node.target in (aten.linear.default, aten.conv2d.default) else None
            if name is None or name in names:
                continue
            inputs = torch.cat([_inputs(node, run) for run in runs], dim=1)
            if not inputs.isfinite().all():
                raise TrainingError(f"adaptive rounding: {name} reads values that are not finite; look at the weights")
            left.append(_round(graph, node, runs[0], graph.get_parameter(name), inputs))
            names.append(name)
            weight = _evaluated(graph, node.args[1])
            for run in runs:
                run.env[node.args[1]] = weight
                run.env[node] = run.run_node(node)
    layers = tuple(name.removesuffix(".weight") for name in names)
    return AdaptiveRounding(layers, sum(map(len, held)), float(torch.tensor(left).mean()) if left else 1.0)


def _inputs(layer: Any, run: Interpreter) -> Tensor:
    """What the rows of the weight are multiplied with: [groups, positions, inputs]."""
    value = run.env[layer.args[0]]
    if layer.target == aten.linear.default:
        return _evenly(value.flatten(1, -2) if value.dim() > 2 else value[:, None]).flatten(end_dim=1)[None]
    weight, given = run.env[layer.args[1]], list(layer.args[3:])
    defaults: list[Any] = [[1, 1], [0, 0], [1, 1], 1]
    stride, padding, dilation, groups = given + defaults[len(given) :]
    rows = []
    for image in value.split(1):  # one at a time: unfolded, it is as many times larger as the kernel has elements
        patches = F.unfold(image, weight.shape[-2:], dilation, padding, stride).mT  # [1, positions, C x kh x kw]
        rows.append(_evenly(patches)[0].unflatten(1, (groups, -1)).movedim(1, 0))
    return torch.cat(rows, dim=1)


def _evenly(values: Tensor) -> Tensor:
    """[B, positions, inputs] with at most about twice POSITIONS of them."""
    return values[:, :: max(1, values.shape[1] // POSITIONS)]


def _round(graph: GraphModule, layer: Any, run: Interpreter, parameter: Tensor, inputs: Tensor) -> float:
    """Write the rounded weight; the share of the output's squared error that is left."""
    node, gains = layer.args[1], torch.ones(())
    while node.op != "call_module":
        node = node.args[0]
    quantizer = graph.get_submodule(str(node.target))
    assert isinstance(quantizer, EdgeFakeQuantize)
    scaled = node.args[0]
    if scaled.target == aten.mul.Tensor:  # by the gain of a fused BatchNorm
        gains = _evaluated(graph, scaled.args[1])
    weight = parameter * gains
    steps = quantizer.calculate_qparams()[0].to(weight)
    rows = weight.flatten(1).unflatten(0, (len(inputs), -1))  # [groups, outputs, inputs]
    steps = steps.reshape(len(inputs), -1)
    nearest = torch.round(rows / steps[..., None]).clamp(-LARGEST, LARGEST)
    codes = _least_error(rows, steps, inputs, nearest)
    errors = [((((c * steps[..., None]) - rows) @ inputs.mT).double().square().sum()) for c in (codes, nearest)]
    if errors[0] < errors[1]:
        parameter.copy_((codes * steps[..., None]).reshape(weight.shape) / gains)
    return float(errors[0].minimum(errors[1]) / errors[1].clamp(min=1e-30))


def _least_error(rows: Tensor, steps: Tensor, inputs: Tensor, nearest: Tensor) -> Tensor:
    """Integers of the weights, shaped as `rows` [groups, outputs, inputs]. A row's largest sets its scale and stays."""
    hessian = (inputs.mT @ inputs).double()  # [groups, inputs, inputs]
    diagonal = hessian.diagonal(dim1=-2, dim2=-1)
    diagonal += (DAMPING * diagonal.mean(-1, keepdim=True)).clamp(min=1e-12)
    factor = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True).to(rows.dtype)
    left, codes = rows.clone(), torch.empty_like(rows)
    fixed = nearest.abs() >= LARGEST
    for k in range(rows.shape[-1]):
        column = torch.round(left[..., k] / steps).clamp(-LARGEST, LARGEST)
        codes[..., k] = torch.where(fixed[..., k], nearest[..., k], column)
        error = (left[..., k] - codes[..., k] * steps) / factor[:, None, k, k]
        left[..., k + 1 :] -= error[..., None] * factor[:, None, k, k + 1 :]
    return codes


def _evaluated(graph: GraphModule, node: Any) -> Tensor:
    """Of a node that is computed from parameters and buffers alone."""
    if node.op == "get_attr":
        value: Tensor = _get_attr(graph, str(node.target))
        return value
    arguments = torch.fx.node.map_arg(node.args, lambda argument: _evaluated(graph, argument))
    function = graph.get_submodule(str(node.target)) if node.op == "call_module" else node.target
    result: Tensor = function(*arguments, **node.kwargs)
    return result
