"""Bias correction of post-training quantization: a calibrated graph and images in, the same graph with new biases out.

Rounding moves the mean of a layer's output, channel by channel, and the layers behind read the moved mean. The mean
that the float model has on calibration images is put back through the layer's bias: Nagel et al. 2019, "Data-free
quantization through weight equalization and bias correction", section 4.2, in its empirical form (appendix D);
Finkelstein et al. 2019, "Fighting quantization bias with bias". Where a ReLU or ReLU6 follows, the mean that counts is
the one behind it: of values that the clamp cuts off, rounding moves the mean and no later layer sees it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from pipeline.errors import TrainingError
from pipeline.progress import progress
from pipeline.quantization.fake_quantize import EdgeFakeQuantize
from pipeline.quantization.graph import set_fake_quantization, set_observers, set_training
from pipeline.quantization.integer import along
from pipeline.quantization.quantizer import CLAMPS, clamp_bounds, sole_user

aten = torch.ops.aten
#: The mean behind a clamp is no linear function of the bias. Its slope is the share of values inside; where there are
#: next to none a larger one is taken, so that a channel that never fires stays where it is. A change below ENOUGH of
#: the largest shift ends it.
NEWTON_STEPS, LEAST_SLOPE, ENOUGH = 5, 0.02, 0.01


@dataclass(frozen=True)
class BiasCorrection:
    """What was corrected.

    Attributes:
        layers: names of the layers whose bias moved, in the order of the graph.
        without_bias: those that have none and are left as they are.
        images: that both means are over.
        mean_shift: mean over all corrected channels of the absolute change, in units of the output.
    """

    layers: tuple[str, ...]
    without_bias: tuple[str, ...]
    images: int
    mean_shift: float


@dataclass(frozen=True)
class _Layer:
    """A layer with int8 weights: `output` is its value with bias, before a clamp to `low` and `high`; its channels lie
    along `axis`."""

    name: str
    output: Node
    axis: int
    bias: str | None
    low: float
    high: float

    def seen(self, value: Tensor) -> Tensor:
        """What the rest of the graph sees of it."""
        return value if math.isinf(self.low) else value.clamp(self.low, self.high)

    def mean(self, values: Iterable[Tensor]) -> Tensor:
        """Of what is seen of it, over all but the channels, float64 [channels]"""
        return self.average(map(self.seen, values))

    def average(self, values: Iterable[Tensor]) -> Tensor:
        """The same of all of it."""
        totals, count = [], 0
        for value in values:
            kept = self.axis % value.dim()
            totals.append(value.sum([d for d in range(value.dim()) if d != kept]).double())
            count += value.numel() // value.shape[kept]
        return torch.stack(totals).sum(0) / count


def correct_biases(graph: GraphModule, batches: Iterable[Tensor], device: torch.device) -> BiasCorrection:
    """Give every layer with int8 weights and a bias the output means of the float model, first layers first.

    A layer is corrected on inputs that corrected layers have computed. That takes two passes over the images however
    many layers there are: all batches go through the graph side by side, node by node. The values that are still to be
    read, of all images at once, have to fit into memory: of MobileNetV2 at 224 px 15 MB an image.

    Where BatchNorm follows, its bias is what moves. The graph is left in evaluation mode, with frozen observers and
    with fake quantization.

    Args:
        batches: of images [B, 3, H, W].

    Raises:
        TrainingError: there are no images, or the means are not finite.
    """
    set_training(graph, False)
    set_observers(graph, False)
    layers = _layers(graph)
    corrected = [layer for layer in layers if layer.bias is not None]
    parameters = dict(graph.named_parameters())
    held = [batch.to(device) for batch in batches]
    if not held:
        raise TrainingError("bias correction got no images: give it the calibration images")
    shifts: list[Tensor] = []
    with torch.no_grad(), progress("bias correction", 2 * len(graph.graph.nodes), "operators") as bar:
        by_output = {layer.output: layer for layer in corrected}
        means: dict[Node, Tensor] = {}
        set_fake_quantization(graph, False)
        for node, runs in side_by_side(graph, held):
            bar.advance(1)
            if node in by_output:
                means[node] = by_output[node].mean([run.env[node] for run in runs])
        set_fake_quantization(graph, True)
        for node, runs in side_by_side(graph, held):
            bar.advance(1)
            if node not in by_output:
                continue
            layer = by_output[node]
            shift = _shift(layer, [run.env[node] for run in runs], means[node])
            shift = shift.to(parameters[str(layer.bias)].dtype)
            _check_finite(shift, layer)
            parameters[str(layer.bias)].add_(shift)
            for run in runs:
                run.env[node] = run.env[node] + along(shift, run.env[node], layer.axis)
            shifts.append(shift.abs().double())
    return BiasCorrection(
        layers=tuple(layer.name for layer in corrected),
        without_bias=tuple(layer.name for layer in layers if layer.bias is None),
        images=sum(map(len, held)),
        mean_shift=float(torch.cat(shifts).mean()) if shifts else 0.0,
    )


def _layers(graph: GraphModule) -> list[_Layer]:
    """In the order of the graph; a bias that two layers share belongs to the first of them."""
    found: list[_Layer] = []
    taken: set[str] = set()
    for node in graph.graph.nodes:
        if node.target not in (aten.linear.default, aten.conv2d.default):
            continue
        weight = int8_weight(graph, node)
        if weight is None:
            continue
        norm = _batch_norm_after(node)
        output = norm or node
        bias = output.args[2] if len(output.args) > 2 else None
        name = str(bias.target) if isinstance(bias, Node) and bias.op == "get_attr" else None
        if name in taken:
            name = None
        elif name is not None:
            taken.add(name)
        axis = -1 if node.target == aten.linear.default else 1
        found.append(_Layer(weight.removesuffix(".weight"), output, axis, name, *_clamped(output)))
    return found


def int8_weight(graph: GraphModule, layer: Node) -> str | None:
    """The name of its weight; None where that is not rounded."""
    node, rounded = layer.args[1], False
    while isinstance(node, Node) and node.op != "get_attr":
        if node.op == "call_module":
            rounded = isinstance(graph.get_submodule(str(node.target)), EdgeFakeQuantize)
        node = node.args[0]  # through the scale of a fused BatchNorm, whose first operand is the weight
    return str(node.target) if rounded and isinstance(node, Node) else None


def _batch_norm_after(node: Node) -> Node | None:
    """The BatchNorm fused with a convolution; its own bias, if it has one, is added between the two."""
    while len(node.users) == 1:
        (node,) = node.users
        if node.target == aten.batch_norm.default:
            return node
        if node.target != aten.add.Tensor:
            return None
    return None


def side_by_side(graph: GraphModule, batches: Sequence[Tensor]) -> Iterator[tuple[Node, list[Interpreter]]]:
    """All batches through the graph, node by node: each node with the interpreters that have just computed it.

    Who changes a value, in `env` of every one of them, changes what the nodes behind it read.
    """
    runs = [Interpreter(graph) for _ in batches]
    for run, batch in zip(runs, batches, strict=True):
        run.args_iter = iter(graph.graph.process_inputs(batch))
    for node in graph.graph.nodes:
        for run in runs:
            run.env[node] = run.run_node(node)
        yield node, runs
        for run in runs:
            for unused in run.user_to_last_uses.get(node, []):
                del run.env[unused]


def _clamped(output: Node) -> tuple[float, float]:
    """The smallest and the largest value that the rest of the graph sees of it."""
    user = sole_user(output, CLAMPS)
    return (-math.inf, math.inf) if user is None else clamp_bounds(user)


def _shift(layer: _Layer, values: list[Tensor], wanted: Tensor) -> Tensor:
    """What the bias has to grow by for the means `wanted` behind the clamp, float64 [channels]; by Newton's method."""
    shift = torch.zeros_like(wanted)
    for _ in range(1 if math.isinf(layer.low) else NEWTON_STEPS):
        moved = [value + along(shift.to(value.dtype), value, layer.axis) for value in values]
        inside = layer.average((layer.seen(value) == value).to(value.dtype) for value in moved)
        change = (wanted - layer.mean(moved)) / inside.clamp(min=LEAST_SLOPE)
        shift = shift + change
        if float(change.abs().max()) < ENOUGH * float(shift.abs().max()):
            break
    return shift


def _check_finite(shift: Tensor, layer: _Layer) -> None:
    bad = int((~shift.isfinite()).sum())
    if bad:
        raise TrainingError(
            f"bias correction: {bad} of {len(shift)} channels of {layer.name} have a mean that is not finite: "
            "quantize without it, or look at the weights"
        )
