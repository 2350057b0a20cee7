"""W8A8 static annotation for PT2E: an exported graph in, the same graph with quantization specs on it out.

What is int8: every Linear and 2-D convolution (weights per-channel symmetric, input and output activations
per-tensor affine), what joins two such outputs without leaving int8 (residual add, average pooling, the addition of
positions), and copies that only int8 layers read (the patches of a soft split, cut out of int8 tokens).
What stays float: everything else, and by that rule all of the Performer's exponentials, divisor and division
(fake quantization of the divisor gives NaN in the first training step), softmax, LayerNorm, GELU, and products with a
buffer, which are sums and means written as products.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e.quantizer import (
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
    SharedQuantizationSpec,
)
from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY, QuantizationSpecBase

from pipeline.config import CalibrationPlan
from pipeline.quantization.observers import OBSERVERS, WEIGHT_OBSERVER, WIDE_MAX, WIDE_OBSERVER

aten = torch.ops.aten
WEIGHTED = (aten.linear.default, aten.conv2d.default)
BATCH_NORM = (aten.batch_norm.default,)
CLAMPS = (aten.relu.default, aten.relu_.default, aten.hardtanh.default, aten.hardtanh_.default)
AVERAGES = (aten.adaptive_avg_pool2d.default, aten.mean.dim)
#: Operators that only copy values: in int8 they move a quarter of the bytes, and nothing is rounded twice.
COPIES = (
    aten.flatten.using_ints,
    aten.reshape.default,
    aten.view.default,
    aten.permute.default,
    aten.transpose.int,
    aten.slice.Tensor,
)


@dataclass(frozen=True)
class Scheme:
    """How weights and activations are quantized; written into the checkpoint.

    Attributes:
        observer: activation observer by name, one of pipeline.quantization.observers.OBSERVERS.
        weight_bits: 8; the weight range is [-127, 127], as TFLite's 8-bit quantization specification asks of weights.
        activation_bits: 8, or 16 (symmetric, for PTQ of precision w8a16).
        float_layers: names of Linears and convolutions that stay float (mixed precision).
    """

    observer: str = CalibrationPlan.observer
    weight_bits: int = 8
    activation_bits: int = 8
    float_layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.observer not in OBSERVERS:
            raise ValueError(f"observer {self.observer!r} is not one of {', '.join(OBSERVERS)}")
        if self.weight_bits != 8 or self.activation_bits not in (8, 16):
            raise ValueError(
                f"{self.weight_bits}-bit weights with {self.activation_bits}-bit activations: weights have 8 bits, and "
                "activations 8 or 16"
            )


class EdgeQuantizer(Quantizer):
    """Annotates Linear and convolution, and the int8 paths between them, for all three runtimes."""

    def __init__(self, scheme: Scheme):
        super().__init__()
        self.float_layers = frozenset(scheme.float_layers)
        self.activation = QuantizationSpec(
            dtype=torch.int8,
            quant_min=-128,
            quant_max=127,
            qscheme=torch.per_tensor_affine,
            observer_or_fake_quant_ctr=OBSERVERS[scheme.observer],
        )
        if scheme.activation_bits == 16:
            self.activation = QuantizationSpec(
                dtype=torch.int16,
                quant_min=-WIDE_MAX,
                quant_max=WIDE_MAX,
                qscheme=torch.per_tensor_symmetric,
                observer_or_fake_quant_ctr=WIDE_OBSERVER,
            )
        self.weight = QuantizationSpec(
            dtype=torch.int8,
            quant_min=-127,
            quant_max=127,
            qscheme=torch.per_channel_symmetric,
            ch_axis=0,
            observer_or_fake_quant_ctr=WEIGHT_OBSERVER,
        )

    def annotate(self, model: GraphModule) -> GraphModule:
        int8: set[Node] = set()  # nodes whose output is quantized
        layers = weighted_layers(model, self.float_layers)
        # TFLite has no CONCATENATION of int16 tensors, and int16 operators run outside of delegates.
        feeding = _copies_that_feed(layers, model) if self.activation.dtype == torch.int8 else set()
        for node in model.graph.nodes:
            if node.op != "call_function":
                continue
            if node in layers:
                int8.add(self._annotate_weighted(node))
            elif node.target == aten.add.Tensor and all(a in int8 or _is_table(model, a) for a in node.args[:2]):
                int8.add(self._annotate_add(node))
            elif (node.target in AVERAGES + COPIES and node.args[0] in int8) or node in feeding:
                int8.add(self._annotate_sharing(node))
        return model

    def validate(self, model: GraphModule) -> None:
        """Nothing to refuse: an operator that is not annotated stays float."""

    def _annotate_weighted(self, node: Node) -> Node:
        source, weight = node.args[0], node.args[1]
        assert isinstance(source, Node)
        assert isinstance(weight, Node)
        return self._annotate_fused(node, {source: self.activation, weight: self.weight})

    def _annotate_add(self, node: Node) -> Node:
        return self._annotate_fused(node, {a: self.activation for a in node.args[:2] if isinstance(a, Node)})

    def _annotate_fused(self, node: Node, inputs: dict[Node, QuantizationSpec]) -> Node:
        """Input specs on `node`, the output spec on the last node fused with it; returns that last node."""
        output = _fused_output(node)
        node.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation(input_qspec_map=dict(inputs), _annotated=True)
        if output is not node:
            output.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation(_annotated=True)
        output.meta[Q_ANNOTATION_KEY].output_qspec = self.activation
        return output

    def _annotate_sharing(self, node: Node) -> Node:
        """Operators that copy or average values keep the scale of their input; what they join gets one scale."""
        # The size of the batch, which a reshape reads, is a node too.
        first, *others = (n for n in node.all_input_nodes if not isinstance(n.meta.get("val"), torch.SymInt))
        shared = SharedQuantizationSpec((first, node))
        inputs: dict[Node, QuantizationSpecBase] = {first: self.activation, **dict.fromkeys(others, shared)}
        node.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation(
            input_qspec_map=inputs, output_qspec=shared, _annotated=True
        )
        return node


def _copies_that_feed(layers: set[Node], model: GraphModule) -> set[Node]:
    """Copies and concatenations all of whose values are read by `layers`, maybe through other copies.

    Their input is quantized, once, instead of the (overlapping, larger) result. A slice counts only if the rest of
    its input is read that way too: quantizing what nobody reads in int8 would be work for nothing.
    """
    feeding: set[Node] = set()

    def read_in_int8(node: Node) -> bool:
        return all(user in feeding or (user in layers and user.args[0] is node) for user in node.users)

    for node in reversed(model.graph.nodes):
        if node.target in (*COPIES, aten.cat.default) and node.users and read_in_int8(node):
            feeding.add(node)
    for node in model.graph.nodes:
        if node.target == aten.slice.Tensor and node in feeding and not read_in_int8(node.args[0]):
            feeding.remove(node)
    return feeding


def weighted_layers(model: GraphModule, left_float: frozenset[str]) -> set[Node]:
    """Linears and convolutions, but for those named in `left_float` and those with a buffer as weight.

    The latter are sums and means written as products, part of the float arithmetic around them.
    """
    buffers = {name for name, _ in model.named_buffers()}
    return {
        node
        for node in model.graph.nodes
        if node.target in WEIGHTED
        and not (node.args[1].op == "get_attr" and node.args[1].target in buffers)
        and layer_name(node) not in left_float
    }


def layer_name(node: Node) -> str:
    """Of a Linear or convolution: the name of its weight without ".weight"."""
    weight = node.args[1]
    return str(weight.target).removesuffix(".weight") if isinstance(weight, Node) else ""


def _is_table(model: GraphModule, operand: object) -> bool:
    """A parameter with a row for every token, as positions are. In float it would be 4 % of an int8 file."""
    if not isinstance(operand, Node) or operand.op != "get_attr":
        return False
    parameter = dict(model.named_parameters()).get(str(operand.target))
    return parameter is not None and parameter.dim() == 3 and parameter.shape[1] > 1


def _fused_output(node: Node) -> Node:
    """The last of node -> BatchNorm -> clamp that a runtime computes as one int8 operator."""
    for kind in (BATCH_NORM, CLAMPS):
        node = sole_user(node, kind) or node
    return node


def clamp_bounds(clamp: Node) -> tuple[float, float]:
    """The smallest and the largest value of one of CLAMPS."""
    if clamp.target in (aten.relu.default, aten.relu_.default):
        return 0.0, math.inf
    given = [float(bound) for bound in clamp.args[1:]]  # type: ignore[arg-type]
    return given[0] if given else -1.0, given[1] if len(given) > 1 else 1.0  # the defaults of hardtanh


def sole_user(node: Node, kind: tuple[object, ...]) -> Node | None:
    """The only reader of `node`, if it is an operator of `kind`."""
    (user,) = node.users if len(node.users) == 1 else (None,)
    return user if user is not None and user.target in kind else None
