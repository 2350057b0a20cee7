"""The quantized graph of T2T-ViT and of a network with BatchNorm: what is int8, what is float, and that it trains."""

from __future__ import annotations

import copy

import pytest
import torch
from alive import alive_images, make_alive
from half_precision import in_half_precision
from pictures import pictures
from tiny_hybrid import INPUT_SIZE, TinyHybrid
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node
from torch.nn import functional as F

from pipeline.models.t2t_vit import T2TViT
from pipeline.quantization.calibration import calibrate
from pipeline.quantization.graph import (
    export,
    prepare,
    set_fake_quantization,
    set_observers,
    set_training,
    to_qdq_program,
)
from pipeline.quantization.quantizer import Scheme
from pipeline.rewrites.deploy import deploy_form
from targets.program import trained_quant_params

SIDE = 64
SIZE = (3, SIDE, SIDE)
aten = torch.ops.aten


def small_t2t() -> T2TViT:
    """One block, 64 px: every operator of the real models on few tokens."""
    torch.manual_seed(0)
    return make_alive(T2TViT(1, 10, SIDE), seed=1)


def calibrated(model: nn.Module, size: tuple[int, int, int], images: Tensor) -> GraphModule:
    graph = prepare(model, size, Scheme())
    calibrate(graph, [images], len(images), torch.device("cpu"))
    return graph


def steps(graph: GraphModule, images: Tensor, count: int) -> list[float]:
    optimizer = torch.optim.AdamW([p for p in graph.parameters() if p.requires_grad], lr=1e-4)
    losses = []
    for _ in range(count):
        loss = F.cross_entropy(graph(images), torch.arange(len(images)) % 5)
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    return losses


@pytest.fixture(scope="module")
def t2t_graph() -> GraphModule:
    return calibrated(small_t2t(), SIZE, alive_images(8, SIDE))


@pytest.fixture(scope="module")
def t2t_qdq(t2t_graph: GraphModule) -> ExportedProgram:
    return to_qdq_program(t2t_graph, SIZE)


def test_stock_quantizer_gives_nan_in_the_first_step_and_ours_does_not(t2t_graph: GraphModule) -> None:
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e

    images = alive_images(8, SIDE)
    stock = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True, is_qat=True))
    stock_graph = prepare_qat_pt2e(export(small_t2t().train(), SIZE).module(), stock)
    assert torch.isnan(stock_graph(images)).any()

    ours = copy.deepcopy(t2t_graph)
    set_training(ours, True)
    assert all(torch.isfinite(torch.tensor(steps(ours, images, 5))))
    assert all(torch.isfinite(p).all() for p in ours.parameters())


