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
        """The dequantize operators that fall away if EdgeQuantizer leaves `layer` alone out.

        Its weight's; its input's, unless an int8 operator computes that; its output's, unless another layer reads it.
        Copies before and after it follow, and so do additions and averages that it leaves with a float operand.
        """
        off = set(layer.weight.dequantize)
        self._float_input(layer.node.all_input_nodes[0], layer.node, off)
        if layer.output is not None:
            self._float_output(layer.output, off)
        return frozenset(off)

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

    def _float_input(self, read: Node, reader: Node, off: set[Node]) -> None:
        """`reader` takes what it reads as it was before rounding, through copies; other readers have it rounded.

        Every reader has a dequantize operator of its own, and what a copy copies is rounded behind it too.
        """
        rounding = self.by_dequantize.get(read)
        if rounding is None or set(read.users) != {reader} or self._computes_int8(rounding.source):
            return
        off.add(read)
        source = rounding.source
        if _copies(source) and all(user in self.roundings for user in source.users):
            for upstream in source.all_input_nodes:
                self._float_input(upstream, source, off)

    def _float_output(self, rounding: Rounding, off: set[Node]) -> None:
        """What is not rounded any more, and all int8 operators but layers that are float then."""
        for read in rounding.dequantize:
            if read in off or any(self._rounds_itself(reader) for reader in read.users):
                continue
            off.add(read)
            for reader in read.users:
                if self._computes_int8(reader):  # an addition or average: its other operand is not rounded for it
                    for other in reader.all_input_nodes:
                        self._float_input(other, reader, off)
                if self._computes_int8(reader) or _copies(reader):
                    for user in reader.users:
                        if user in self.roundings:
                            self._float_output(self.roundings[user], off)

    def _rounds_itself(self, reader: Node) -> bool:
        """Layers, and concatenations that feed them, have int8 inputs whatever comes before them."""
        joins = reader.target == aten.cat.default and any(user in self.roundings for user in reader.users)
        return reader in self._nodes or joins

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
