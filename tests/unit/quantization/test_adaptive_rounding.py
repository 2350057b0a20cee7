"""Adaptive rounding: weights on their grid, the scale kept, and outputs nearer to the float model's."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from tiny_hybrid import INPUT_SIZE, TinyHybrid
from torch import Tensor, nn
from torch.fx import GraphModule

from pipeline.errors import TrainingError
from pipeline.quantization.adaptive_rounding import round_weights
from pipeline.quantization.calibration import calibrate
from pipeline.quantization.fake_quantize import EdgeFakeQuantize
from pipeline.quantization.graph import prepare, to_qdq_program
from pipeline.quantization.quantizer import Scheme

CPU = torch.device("cpu")


def batches() -> Iterable[Tensor]:
    """Neighbouring inputs are alike, so that errors of their weights add up."""
    generator = torch.Generator().manual_seed(0)
    coarse = [torch.randn(n, 3, 8, 8, generator=generator) for n in (8, 4)]
    return [nn.functional.interpolate(x, INPUT_SIZE[1:], mode="bilinear") for x in coarse]


class Grouped(nn.Module):
    """Convolutions of every kind: dense with stride and padding, in two groups, depthwise with dilation; a Linear."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.grouped = nn.Conv2d(8, 8, 3, groups=2)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8, bias=False)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise(torch.relu(self.grouped(torch.relu(self.dense(x)))))
        return self.head(x.mean((2, 3)))


def calibrated(model: nn.Module) -> GraphModule:
    graph = prepare(model, INPUT_SIZE, Scheme())
    calibrate(graph, batches(), 12, CPU)
    return graph


def weight_scales(graph: GraphModule) -> list[Tensor]:
    quantizers = [m for m in graph.modules() if isinstance(m, EdgeFakeQuantize) and m.is_per_channel]
    return [quantizer.calculate_qparams()[0].clone() for quantizer in quantizers]


@pytest.mark.parametrize("make", [Grouped, TinyHybrid])
def test_outputs_of_layers_come_nearer_on_the_same_grid(make: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = make().eval()
    graph = calibrated(model)
    before = {name: p.detach().clone() for name, p in graph.named_parameters()}
    result = round_weights(graph, batches(), CPU)
    assert len(result.layers) == (4 if make is Grouped else 7)
    assert result.error < 0.8  # nearest rounding is 1
    for name, parameter in graph.named_parameters():
        assert torch.equal(parameter, before[name]) == (name.removesuffix(".weight") not in result.layers), name
    images = next(iter(batches()))
    with torch.no_grad():
        expected = graph(images)
        assert (to_qdq_program(graph, INPUT_SIZE).module()(images) - expected).norm() < 0.02 * expected.norm()
    again = {name: p.detach().clone() for name, p in graph.named_parameters()}
    scales = weight_scales(graph)
    round_weights(graph, batches(), CPU)  # on the grid already: there is nothing to round
    for name, parameter in graph.named_parameters():
        torch.testing.assert_close(parameter, again[name], rtol=1e-4, atol=1e-6)
    for scale, kept in zip(weight_scales(graph), scales, strict=True):
        torch.testing.assert_close(scale, kept)


def test_two_weights_of_equal_inputs_are_rounded_against_each_other() -> None:
    """By hand: both lose 0.4 of a step to the same side when rounded alone; together the second makes up for it."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 1))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[127.0, 3.4, 5.4]]))
    values = torch.linspace(-1, 1, 12)
    images = torch.stack([0.1 * torch.cos(40 * values), values, values], dim=1).reshape(12, 3, 1, 1)
    graph = prepare(model, (3, 1, 1), Scheme())
    calibrate(graph, [images], 12, CPU)
    round_weights(graph, [images], CPU)
    weight = dict(graph.named_parameters())["1.weight"].detach()
    assert weight.round().tolist() == [[127.0, 3.0, 6.0]]
    torch.testing.assert_close(weight, weight.round(), rtol=0, atol=1e-3)


def test_values_that_are_not_finite_are_refused() -> None:
    torch.manual_seed(0)
    graph = calibrated(Grouped().eval())
    with torch.no_grad():
        dict(graph.named_parameters())["dense.bias"].fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"adaptive rounding: grouped.weight reads values that are not finite"):
        round_weights(graph, batches(), CPU)
