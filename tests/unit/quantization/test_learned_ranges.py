"""Learned ranges against finite differences, and from the training graph into the QDQ program."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from tiny_hybrid import INPUT_SIZE, TinyHybrid
from torch import Tensor
from torch.fx import GraphModule

from pipeline.errors import TrainingError
from pipeline.quantization.calibration import calibrate, reestimate_ranges
from pipeline.quantization.fake_quantize import EdgeFakeQuantize, rounded_learned
from pipeline.quantization.graph import prepare, set_fake_quantization, set_observers, set_training, to_qdq_program
from pipeline.quantization.observers import SCALE_EPSILON
from pipeline.quantization.quantizer import Scheme
from pipeline.quantization.ranges import freeze_learned, learn_ranges, range_parameters, ranges

CPU = torch.device("cpu")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def calibrated() -> GraphModule:
    torch.manual_seed(0)
    graph = prepare(TinyHybrid(), INPUT_SIZE, Scheme())
    calibrate(graph, [random(8, *INPUT_SIZE)], 8, CPU)
    return graph


@pytest.fixture
def learning(calibrated: GraphModule) -> GraphModule:
    graph = copy.deepcopy(calibrated)
    learn_ranges(graph)
    set_training(graph, True)
    set_observers(graph, True)
    return graph


def train(graph: GraphModule, steps: int, optimizer: torch.optim.Optimizer | None = None) -> torch.optim.Optimizer:
    optimizer = optimizer or torch.optim.AdamW(
        [{"params": [p for p in graph.parameters() if p.requires_grad], "lr": 1e-2}], lr=1e-2
    )
    for step in range(steps):
        loss = graph(random(8, *INPUT_SIZE, seed=step)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return optimizer


def test_gradient_of_the_scale_is_the_one_of_lsq_by_hand() -> None:
    """Esser et al. 2020, equation 3: round(t) - t inside, the last step outside; grid -2..1, zero point 0."""
    x = torch.tensor([[0.3, -0.8, 5.0, -9.0]], requires_grad=True)
    log_scale = torch.zeros(1, requires_grad=True)  # scale 1
    zero_point = torch.zeros(1, requires_grad=True)
    weights = torch.tensor([[1.0, 10.0, 100.0, 1000.0]])
    y = rounded_learned(x, log_scale, zero_point, -2, 1)
    assert y.tolist() == [[0.0, -1.0, 1.0, -2.0]]
    (y * weights).sum().backward()
    factor = (4 * 3) ** -0.5  # four values in an image, three steps
    of_scale = 1.0 * (0 - 0.3) + 10.0 * (-1 + 0.8) + 100.0 * 1 + 1000.0 * -2
    assert float(log_scale.grad) == pytest.approx(of_scale * factor, rel=1e-5)
    assert float(zero_point.grad) == pytest.approx(-1100.0 * factor, rel=1e-5)
    assert x.grad.tolist() == [[1.0, 10.0, 0.0, 0.0]]


def test_gradients_add_up_over_all_values_of_all_images() -> None:
    """Value by value in float64. (torch's learnable operator differs from equation 3 by a few percent.)"""
    upstream = random(2, 3, 50, seed=1)
    for offset in (-7.0, 40.3):
        x, log_scale, zero_point = random(2, 3, 50), torch.tensor([-4.2]), torch.tensor([offset])
        for tensor in (x, log_scale, zero_point):
            tensor.requires_grad_()
        rounded_learned(x, log_scale, zero_point, -128, 127).backward(upstream)
        scale, of_scale, of_zero_point = math.exp(-4.2), 0.0, 0.0
        for value, gradient in zip(x.flatten().tolist(), upstream.flatten().tolist(), strict=True):
            t = value / scale
            q = round(t) + round(offset)
            clamped = min(max(q, -128), 127)
            of_scale += gradient * (round(t) - t if q == clamped else clamped - round(offset))
            of_zero_point += gradient * (0.0 if q == clamped else -scale)
        factor = (150 * 255) ** -0.5
        assert float(log_scale.grad) == pytest.approx(of_scale * scale * factor, rel=1e-3)
        assert float(zero_point.grad) == pytest.approx(of_zero_point * factor, rel=1e-3)
        assert of_zero_point != 0  # something was clamped


def test_learning_begins_at_the_calibrated_ranges(calibrated: GraphModule, learning: GraphModule) -> None:
    set_training(learning, False)
    images = random(4, *INPUT_SIZE, seed=7)
    with torch.no_grad():
        assert torch.allclose(learning(images), calibrated(images), atol=1e-4)
    before, after = ranges(calibrated), ranges(learning)
    assert before.keys() == after.keys()
    for name in before:
        assert torch.allclose(before[name][0], after[name][0], rtol=1e-6)
        assert torch.equal(before[name][1], after[name][1])


def test_each_range_has_two_parameters_however_many_share_it(calibrated: GraphModule) -> None:
    graph = copy.deepcopy(calibrated)
    modules = {m for m in graph.modules() if isinstance(m, EdgeFakeQuantize) and not m.is_per_channel}
    assert learn_ranges(graph) == len(modules)
    assert learn_ranges(graph) == 0  # they are trained already
    parameters = range_parameters(graph)
    assert len(parameters) == len({id(p) for p in parameters}) == 2 * len(modules)
    assert {id(p) for p in parameters} <= {id(p) for p in graph.parameters()}
    assert all(p.ndim == 1 for p in parameters)  # exempt from weight decay
    assert range_parameters(calibrated) == []


def test_what_was_trained_is_what_is_written(learning: GraphModule) -> None:
    before = {name: float(scale) for name, (scale, _) in ranges(learning).items()}
    train(learning, 8)
    set_training(learning, False)
    set_observers(learning, False)
    moved = [name for name, (scale, _) in ranges(learning).items() if abs(float(scale) / before[name] - 1) > 0.01]
    assert len(moved) > len(before) / 2
    # Without BatchNorm, whose folding rounds anew, both would agree to the bit: see test_quantization_graph.
    images = random(8, *INPUT_SIZE, seed=50)
    with torch.no_grad():
        expected = learning(images)
        program = to_qdq_program(learning, INPUT_SIZE)
        assert (program.module()(images) - expected).norm() < 0.02 * expected.norm()
    written = {
        round(float(a), 9) for n in program.graph.nodes if "quantize_per_tensor" in str(n.target) for a in n.args[1:2]
    }
    assert written == {round(float(scale), 9) for scale, _ in ranges(learning).values()}
    assert range_parameters(learning)  # the graph itself still learns


def test_ranges_stand_still_without_observers_and_in_float_nothing_is_rounded(learning: GraphModule) -> None:
    set_observers(learning, False)
    before = ranges(learning)
    train(learning, 3)
    for name, (scale, zero_point) in ranges(learning).items():
        assert torch.equal(scale, before[name][0]), name
        assert torch.equal(zero_point, before[name][1]), name
    assert all(p.grad is None for p in range_parameters(learning))
    set_training(learning, False)
    images = random(4, *INPUT_SIZE)
    rounded = learning(images)
    set_fake_quantization(learning, False)
    assert (learning(images) - rounded).abs().max() > 1e-4


def test_scales_never_fall_below_the_smallest_one(learning: GraphModule) -> None:
    with torch.no_grad():
        for parameter in range_parameters(learning):
            parameter.fill_(-1e3)
    learning(random(2, *INPUT_SIZE))
    for scale, zero_point in ranges(learning).values():
        assert float(scale) == pytest.approx(SCALE_EPSILON, rel=1e-5)
        assert -128 <= int(zero_point) <= 127


def test_training_resumes_from_its_state_dict_to_the_same_bits(calibrated: GraphModule, learning: GraphModule) -> None:
    optimizer = train(learning, 2)
    saved, state = copy.deepcopy(learning.state_dict()), copy.deepcopy(optimizer.state_dict())
    train(learning, 2, optimizer)

    again = copy.deepcopy(calibrated)
    learn_ranges(again)
    set_training(again, True)
    again.load_state_dict(saved)
    resumed = torch.optim.AdamW([{"params": [p for p in again.parameters() if p.requires_grad]}], lr=1e-2)
    resumed.load_state_dict(state)
    train(again, 2, resumed)
    ours, theirs = learning.state_dict(), again.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_freezing_gives_plain_ranges_back(learning: GraphModule) -> None:
    train(learning, 2)
    set_observers(learning, False)
    set_training(learning, False)
    before, images = ranges(learning), random(4, *INPUT_SIZE)
    with torch.no_grad():
        expected = learning(images)
        assert freeze_learned(learning) == len(before)
        assert torch.equal(learning(images), expected)
    assert range_parameters(learning) == []
    assert freeze_learned(learning) == 0


def test_ranges_that_were_never_calibrated_are_refused() -> None:
    graph = prepare(TinyHybrid(), INPUT_SIZE, Scheme())
    with pytest.raises(TrainingError, match="has seen nothing"):
        learn_ranges(graph)
    assert range_parameters(graph) == []


def test_reestimated_ranges_forget_what_was_seen_and_average_the_batches(calibrated: GraphModule) -> None:
    graph = copy.deepcopy(calibrated)
    small = [random(4, *INPUT_SIZE, seed=s) * 0.1 * s for s in (1, 2, 3)]
    of_images = next(n for n in graph.graph.nodes if n.op == "call_module" and n.args[0].op == "placeholder")
    first = graph.get_submodule(str(of_images.target))
    assert reestimate_ranges(graph, small, 12, CPU) == len(ranges(graph))
    assert float(first.activation_post_process.max_val) == pytest.approx(
        sum(float(batch.max()) for batch in small) / 3, rel=1e-5
    )
    assert first.activation_post_process.averaging_constant == 0.01  # as it was
    assert not first.observing
    assert first.rounding


def test_reestimation_refuses_what_it_would_lose(calibrated: GraphModule, learning: GraphModule) -> None:
    with pytest.raises(TrainingError, match="trained"):
        reestimate_ranges(learning, [random(2, *INPUT_SIZE)], 2, CPU)
    graph = copy.deepcopy(calibrated)
    with pytest.raises(TrainingError, match="without images"):
        reestimate_ranges(graph, [], 0, CPU)
    before, after = ranges(calibrated), ranges(graph)
    assert all(torch.equal(before[name][0], after[name][0]) for name in before)