def test_every_linear_and_convolution_is_int8_and_nothing_of_the_performer_is(t2t_qdq: ExportedProgram) -> None:
    weights = [name for name in trained_quant_params(t2t_qdq) if name.endswith("weight")]
    layers = [n for n, m in small_t2t().named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    assert sorted(weights) == sorted(f"{name}.weight" for name in layers)

    graph = t2t_qdq.module().graph
    performer = [n for n in graph.nodes if n.target in (aten.exp.default, aten.div.Tensor)]
    assert [n.target for n in performer].count(aten.exp.default) == 4  # k and q of two stages
    for node in performer:
        if node.target == aten.exp.default:  # the quotient is rounded, after the division, for the Linear behind it
            assert not any("quantize" in str(user.target) for user in node.users), node
        inputs = [a for a in node.args if isinstance(a, Node)]
        assert not any("dequantize" in str(a.target) for a in inputs), node


def test_fake_quantization_and_qdq_program_compute_the_same(t2t_graph: GraphModule, t2t_qdq: ExportedProgram) -> None:
    images = alive_images(5, SIDE, seed=4)  # a batch that was never seen, of another size
    with torch.no_grad():
        assert torch.equal(t2t_graph(images), t2t_qdq.module()(images))
        assert t2t_qdq.module()(images[:1]).shape == (1, 10)


def test_quantized_logits_are_near_the_float_ones_but_not_equal(t2t_graph: GraphModule) -> None:
    images = alive_images(8, SIDE, seed=2)
    with torch.no_grad():
        reference, quantized = small_t2t()(images), t2t_graph(images)
    error = (quantized - reference).norm() / reference.norm()
    assert 1e-4 < error < 0.1


def test_without_fake_quantization_the_graph_is_the_float_model(t2t_graph: GraphModule) -> None:
    graph = copy.deepcopy(t2t_graph)
    set_fake_quantization(graph, False)
    images = alive_images(4, SIDE)
    with torch.no_grad():
        assert torch.allclose(graph(images), small_t2t()(images), atol=1e-5)


def test_frozen_observers_keep_activation_scales_and_weights_keep_following(
    t2t_graph: GraphModule, t2t_qdq: ExportedProgram
) -> None:
    graph = copy.deepcopy(t2t_graph)
    before = trained_quant_params(t2t_qdq)
    set_observers(graph, False)
    with torch.no_grad():
        graph.get_parameter("head.weight").mul_(2)
        graph(alive_images(4, SIDE) * 5)
    after = trained_quant_params(to_qdq_program(graph, SIZE))
    assert after["head.weight"].scale == pytest.approx([2 * s for s in before["head.weight"].scale], rel=1e-6)
    activations = [name for name in before if not name.endswith("weight")]
    assert len(activations) > 5
    assert all(before[name] == after[name] for name in activations)


def test_batch_norm_statistics_move_in_training_and_stand_still_when_frozen() -> None:
    graph = prepare(TinyHybrid(), INPUT_SIZE, Scheme())
    images = torch.randn(8, *INPUT_SIZE, generator=torch.Generator().manual_seed(0)) + 3

    def moved(freeze: bool) -> bool:
        before = graph.get_buffer("stem_norm.running_mean").clone()
        set_training(graph, True, freeze_batch_norm=freeze)
        graph(images)
        return not torch.equal(before, graph.get_buffer("stem_norm.running_mean"))

    assert moved(False)
    assert not moved(True)


def test_a_batch_norm_gain_of_zero_stays_finite() -> None:
    model = TinyHybrid()
    nn.init.zeros_(model.depthwise_norm.weight)  # as residual branches start
    images = torch.randn(8, *INPUT_SIZE, generator=torch.Generator().manual_seed(0))
    graph = calibrated(model, INPUT_SIZE, images)
    with torch.no_grad():
        assert torch.isfinite(graph(images)).all()
        set_fake_quantization(graph, False)
        # LayerNorm makes up to 300 times as much of the smallest gain.
        assert torch.allclose(graph(images), model.eval()(images), atol=1e-3)


def test_a_batch_norm_keeps_its_epsilon_and_momentum_in_training_and_in_the_program() -> None:
    """torchao writes 1e-5 and 0.1 over both; EfficientNet-Lite has 1e-3 and 0.01, and lost a point of top-1."""
    torch.manual_seed(0)
    model = TinyHybrid()
    for norm in (model.stem_norm, model.depthwise_norm):
        norm.eps, norm.momentum = 0.5, 0.01
        nn.init.uniform_(norm.running_var, 0.01, 1)
    images = torch.randn(32, *INPUT_SIZE)
    graph = calibrated(model, INPUT_SIZE, images)
    with torch.no_grad():
        rounded, program = graph(images), to_qdq_program(graph, INPUT_SIZE).module()
        assert torch.allclose(program(images), rounded, atol=float(rounded.std()) / 50)
        set_fake_quantization(graph, False)
        assert torch.allclose(graph(images), model.eval()(images), atol=1e-5)
    set_training(graph, True)
    seen, expected = graph(images), model.train()(images)
    assert torch.allclose(seen, expected, atol=1e-4)
    for name in ("stem_norm.running_mean", "depthwise_norm.running_var"):
        assert torch.allclose(graph.get_buffer(name), model.get_buffer(name), rtol=1e-4)


class SharedNorm(nn.Module):
    """Two convolutions read by one BatchNorm, as heads of several scales do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(3, 4, 3, stride=2, bias=False) for _ in range(2))
        self.norm, self.head = nn.BatchNorm2d(4, eps=0.5), nn.Linear(4, 5)
        nn.init.uniform_(self.norm.running_var, 0.01, 1)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.relu(self.norm(self.first(x))) + torch.relu(self.norm(self.second(x)))
        return self.head(both.mean(dim=(2, 3)))


def test_a_batch_norm_that_two_convolutions_share_gets_its_epsilon_once() -> None:
    torch.manual_seed(0)
    images = torch.randn(32, *INPUT_SIZE)
    graph = calibrated(SharedNorm(), INPUT_SIZE, images)
    with torch.no_grad():
        rounded, program = graph(images), to_qdq_program(graph, INPUT_SIZE).module()
        assert torch.allclose(program(images), rounded, atol=float(rounded.std()) / 50)


def test_batch_norm_is_folded_into_the_convolution() -> None:
    torch.manual_seed(0)
    images = torch.randn(16, *INPUT_SIZE)
    program = to_qdq_program(calibrated(TinyHybrid(), INPUT_SIZE, images), INPUT_SIZE)
    targets = {str(n.target) for n in program.graph.nodes}
    assert not any("batch_norm" in t or "dropout" in t for t in targets)
    # 7 weights, and -128 nowhere among them: some Core ML versions decode it wrongly.
    params = trained_quant_params(program)
    assert sum(name.endswith("weight") for name in params) == 7
    for node in program.graph.nodes:
        if str(node.target) == "quantized_decomposed.quantize_per_channel.default":
            assert node.args[4:6] == (-127, 127)


@pytest.fixture(scope="module")
def deploy_graph() -> GraphModule:
    return calibrated(deploy_form(small_t2t()), SIZE, alive_images(8, SIDE))


@pytest.fixture(scope="module")
def deploy_qdq(deploy_graph: GraphModule) -> ExportedProgram:
    return to_qdq_program(deploy_graph, SIZE)


def test_every_linear_of_the_deploy_form_is_int8_and_so_are_positions(deploy_qdq: ExportedProgram) -> None:
    params = trained_quant_params(deploy_qdq)
    layers = [f"{n}.weight" for n, m in deploy_form(small_t2t()).named_modules() if isinstance(m, nn.Linear)]
    assert sorted(name for name in params if name.endswith("weight")) == sorted(layers)
    assert len(params["embed.position"].scale) == 1


def test_what_the_deploy_form_computes_in_float(deploy_qdq: ExportedProgram) -> None:
    """Exponentials, logarithms, softmaxes, roots and sums written as products read no rounded value of their own."""
    graph = deploy_qdq.module().graph
    buffers = {name for name, _ in deploy_qdq.module().named_buffers()}
    delicate = (aten.exp.default, aten.log.default, aten.softmax.int, aten.rsqrt.default)
    nodes = [n for n in graph.nodes if n.target in delicate]
    sums = [n for n in graph.nodes if n.target == aten.linear.default and n.args[1].target in buffers]
    # keys of two Performers; two softmaxes each and one of attention; rows of means
    assert [n.target for n in nodes].count(aten.exp.default) == 2
    assert [n.target for n in nodes].count(aten.softmax.int) == 5
    assert len(sums) > 10
    for node in [*nodes, *sums]:
        assert not any("dequantize" in str(a.target) for a in node.args if isinstance(a, Node)), node
        assert not any("quantize" in str(user.target) for user in node.users), node


def test_patches_are_copied_in_int8(deploy_qdq: ExportedProgram) -> None:
    """The tokens are quantized once, and the overlapping patches hold what that gave: one scale from pad to Linear."""
    params = trained_quant_params(deploy_qdq)
    by_slice = {name: params[name] for name in params if name.startswith(("slice", "cat"))}
    assert len([name for name in by_slice if name.startswith("cat")]) >= 4  # two of each soft split of tokens
    assert len({p.scale for p in by_slice.values()}) < len(by_slice) / 2


def test_the_deploy_form_trains(deploy_graph: GraphModule) -> None:
    graph = copy.deepcopy(deploy_graph)
    set_training(graph, True)
    losses = steps(graph, alive_images(8, SIDE), 10)
    assert all(torch.isfinite(torch.tensor(losses)))
    assert all(torch.isfinite(p).all() for p in graph.parameters())
    assert losses[-1] < losses[0]


def test_the_deploy_form_computes_what_its_program_computes(
    deploy_graph: GraphModule, deploy_qdq: ExportedProgram
) -> None:
    images = alive_images(5, SIDE, seed=4)
    with torch.no_grad():
        assert torch.equal(deploy_graph(images), deploy_qdq.module()(images))
        float_logits = small_t2t()(images)
        error = (deploy_qdq.module()(images) - float_logits).norm() / float_logits.norm()
        assert 1e-4 < error < 0.1


def test_the_int8_program_survives_half_precision(deploy_qdq: ExportedProgram) -> None:
    """As a Core ML package computes it: float16 between the int8 layers."""
    program = deploy_qdq.module()
    for kind in ("natural", "flat", "white background"):
        images = pictures(kind, SIDE)
        with torch.no_grad():
            expected = program(images)
        difference = in_half_precision(program, images) - expected
        assert difference.norm() < 0.05 * expected.norm(), kind


def test_a_copy_of_which_one_part_is_read_in_float_stays_float() -> None:
    """Else a tensor would be rounded for a reader that does not need it."""

    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = x.flatten(1).exp()
            return self.layer(x[:, :4]) + x[:, 4:8].exp()

    images = torch.rand(2, *INPUT_SIZE)
    program = to_qdq_program(calibrated(Halves(), INPUT_SIZE, images), INPUT_SIZE)
    inner = [n for n in program.graph.nodes if n.target == aten.exp.default][1]
    pending, seen = [inner], set()
    while pending:
        node = pending.pop()
        assert "quantize" not in str(node.target)
        pending += [a for a in node.all_input_nodes if a not in seen]
        seen.add(node)


class ReshapedByBatch(nn.Module):
    """A reshape between two Linears whose shape names the batch: to the graph that number is a node like a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(32, 32), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        batch = x.shape[0]
        return self.second(self.first(x).reshape(batch, 3, 64, 16)).reshape(batch, -1)


def test_a_reshape_by_the_size_of_the_batch_keeps_int8_and_nothing_observes_the_number() -> None:
    graph = calibrated(ReshapedByBatch().eval(), (3, 32, 32), torch.randn(4, 3, 32, 32))
    program = to_qdq_program(graph, (3, 32, 32))
    assert program.module()(torch.randn(2, 3, 32, 32)).shape == (2, 3 * 64 * 8)
    assert len(trained_quant_params(program)) >= 5  # two weights; input, shared middle and output activations
