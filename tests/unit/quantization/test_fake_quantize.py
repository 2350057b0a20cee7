"""Fake quantization, fused BatchNorm and shared ranges against torch's and torchao's own."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny_hybrid import INPUT_SIZE, TinyHybrid
from torch import Tensor, nn
from torch.fx import GraphModule
from torchao.quantization.pt2e.fake_quantize import FakeQuantize
from torchao.quantization.pt2e.observer import MovingAverageMinMaxObserver, MovingAveragePerChannelMinMaxObserver

from pipeline.quantization.calibration import calibrate
from pipeline.quantization.fake_quantize import EdgeFakeQuantize
from pipeline.quantization.graph import (
    divide_outputs,
    divide_weights,
    prepare,
    set_observers,
    set_training,
    to_qdq_program,
)
from pipeline.quantization.observers import OBSERVERS, SCALE_EPSILON, WEIGHT_OBSERVER
from pipeline.quantization.quantizer import Scheme
from pipeline.quantization.ranges import SKIPPED, restore_sites
from targets.program import trained_quant_params

aten = torch.ops.aten
ACTIVATION = {"dtype": torch.int8, "quant_min": -128, "quant_max": 127, "qscheme": torch.per_tensor_affine}
WEIGHT = {"dtype": torch.int8, "quant_min": -127, "quant_max": 127, "qscheme": torch.per_channel_symmetric}


def stock(weight: bool) -> FakeQuantize:
    """torchao's, as it was used before ours."""
    if weight:
        observer, more = MovingAveragePerChannelMinMaxObserver, {**WEIGHT, "averaging_constant": 1.0, "ch_axis": 0}
    else:
        observer, more = MovingAverageMinMaxObserver, ACTIVATION
    return FakeQuantize.with_args(observer=observer, eps=SCALE_EPSILON, **more)()


def own(weight: bool) -> EdgeFakeQuantize:
    made = WEIGHT_OBSERVER(**WEIGHT, ch_axis=0) if weight else OBSERVERS["moving-average"](**ACTIVATION)
    assert isinstance(made, EdgeFakeQuantize)
    return made


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("weight", [False, True])
def test_values_gradients_and_qparams_are_those_of_torch(weight: bool) -> None:
    theirs, ours = stock(weight), own(weight)
    for step in range(4):  # the range moves
        if weight:  # theirs adds the change of a range to the old one, which rounds
            theirs = stock(weight)
        elif step == 3:
            theirs.disable_observer()
            ours.disable_observer()
        x = (random(8, 3, 5, 5, seed=step) * (step + 1)).requires_grad_()
        y = x.detach().clone().requires_grad_()
        expected, seen = theirs(x), ours(y)
        assert torch.equal(expected, seen)
        upstream = random(8, 3, 5, 5, seed=9)
        expected.backward(upstream)
        seen.backward(upstream)
        assert torch.equal(x.grad, y.grad)
        assert weight or step < 3 or (x.grad == 0).any()  # something was clamped
        for a, b in zip(theirs.calculate_qparams(), ours.calculate_qparams(), strict=True):
            assert torch.equal(a.double(), b.double())


def test_every_integer_and_every_tie_is_rounded_as_torch_does() -> None:
    ours = own(weight=False)
    ours.take(torch.tensor([0.037]), torch.tensor([-5]))
    ours.disable_observer()
    x = torch.cat([torch.arange(-300, 300) * 0.037, (torch.arange(-300, 300) + 0.5) * 0.037, torch.tensor([1e30])])
    assert torch.equal(ours(x), torch.fake_quantize_per_tensor_affine(x, 0.037, -5, -128, 127))


def test_a_nan_stays_one() -> None:
    assert own(weight=False)(torch.tensor([1.0, float("nan")])).isnan().any()


@pytest.mark.parametrize("weight", [False, True])
def test_state_dicts_are_interchangeable_and_carry_the_switches(weight: bool) -> None:
    theirs, ours = stock(weight), own(weight)
    x = random(4, 6)
    theirs(x)
    theirs.disable_observer()
    if weight:  # torchao's observers resize their own buffers only for a range that was seen
        ours(x)
    assert theirs.state_dict().keys() == ours.state_dict().keys()
    ours.load_state_dict(theirs.state_dict())
    assert not ours.observing
    assert torch.equal(ours(x * 5), theirs(x * 5))


