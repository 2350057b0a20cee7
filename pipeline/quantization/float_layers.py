"""The int8 layers of a QDQ program by name, and the same program with some of them in float."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Graph, GraphModule, Node
from torch.fx.graph_module import _get_attr
from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY

from pipeline.config import RunConfig
from pipeline.errors import UsageError
from pipeline.models.build import build
from pipeline.quantization.graph import export
from pipeline.quantization.quantizer import CLAMPS, EdgeQuantizer, Scheme, layer_name, sole_user, weighted_layers
from pipeline.rewrites.deploy import in_form
from targets.program import DEQUANTIZE_OPS, QUANTIZE_OPS, input_shape
from targets.words import suggest

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

    @property
    def module(self) -> str:
        """`name` without the number of the call: what Scheme.float_layers calls it."""
        return str(self.weight.source.target).removesuffix(".weight")


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
        self._plain = _Plain(self)

    @cached_property
    def float_names(self) -> frozenset[str]:
        """Linears and convolutions of the program that are float already."""
        every = {layer_name(node) for node in weighted_layers(self._plain.module, frozenset())}
        return frozenset(every - {layer.module for layer in self.layers})

    def kept_float(self, *layers: Int8Layer) -> frozenset[Node]:
        """The dequantize operators that fall away if EdgeQuantizer leaves `layers` out too.

        A module that is called twice is left out in both places. EdgeQuantizer itself says what stays: it annotates
        the program without its rounding, and with fewer layers it never rounds where it did not before.
        """
        rounded = self._plain.rounded(self.float_names | {layer.module for layer in layers})
        return frozenset(
            node
            for node, rounding in self.by_dequantize.items()
            if not any((rounding.source, reader) in rounded for reader in self._readers(node))
        )

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
            last = sole_user(node, CLAMPS) or node
            output = next((self.roundings[user] for user in last.users if user in self.roundings), None)
            label = name if seen[name] == 1 else f"{name} ({seen[name]})"
            layers.append(Int8Layer(label, KINDS[node.target], node, last, weight, source, output))
        return tuple(layers)

    def _readers(self, dequantize: Node) -> set[Node]:
        """Who reads what was rounded; rounding it again (where a dropout was) is not reading."""
        found: set[Node] = set()
        for user in dequantize.users:
            again = self.roundings.get(user)
            found |= {user} if again is None else set().union(*map(self._readers, again.dequantize))
        return found


class _Plain:
    """The program without any rounding, and what EdgeQuantizer would round in it."""

    def __init__(self, qdq: QdqGraph):
        graph = Graph()
        copies: dict[Node, Node] = {}
        for node in qdq.module.graph.nodes:
            if node in qdq.by_dequantize or node in qdq.roundings:
                copies[node] = copies[node.all_input_nodes[0]]
            else:
                copies[node] = graph.node_copy(node, copies.__getitem__)
        self.module = GraphModule(qdq.module, graph)
        self._copies = copies
        wide = any(torch.int16 in rounding.quantize.args for rounding in qdq.roundings.values())
        self._bits = 16 if wide else 8

    def rounded(self, left_float: frozenset[str]) -> _Edges:
        """Which reader sees which tensor rounded, if the layers named in `left_float` stay float."""
        for node in self.module.graph.nodes:
            node.meta.pop(Q_ANNOTATION_KEY, None)
        EdgeQuantizer(Scheme(activation_bits=self._bits, float_layers=tuple(sorted(left_float)))).annotate(self.module)
        edges: set[tuple[Node, Node]] = set()
        for node in self.module.graph.nodes:
            annotation = node.meta.get(Q_ANNOTATION_KEY)
            if annotation is None:
                continue
            edges |= {(read, node) for read in annotation.input_qspec_map}
            if annotation.output_qspec is not None:
                edges |= {(node, reader) for reader in node.users}
        return _Edges(self._copies, frozenset(edges))


@dataclass(frozen=True)
class _Edges:
    """(tensor, reader) pairs of the plain graph, asked for by the nodes of the program."""

    copies: dict[Node, Node]
    edges: frozenset[tuple[Node, Node]]

    def __contains__(self, pair: tuple[Node, Node]) -> bool:
        return (self.copies[pair[0]], self.copies[pair[1]]) in self.edges


def leave_out(module: GraphModule, off: Collection[Node]) -> GraphModule:
    """Take the dequantize operators `off`, and the quantize operators that nobody reads then, out, in place."""
    for rounding in QdqGraph(module).roundings.values():
        for node in rounding.dequantize:
            if node in off:
                node.replace_all_uses_with(rounding.source)
                module.graph.erase_node(node)
        if not rounding.quantize.users:
            module.graph.erase_node(rounding.quantize)
    module.graph.lint()
    module.recompile()
    return module


def without_rounding(module: GraphModule) -> GraphModule:
    """Take every quantize / dequantize pair out of a QDQ program's module, in place: nothing is rounded any more."""
    return leave_out(module, QdqGraph(module).by_dequantize)


def _constant(argument: object, module: GraphModule) -> Tensor:
    if isinstance(argument, Node):
        return _get_attr(module, str(argument.target)).detach().flatten()
    assert isinstance(argument, (int, float))
    return torch.tensor([argument], dtype=torch.float64 if isinstance(argument, float) else torch.int64)


CLASSES = 10  # of any number of classes the names are the same


def layer_names(config: RunConfig) -> frozenset[str]:
    """What Scheme.float_layers can name.

    Raises:
        UsageError: an unknown model, or an image size that it does not take.
    """
    with torch.random.fork_rng(devices=[]):
        module, model_config = build(config.model, CLASSES, config.img_size, config.qk_scale)
    with torch.no_grad():
        program = export(in_form(module.eval(), config.form), model_config.input_size)
    return frozenset(layer_name(node) for node in weighted_layers(program.module(), frozenset()))


def check_names(names: Iterable[str], known: Iterable[str]) -> None:
    """
    Raises:
        UsageError: a name that no layer has, with the nearest one.
    """
    every = sorted(known)
    for name in sorted(set(names) - set(every)):
        raise UsageError(
            f"float layer {name!r} is no Linear or convolution of this model and form.{suggest(name, every)} "
            f"Its {len(every)} layers begin with {', '.join(every[:3])}"
        )


def named_layers(qdq: QdqGraph, names: Iterable[str]) -> tuple[Int8Layer, ...]:
    """The int8 layers called so in Scheme.float_layers; names of layers that are float already are passed over.

    Raises:
        UsageError: a name that no Linear or convolution of the program has, with the nearest one.
    """
    wanted = set(names)
    check_names(wanted, {layer.module for layer in qdq.layers} | qdq.float_names)
    return tuple(layer for layer in qdq.layers if layer.module in wanted)


def leave_float(program: ExportedProgram, names: Collection[str]) -> ExportedProgram:
    """What EdgeQuantizer would have made with these float layers and the scales that are in `program`.

    Weights and the scales of all other layers stay as they were trained. The given program is not changed.

    Raises:
        UsageError: as `named_layers`.
    """
    module = program.module()
    qdq = QdqGraph(module)
    leave_out(module, qdq.kept_float(*named_layers(qdq, names)))
    return export(module, input_shape(program))
