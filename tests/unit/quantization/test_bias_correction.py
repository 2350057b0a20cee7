"""Bias correction: output means come back, layer after layer, in the graph and in the program written from it."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import pytest
import torch
from tiny_hybrid import INPUT_SIZE, TinyHybrid
from torch import Tensor, nn
from torch.fx import GraphModule

from pipeline.errors import TrainingError
from pipeline.quantization.bias_correction import correct_biases
from pipeline.quantization.calibration import calibrate
from pipeline.quantization.graph import prepare, set_fake_quantization, to_qdq_program
from pipeline.quantization.quantizer import Scheme

CPU = torch.device("cpu")


def batches() -> Iterable[Tensor]:
    """The second of another size."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, *INPUT_SIZE, generator=generator) + 0.5 for n in (8, 4)]


class Rounded(nn.Module):
    """Two Linears; those weights of the first that rounding moves are all moved upwards, the second has no bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(32, 8), nn.Linear(8, 8, bias=False), nn.Linear(8, 4)
        with torch.no_grad():
            steps = torch.full((8, 32), 3.4)
            steps[:, 0] = 127.0  # the largest weight sets the scale: one step is 0.01
            self.first.weight.copy_(steps * 0.01)

    def forward(self, x: Tensor) -> Tensor:
        x = x.reshape(x.shape[0], -1, 32)
        return self.third(torch.relu(self.second(self.first(x)))).mean(dim=1)


class Clamped(nn.Module):
    """A Linear whose rounding makes large values smaller, and a clamp that lets the largest through."""

    def __init__(self, clamp: nn.Module) -> None:
        super().__init__()
        self.first, self.clamp = nn.Linear(32, 8), clamp
        self.register_buffer("mask", torch.ones(32))
        with torch.no_grad():
            self.first.weight.copy_(4 * Rounded().first.weight)
            self.first.bias.fill_(-2.8)
            self.mask[0] = 0  # the weight that sets the scale gets nothing to multiply

    def forward(self, x: Tensor) -> Tensor:
        return self.clamp(self.first(x.reshape(x.shape[0], -1, 32) * self.mask)).mean(dim=1)


def calibrated(model: nn.Module) -> GraphModule:
    graph = prepare(model.eval(), INPUT_SIZE, Scheme())
    calibrate(graph, batches(), 12, CPU)
    return graph


def mean_error(graph: GraphModule) -> float:
    """Of the logits' means over the images, quantized against float."""
    with torch.no_grad():
        quantized = torch.cat([graph(b) for b in batches()]).mean(0)
        set_fake_quantization(graph, False)
        exact = torch.cat([graph(b) for b in batches()]).mean(0)
        set_fake_quantization(graph, True)
    return float((quantized - exact).abs().max())


def test_the_shift_is_that_of_the_rounded_weights_by_hand() -> None:
    model = Rounded()
    graph = calibrated(model)
    before = graph.get_parameter("first.bias").detach().clone()
    result = correct_biases(graph, batches(), CPU)
    assert result.layers == ("first", "third")
    assert result.without_bias == ("second",)
    # 31 weights of 3.4 steps are rounded to 3: 0.4 steps of 0.01 are missing of every input but the first.
    inputs = torch.cat([b.reshape(-1, 32) for b in batches()]).mean(0)
    expected = 0.004 * inputs[1:].sum()
    shift = graph.get_parameter("first.bias") - before
    assert torch.allclose(shift, torch.full((8,), float(expected)), atol=0.002)  # inputs are rounded too
    assert result.mean_shift > 0.9 * float(expected) / 2
    assert result.images == 12


@pytest.mark.parametrize("make", [Rounded, TinyHybrid])
def test_means_of_the_logits_come_back_and_the_program_has_them(make: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = make().train()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1 and make is TinyHybrid:
                parameter.mul_(2)
    graph = calibrated(model)
    before = mean_error(graph)
    correct_biases(graph, batches(), CPU)
    after = mean_error_to(graph, model)
    if make is Rounded:  # the hybrid's mean error over twelve images is below one step of its rounded logits
        assert after < before / 3
    images = next(iter(batches()))
    with torch.no_grad():
        expected = graph(images)
        assert (to_qdq_program(graph, INPUT_SIZE).module()(images) - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize("clamp", [nn.ReLU(), nn.ReLU6(), nn.Hardtanh(0, 1), nn.Hardtanh()])
def test_where_a_clamp_follows_the_means_behind_it_come_back(clamp: nn.Module) -> None:
    model = Clamped(clamp)
    graph = calibrated(model)
    before = mean_error_to(graph, model)
    correct_biases(graph, batches(), CPU)
    assert mean_error_to(graph, model) < before / 10


def mean_error_to(graph: GraphModule, model: nn.Module) -> float:
    """Of the logits' means against the float model with the biases that it came with."""
    with torch.no_grad():
        quantized = torch.cat([graph(b) for b in batches()]).mean(0)
        return float((quantized - torch.cat([model(b) for b in batches()]).mean(0)).abs().max())


def test_behind_batch_norm_its_own_bias_moves_and_the_model_stays() -> None:
    torch.manual_seed(0)
    model = TinyHybrid()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    graph = calibrated(model)
    before = {name: p.detach().clone() for name, p in graph.named_parameters()}
    result = correct_biases(graph, batches(), CPU)
    assert len(result.layers) == 7
    assert result.without_bias == ()
    moved = {name for name, p in graph.named_parameters() if not torch.equal(p, before[name])}
    layers = ("qkv", "proj", "fc1", "fc2", "head")
    assert moved == {"stem_norm.bias", "depthwise_norm.bias", *(f"{name}.bias" for name in layers)}
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())


def test_no_images_are_refused() -> None:
    graph = calibrated(Rounded())
    with pytest.raises(TrainingError, match="no images"):
        correct_biases(graph, [], CPU)


def test_means_that_are_not_finite_are_refused_with_the_layer() -> None:
    graph = calibrated(Rounded())
    bad = copy.deepcopy(graph)
    with torch.no_grad():
        bad.get_parameter("third.bias").fill_(float("nan"))
    with pytest.raises(TrainingError, match="4 of 4 channels of third"):
        correct_biases(bad, batches(), CPU)
