"""torchao's BatchNorm fusion made cheap to train: its division of a convolution's output becomes one of the weight.

For QAT torchao turns a convolution with BatchNorm into conv(x, Q(s w)) / s, with s = gain / standard deviation and Q
the fake quantization (Krishnamoorthi 2018, "Quantizing deep convolutional networks", section 3.2.2). s is a number for
each output channel, so that is conv(x, Q(s w) / s): the same function of all parameters, and the gradient of a
division by s is a sum over the weight instead of one over images and positions, which costs more than the convolution.
"""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node

aten = torch.ops.aten
WEIGHT_SHAPE, OUTPUT_SHAPE = [-1, 1, 1, 1], [1, -1, 1, 1]


def divide_weights(graph: GraphModule) -> int:
    """In place, of a graph of torchao's `prepare_qat_pt2e`; returns how many convolutions were changed."""
    found = [(conv, scale) for conv in graph.graph.nodes if (scale := _scale_of_weight(conv)) is not None]
    changed = 0
    for conv, scale in found:
        division = next(iter(conv.users))
        if len(conv.users) != 1 or not _divides(division, conv, scale.args[0]):
            continue
        with graph.graph.inserting_before(conv):
            weight = graph.graph.call_function(aten.div.Tensor, (conv.args[1], scale))
        weight.meta = dict(division.meta)
        conv.update_arg(1, weight)
        reshaped = division.args[1]
        assert isinstance(reshaped, Node)
        division.replace_all_uses_with(conv)
        graph.graph.erase_node(division)
        _erase_unused(graph, reshaped)
        changed += 1
    _recompile(graph, changed)
    return changed


def divide_outputs(graph: GraphModule) -> int:
    """The inverse, which torchao's `convert_pt2e` needs: it looks for the division it has made."""
    changed = 0
    for conv in list(graph.graph.nodes):
        weight = conv.args[1] if conv.target == aten.conv2d.default else None
        if not isinstance(weight, Node) or weight.target != aten.div.Tensor:
            continue
        rounded, scale = weight.args
        assert isinstance(scale, Node)
        conv.update_arg(1, rounded)
        with graph.graph.inserting_after(conv):
            reshaped = graph.graph.call_function(aten.reshape.default, (scale.args[0], OUTPUT_SHAPE))
        with graph.graph.inserting_after(reshaped):
            division = graph.graph.call_function(aten.div.Tensor, (conv, reshaped))
        reshaped.meta, division.meta = dict(scale.meta), dict(weight.meta)
        conv.replace_all_uses_with(division, delete_user_cb=lambda user, own=division: user is not own)
        _erase_unused(graph, weight)
        changed += 1
    _recompile(graph, changed)
    return changed


def _scale_of_weight(conv: Node) -> Node | None:
    """s of conv(x, Q(w s)), in the shape of a weight; None for another node."""
    rounded = conv.args[1] if conv.target == aten.conv2d.default else None
    if not isinstance(rounded, Node) or rounded.op != "call_module":
        return None
    scaled = rounded.args[0]
    if not isinstance(scaled, Node) or scaled.target != aten.mul.Tensor:
        return None
    scale = scaled.args[1]
    return scale if isinstance(scale, Node) and _reshapes(scale, WEIGHT_SHAPE) else None


def _divides(division: Node, conv: Node, scale: object) -> bool:
    if division.target != aten.div.Tensor or division.args[0] is not conv:
        return False
    by = division.args[1]
    return isinstance(by, Node) and _reshapes(by, OUTPUT_SHAPE) and by.args[0] is scale


def _reshapes(node: Node, shape: list[int]) -> bool:
    return node.target == aten.reshape.default and node.args[1] == shape


def _erase_unused(graph: GraphModule, node: Node) -> None:
    if not node.users:
        graph.graph.erase_node(node)


def _recompile(graph: GraphModule, changed: int) -> None:
    if changed:
        graph.graph.lint()
        graph.recompile()
