"""A QDQ program and images in, its values node by node out, with any of its roundings switched off."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.graph_module import _get_attr
from torch.fx.node import map_arg

from pipeline.quantization.float_layers import QdqGraph, Rounding

Values = dict[Node, Any]
NOTHING: frozenset[Node] = frozenset()


class Walk:
    """Runs the graph from any node on; values that nobody reads any more are let go.

    A quantize operator hands its float input on, and the dequantize operator after it rounds or does not.
    """

    def __init__(self, qdq: QdqGraph):
        self.qdq = qdq
        self.nodes: list[Node] = list(qdq.module.graph.nodes)  # the last one is the output
        self.position = {node: i for i, node in enumerate(self.nodes)}
        self._last_read: dict[int, list[Node]] = {}
        for node in self.nodes:
            if node.users:
                self._last_read.setdefault(max(self.position[user] for user in node.users), []).append(node)
        #: Rounded weights: the same for all images.
        self._weights: dict[Rounding, Tensor] = {}

    @property
    def everything(self) -> frozenset[Node]:
        """Switched off, nothing is rounded."""
        return frozenset(self.qdq.by_dequantize)

    def logits(self, images: Tensor, off: Collection[Node] = NOTHING) -> Tensor:
        """[B, 3, H, W] -> [B, classes]"""
        return self.finish(self.begin(images), 0, off)

    def begin(self, images: Tensor) -> Values:
        """Values before the first node."""
        return {node: images for node in self.nodes if node.op == "placeholder"}

    def finish(self, values: Values, start: int, off: Collection[Node]) -> Tensor:
        """The logits from the values before node number `start`; `values` is used up."""
        for i in range(start, len(self.nodes) - 1):
            self.step(values, i, off)
        (logits,) = self.nodes[-1].all_input_nodes
        return values[logits]

    def step(self, values: Values, i: int, off: Collection[Node], then: Callable[[Node], None] | None = None) -> None:
        """Compute node number `i`, call `then` while all that it read is there, and let go what is not read again."""
        node = self.nodes[i]
        if node.op != "placeholder":
            values[node] = self._compute(node, values, off)
        if then is not None:
            then(node)
        for read in self._last_read.get(i, ()):
            values.pop(read, None)

    def rounded(self, rounding: Rounding, value: Tensor) -> Tensor:
        """`value` through the quantize and dequantize operators of `rounding`."""
        if rounding.source.op == "get_attr":
            if rounding not in self._weights:
                self._weights[rounding] = self._apply(rounding, value)
            return self._weights[rounding]
        return self._apply(rounding, value)

    def quantized(self, rounding: Rounding, value: Tensor) -> Tensor:
        """int8"""
        node = rounding.quantize
        return self.call(node, {rounding.source: value})

    def _apply(self, rounding: Rounding, value: Tensor) -> Tensor:
        """The same numbers as the two operators give, in four passes over the tensor where they take eight."""
        _, scale, zero_point, low, high, *_ = rounding.quantize.args
        if not (isinstance(scale, float) and isinstance(zero_point, int) and value.dtype == torch.float32):
            return self.call(rounding.dequantize[0], {rounding.quantize: self.quantized(rounding, value)})
        assert isinstance(low, int)
        assert isinstance(high, int)
        steps = value.mul(1.0 / scale).round_().clamp_(low - zero_point, high - zero_point)
        return steps.mul_(scale)

    def call(self, node: Node, values: Mapping[Node, Any]) -> Any:
        def value_of(argument: Node) -> Any:
            return values[argument] if argument in values else self.attribute(argument)

        args, kwargs = map_arg(node.args, value_of), map_arg(node.kwargs, value_of)
        assert callable(node.target)
        return node.target(*args, **kwargs)

    def _compute(self, node: Node, values: Values, off: Collection[Node]) -> Any:
        if node.op == "get_attr":
            return self.attribute(node)
        if node.op == "call_module":  # torch.export's check of the input's shape
            return None
        if node in self.qdq.roundings:
            return values[self.qdq.roundings[node].source]
        rounding = self.qdq.by_dequantize.get(node)
        if rounding is not None:
            value = values[rounding.quantize]
            return value if node in off else self.rounded(rounding, value)
        return self.call(node, values)

    def attribute(self, node: Node) -> Any:
        assert node.op == "get_attr", node
        value = _get_attr(self.qdq.module, str(node.target))
        return value.detach() if isinstance(value, torch.Tensor) else value
