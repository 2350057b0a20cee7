"""The arithmetic of int8 kernels: a QDQ program computed in the integers that an int8 runtime computes with.

Computed in float32, as it stands, a QDQ program differs from its own files: its biases are not on the int32 grid of
(input scale x weight scale), and sums of rounded products fall on the other side of a half. A handful of such values in
the first layers grows, layer by layer, to every second logit of a deep network. With the integers of the runtimes there
is nothing to grow. The arithmetic is XNNPACK's, which ExecuTorch and the TFLite runtimes compute int8 layers with on a
CPU:

- a convolution or Linear sums int8 products exactly, adds the int32 bias, and multiplies the sum once with
  (input scale x weight scale / output scale) in float32; halves are rounded to even
  (src/qs8-qc8w-gemm, `xnn_init_qs8_qc8w_conv_minmax_fp32_scalar_params`);
- an addition multiplies both operands with 21-bit integers and shifts; halves are rounded up (src/qs8-vadd,
  `xnn_init_qs8_add_minmax_scalar_params`);
- an average multiplies the sum once and adds the zero point before it rounds halves to even (src/qs8-rsum).

What is not int8 in the program stays in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node
from torch.fx.graph_module import _get_attr

from pipeline.quantization.quantizer import CLAMPS, clamp_bounds

aten = torch.ops.aten
#: float32 holds integers exactly up to 2^24; a sum that a larger bias goes into is formed in float64.
LARGE_BIAS = 2.0**22
#: Of the ratio of an addend's scale to that of the sum, in XNNPACK.
ADDENDS = (2.0**-10, 2.0**8)
#: How far from an integer, in steps, a weight may lie: half-way, converters round it to either side.
FARTHEST = 0.499


def settle(graph: GraphModule) -> None:
    """Write a QDQ program's biases as int8 runtimes hold them, and no weight half-way between two integers.

    In place, of a graph of `convert_pt2e(fold_quantize=False)`: every converter then makes the same integers of it. A
    bias that two layers share has no one grid and is left alone.
    """
    with torch.no_grad():
        for node in graph.graph.nodes:
            if node.target not in (aten.conv2d.default, aten.linear.default):
                continue
            weight = _rounding(node.args[1], "dequantize_per_channel")
            image = _rounding(node.args[0], "dequantize_per_tensor")
            if weight is None or image is None or image.args[-1] != torch.int8:
                continue
            scales = _get_attr(graph, str(weight.args[1].target))
            source, bias = weight.args[0].args[0], node.args[2] if len(node.args) > 2 else None
            if source.op == "get_attr":
                parameter = _get_attr(graph, str(source.target))
                steps = along(scales, parameter, 0)
                whole = torch.round(parameter / steps)
                parameter.copy_((whole + (parameter / steps - whole).clamp(-FARTHEST, FARTHEST)) * steps)
            if isinstance(bias, Node) and bias.op == "get_attr" and len(bias.users) == 1:
                parameter, grid = _get_attr(graph, str(bias.target)), (scales * image.args[1]).double()
                parameter.copy_(torch.round(parameter.double() / grid) * grid)


def _rounding(node: object, operator: str) -> Any:
    """`node` if it is this operator; None otherwise."""
    return node if isinstance(node, Node) and operator in str(node.target) else None


class IntegerProgram:
    """Images [B, 3, H, W] -> logits [B, classes] of a QDQ program, in the integers of an int8 runtime.

    Args:
        module: as `ExportedProgram.module()` gives it; not changed.
    """

    def __init__(self, module: GraphModule):
        self._module = module
        self._weights: dict[Node, Codes] = {}

    def __call__(self, images: Tensor) -> Tensor:
        logits: Tensor = _Run(self._module, self._weights).run(images)
        return logits


@dataclass(frozen=True)
class Codes:
    """Integers of an int8 tensor less their zero point, in float32, and their scale: one, or one for each channel along
    the first axis."""

    integers: Tensor
    scale: Tensor

    def real(self) -> Tensor:
        return self.integers * along(self.scale, self.integers, 0)


@dataclass(frozen=True)
class Sums:
    """What a kernel has before it rounds: integers, the value of one (of one of each channel along `axis`) and the
    bounds of a clamp. `count` is what an average divides by."""

    integers: Tensor
    scale: Tensor
    axis: int = 0
    low: float = -math.inf
    high: float = math.inf
    count: int = 1

    def real(self) -> Tensor:
        return (self.integers * along(self.scale / self.count, self.integers, self.axis)).clamp(self.low, self.high)

    def rounded(self, scale: float, zero_point: int) -> Tensor:
        multiplier = self.scale / torch.tensor(scale, dtype=torch.float32) / self.count
        steps = self.integers * along(multiplier, self.integers, self.axis)
        integers = torch.round(steps) + zero_point if self.count == 1 else torch.round(steps + zero_point)
        low, high = (b if math.isinf(b) else round(b / scale) + zero_point for b in (self.low, self.high))
        return integers.clamp(low, high)


@dataclass(frozen=True)
class Addition:
    """Of two int8 tensors with a scale each."""

    a: Codes
    b: Codes

    def real(self) -> Tensor:
        return self.a.real() + self.b.real()

    def rounded(self, scale: float, zero_point: int) -> Tensor:
        ratios = [float(x.scale / torch.tensor(scale, dtype=torch.float32)) for x in (self.a, self.b)]
        if not ADDENDS[0] <= max(ratios) < ADDENDS[1]:
            return torch.round(self.real() * (1.0 / scale)) + zero_point
        shift = 21 - math.frexp(max(ratios))[1]  # the larger multiplier gets 21 bits
        total = sum(
            x.integers.to(torch.int32) * round(ratio * 2**shift)
            for x, ratio in zip((self.a, self.b), ratios, strict=True)
        )
        assert isinstance(total, Tensor)
        return ((total + (1 << (shift - 1))) >> shift).float() + zero_point


class _Run(Interpreter):
    """One pass. A quantize operator gives its integers as float32; what a kernel fuses comes to it as `Sums`."""

    def __init__(self, module: GraphModule, weights: dict[Node, Codes]):
        super().__init__(module)
        self._weights = weights
        self._fused: dict[object, Callable[[Node, Any], object]] = {
            **dict.fromkeys((aten.conv2d.default, aten.linear.default), self._layer),
            **dict.fromkeys(CLAMPS, self._clamp),
            aten.add.Tensor: self._add,
            aten.adaptive_avg_pool2d.default: self._average,
        }

    def run_node(self, node: Node) -> Any:
        if node in self._weights:
            return self._weights[node]
        arguments = self.fetch_args_kwargs_from_env(node)[0] if node.op == "call_function" else ()
        name = str(node.target)
        if "quantize_per_tensor" in name and arguments[-1] == torch.int8:
            value, scale, zero_point, low, high = arguments[:5]
            if "dequantize" in name:
                return Codes(value - int(zero_point), torch.tensor(float(scale), device=value.device))
            if isinstance(value, Sums | Addition):
                return value.rounded(float(scale), int(zero_point)).clamp(low, high)
            return super().run_node(node).float()
        if "dequantize_per_channel" in name and arguments[3] == 0 and arguments[-1] == torch.int8:
            integers = arguments[0].float() - along(arguments[2].float(), arguments[0], 0)
            self._weights[node] = Codes(integers, arguments[1].float())
            return self._weights[node]
        fused = self._fused.get(node.target)
        result = None if fused is None else fused(node, arguments)
        return super().run_node(node) if result is None else result

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        return super().call_function(target, torch.utils._pytree.tree_map(_real, args), kwargs)

    def output(self, target: Any, args: Any, kwargs: Any) -> Any:
        return torch.utils._pytree.tree_map(_real, args[0])

    def _layer(self, node: Node, arguments: Any) -> object:
        """A convolution or Linear of int8 images and weights."""
        image, weight, *rest = arguments
        if not isinstance(image, Codes) or not isinstance(weight, Codes) or not weight.scale.dim():
            return None
        axis = 1 if node.target == aten.conv2d.default else -1
        scale, bias = image.scale * weight.scale, rest[0] if rest else None
        if bias is not None:
            bias = torch.round(bias * (1.0 / scale))
        compute = F.conv2d if node.target == aten.conv2d.default else F.linear
        if bias is None or float(bias.abs().max()) < LARGE_BIAS:
            return Sums(compute(image.integers, weight.integers, bias, *rest[1:]), scale, axis)
        products = compute(image.integers, weight.integers, None, *rest[1:]).double()
        return Sums((products + along(bias.double(), products, axis)).float(), scale, axis)

    def _clamp(self, node: Node, arguments: Any) -> object:
        low, high = clamp_bounds(node)
        return replace(arguments[0], low=low, high=high) if isinstance(arguments[0], Sums) else None

    def _add(self, node: Node, arguments: Any) -> object:
        a, b = arguments[:2]
        both = isinstance(a, Codes) and isinstance(b, Codes) and not node.kwargs
        return Addition(a, b) if both else None

    def _average(self, node: Node, arguments: Any) -> object:
        """Over all positions."""
        image, size = arguments
        if not isinstance(image, Codes) or set(size) != {1}:
            return None
        height, width = image.integers.shape[-2:]
        return Sums(image.integers.sum((-2, -1), keepdim=True), image.scale, count=height * width)


def _real(value: Any) -> Any:
    return value.real() if isinstance(value, Codes | Sums | Addition) else value


def along(channels: Tensor, value: Tensor, axis: int) -> Tensor:
    """[channels] so that it broadcasts with `value`, whose channels lie along `axis`; a scalar as it is."""
    if not channels.dim():
        return channels
    shape = [1] * value.dim()
    shape[axis] = -1
    return channels.view(shape)