def test_under_autocast_the_grid_keeps_its_digits() -> None:
    x = random(4, 64)
    expected = own(weight=False)(x.bfloat16().float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(own(weight=False)(x.bfloat16()), expected)


class Joined(nn.Module):
    """Two Linears of very different size concatenated for a third, behind copies; then an average."""

    def __init__(self) -> None:
        super().__init__()
        self.small, self.large, self.last = nn.Linear(32, 8), nn.Linear(32, 8), nn.Linear(8, 8)
        with torch.no_grad():
            self.small.weight.mul_(0.01)
            self.large.weight.mul_(10)

    def forward(self, x: Tensor) -> Tensor:
        x = x.reshape(-1, 96, 32)
        rows = torch.cat([self.large(x), self.small(x)], dim=1).reshape(-1, 2, 96, 8)
        return self.last(rows).mean(dim=(1, 2))


def test_a_joined_range_is_that_of_all_parts_whatever_comes_last() -> None:
    model = Joined()
    graph = prepare(model, INPUT_SIZE, Scheme())
    shared = [m for m in graph.modules() if isinstance(m, EdgeFakeQuantize) and m.sources == 2]
    assert len(shared) == 1
    images = random(4, *INPUT_SIZE)
    with torch.no_grad():
        rows = images.reshape(-1, 96, 32)
        values = torch.cat([model.large(rows), model.small(rows)])
    calibrate(graph, [images, images, images], 12, torch.device("cpu"))
    assert float(shared[0].activation_post_process.max_val) == pytest.approx(float(values.max()), rel=1e-5)
    assert float(shared[0].activation_post_process.min_val) == pytest.approx(float(values.min()), rel=1e-5)


def test_an_average_does_not_shrink_the_range_before_it() -> None:
    """Its values are far smaller than those it averages, and both have one scale."""

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.nn.functional.adaptive_avg_pool2d(self.conv(x), 1).flatten(1))

    model = Pooled().eval()
    graph = prepare(model, INPUT_SIZE, Scheme())
    images = random(4, *INPUT_SIZE)
    calibrate(graph, [images], 4, torch.device("cpu"))
    set_observers(graph, True)
    with torch.no_grad():
        for _ in range(100):
            graph(images)
    set_observers(graph, False)
    params = trained_quant_params(to_qdq_program(graph, INPUT_SIZE))
    with torch.no_grad():
        values = model.conv(images)
    width = 255 * params["conv2d"].scale[0]
    assert width == pytest.approx(float(values.max() - values.min()), rel=0.02)
    pooled = next(name for name in params if "pool" in name)
    assert params[pooled] == params["conv2d"]


def test_skipped_roundings_change_no_value_and_come_back_for_conversion() -> None:
    graph = prepare(Joined(), INPUT_SIZE, Scheme())
    images = random(4, *INPUT_SIZE)
    calibrate(graph, [images], 4, torch.device("cpu"))
    assert sum(SKIPPED in node.meta for node in graph.graph.nodes) >= 2  # cat and reshape
    whole = copy.deepcopy(graph)
    restore_sites(whole)
    assert sum(n.op == "call_module" for n in whole.graph.nodes) > sum(n.op == "call_module" for n in graph.graph.nodes)
    with torch.no_grad():
        assert torch.equal(graph(images), whole(images))
    assert graph.state_dict().keys() == copy.deepcopy(graph).state_dict().keys()


@pytest.fixture(scope="module")
def with_batch_norm() -> GraphModule:
    torch.manual_seed(0)
    model = TinyHybrid().train()
    with torch.no_grad():
        for _ in range(10):
            model(torch.randn(16, *INPUT_SIZE))
        for norm in (model.stem_norm, model.depthwise_norm):  # gains of both signs
            norm.weight.copy_(random(16, seed=1))
    graph = prepare(model, INPUT_SIZE, Scheme())
    calibrate(graph, [random(8, *INPUT_SIZE)], 8, torch.device("cpu"))
    return graph


def divisions(graph: GraphModule) -> int:
    """Of a convolution's output."""
    return sum(n.target == aten.div.Tensor and n.args[0].target == aten.conv2d.default for n in graph.graph.nodes)


def test_dividing_the_weight_gives_the_outputs_and_gradients_of_dividing_the_output(
    with_batch_norm: GraphModule,
) -> None:
    ours, theirs = copy.deepcopy(with_batch_norm), copy.deepcopy(with_batch_norm)
    assert divide_outputs(theirs) == 2
    assert (divisions(ours), divisions(theirs)) == (0, 2)
    images = random(8, *INPUT_SIZE, seed=3)
    for graph in (ours, theirs):
        set_training(graph, True)
    logits = ours(images), theirs(images)
    assert torch.allclose(*logits, atol=1e-5)
    for graph, out in zip((ours, theirs), logits, strict=True):
        out.square().sum().backward()
        assert graph.get_parameter("stem_norm.weight").grad.abs().min() > 0
    for (name, p), (_, q) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, rtol=1e-3, atol=1e-4 * float(q.grad.abs().max())), name
    assert divide_weights(theirs) == 2
    assert divisions(theirs) == 0


def test_conversion_folds_batch_norm_out_of_the_divided_weights(with_batch_norm: GraphModule) -> None:
    program = to_qdq_program(with_batch_norm, INPUT_SIZE)
    assert not any("batch_norm" in str(n.target) for n in program.graph.nodes)
    images = random(8, *INPUT_SIZE, seed=5)
    with torch.no_grad():
        expected, seen = with_batch_norm(images), program.module()(images)
    # A value on the edge of a step may fall on either side: one step of the logits at most.
    assert (seen - expected).norm() < 0.02 * expected.norm()
