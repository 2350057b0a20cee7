"""A QDQ program in, its int8 layers and their rounding, and the same graph with some or all of it taken out, out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.graph_module import _get_attr

from pipeline.qat.quantizer import AVERAGES, CLAMPS, COPIES
from targets.program import DEQUANTIZE_OPS, QUANTIZE_OPS

aten = torch.ops.aten
KINDS = {aten.linear.default: "linear", aten.conv2d.default: "conv2d"}


@dataclass(frozen=True, eq=False)
class Rounding:
    """One quantize operator with the dequantize operators that read it: a tensor is rounded to int8 there."""

    quantize: Node
    dequantize: tuple[Node, ...]

    @property
    def source(self) -> Node:
        """What is rounded."""
        node = self.quantize.args[0]
        assert isinstance(node, Node)
        return node

    @property
    def readers(self) -> tuple[Node, ...]:
        """Who reads the rounded tensor."""
        return tuple(user for node in self.dequantize for user in node.users)


@dataclass(frozen=True, eq=False)
class Int8Layer:
    """A Linear or convolution with an int8 weight.

    Attributes:
        name: of the module in the model, from its weight ("blocks.3.mlp.fc1").
        kind: "linear" or "conv2d".
        last: the layer's node, or the clamp fused with it; `output` rounds its value.
        output: None where the output is not rounded.
    """

    name: str
    kind: str
    node: Node
    last: Node
    weight: Rounding
    input: Rounding
    output: Rounding | None


class QdqGraph:
    """A QDQ program's module with its roundings and int8 layers found.

    Attributes:
        module: as `ExportedProgram.module()` gives it; not changed.
        roundings: by their quantize operator, in the order of the program.
        layers: in the order of the program; a module that is called twice is there as "name" and "name (2)".
    """

    def __init__(self, module: GraphModule):
        self.module = module
        self.roundings = {
            node: Rounding(node, tuple(node.users)) for node in module.graph.nodes if str(node.target) in QUANTIZE_OPS
        }
        for rounding in self.roundings.values():
            assert all(str(user.target) in DEQUANTIZE_OPS for user in rounding.dequantize), rounding
        self.by_dequantize = {d: rounding for rounding in self.roundings.values() for d in rounding.dequantize}
        self.layers = self._find_layers()
        self._nodes = {layer.node for layer in self.layers}

    def kept_float(self, layer: Int8Layer) -> frozenset[Node]:
        """The dequantize operators that fall away if `layer` alone is not quantized.

        Its weight's; its input's, unless that is the output of another int8 operator or read by one; its output's,
        unless another int8 operator reads it. Copies (reshape, slice, concatenation) between them follow. What stays
        rounded is what a program with this one float layer in it would still have to round.
        """
        dropped = {layer.weight}
        self._drop_inputs(layer.input, layer, dropped)
        if layer.output is not None:
            self._drop_outputs(layer.output, dropped)
        return frozenset(node for rounding in dropped for node in rounding.dequantize)

    def scale_of(self, rounding: Rounding) -> Tensor:
        """[1] or [channels]"""
        return _constant(rounding.quantize.args[1], self.module)

    def zero_point_of(self, rounding: Rounding) -> Tensor:
        """[1] or [channels]"""
        return _constant(rounding.quantize.args[2], self.module)

    def _find_layers(self) -> tuple[Int8Layer, ...]:
        layers: list[Int8Layer] = []
        seen: dict[str, int] = {}
        for node in self.module.graph.nodes:
            if node.target not in KINDS:
                continue
            source, weight = (self.by_dequantize.get(argument) for argument in node.args[:2])
            if source is None or weight is None or weight.source.op != "get_attr":
                continue
            name = str(weight.source.target).removesuffix(".weight")
            seen[name] = seen.get(name, 0) + 1
            last = _last_fused(node)
            output = next((self.roundings[user] for user in last.users if user in self.roundings), None)
            label = name if seen[name] == 1 else f"{name} ({seen[name]})"
            layers.append(Int8Layer(label, KINDS[node.target], node, last, weight, source, output))
        return tuple(layers)

    def _drop_inputs(self, rounding: Rounding, layer: Int8Layer, dropped: set[Rounding]) -> None:
        """Upwards through copies, as long as nobody but `layer` reads the tensor."""

        def for_layer(reader: Node) -> bool:
            copied = _copies(reader) and all(self.roundings.get(user) in dropped for user in reader.users)
            return reader is layer.node or copied

        if self._computes_int8(rounding.source) or not all(for_layer(reader) for reader in rounding.readers):
            return
        dropped.add(rounding)
        if _copies(rounding.source):
            for upstream in self._read_by(rounding.source):
                self._drop_inputs(upstream, layer, dropped)

    def _drop_outputs(self, rounding: Rounding, dropped: set[Rounding]) -> None:
        """Downwards through copies, as long as no int8 operator reads the tensor."""
        if any(self._computes_int8(reader) for reader in rounding.readers):
            return
        dropped.add(rounding)
        for reader in rounding.readers:
            if _copies(reader) and all(other in dropped for other in self._read_by(reader)):
                for user in reader.users:
                    if user in self.roundings:
                        self._drop_outputs(self.roundings[user], dropped)

    def _read_by(self, node: Node) -> list[Rounding]:
        return [self.by_dequantize[a] for a in node.all_input_nodes if a in self.by_dequantize]

    def _computes_int8(self, node: Node) -> bool:
        """Whether `node` is an int8 operator that computes: a layer or its clamp, an addition or an average."""
        if node.target in CLAMPS:
            return node.args[0] in self._nodes
        if node.target not in (*AVERAGES, aten.add.Tensor):
            return node in self._nodes
        rounded = any(user in self.roundings for user in node.users)
        return rounded and all(a in self.by_dequantize for a in node.all_input_nodes)


def without_rounding(module: GraphModule) -> GraphModule:
    """Take every quantize / dequantize pair out of a QDQ program's module, in place: nothing is rounded any more."""
    for rounding in QdqGraph(module).roundings.values():
        for node in rounding.dequantize:
            node.replace_all_uses_with(rounding.source)
            module.graph.erase_node(node)
        module.graph.erase_node(rounding.quantize)
    module.graph.lint()
    module.recompile()
    return module


def _constant(argument: object, module: GraphModule) -> Tensor:
    if isinstance(argument, Node):
        return _get_attr(module, str(argument.target)).detach().flatten()
    assert isinstance(argument, (int, float))
    return torch.tensor([argument], dtype=torch.float64 if isinstance(argument, float) else torch.int64)


def _last_fused(node: Node) -> Node:
    users = list(node.users)
    return users[0] if len(users) == 1 and users[0].target in CLAMPS else node


def _copies(node: Node) -> bool:
    return node.target in (*COPIES, aten.cat.default)
