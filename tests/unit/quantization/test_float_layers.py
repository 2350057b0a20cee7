"""Int8 layers of a QDQ program: found by name, switched off one by one, and compared with programs made that way."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from alive import alive_images, make_alive
from tiny_hybrid import INPUT_SIZE, TinyHybrid
from torch import Tensor, nn
from torch.export import ExportedProgram

from pipeline.drift.layers import float_search, layer_drift, output_values
from pipeline.drift.walk import Walk
from pipeline.errors import UsageError
from pipeline.metrics.drift import kl_divergence
from pipeline.models.t2t_vit import T2TViT
from pipeline.quantization.calibration import calibrate
from pipeline.quantization.float_layers import QdqGraph, leave_float, named_layers, without_rounding
from pipeline.quantization.graph import prepare, to_qdq_program
from pipeline.quantization.quantizer import Scheme
from pipeline.rewrites.deploy import deploy_form

SIDE = 64
SIZE = (3, SIDE, SIDE)
aten = torch.ops.aten
ALL_BUT_THE_HEAD = ["all but the head"]


def qdq_of(model: nn.Module, size: tuple[int, int, int], images: Tensor, *float_layers: str) -> ExportedProgram:
    graph = prepare(model, size, Scheme(float_layers=float_layers))
    calibrate(graph, [images], len(images), torch.device("cpu"))
    return to_qdq_program(graph, size)


def t2t() -> nn.Module:
    torch.manual_seed(0)
    return deploy_form(make_alive(T2TViT(1, 10, SIDE), seed=1))


def hybrid() -> nn.Module:
    torch.manual_seed(0)
    return TinyHybrid().eval()


@pytest.fixture(scope="module")
def t2t_images() -> Tensor:
    return alive_images(4, SIDE)


@pytest.fixture(scope="module")
def t2t_qdq(t2t_images: Tensor) -> ExportedProgram:
    return qdq_of(t2t(), SIZE, t2t_images)


@pytest.fixture(scope="module")
def hybrid_images() -> Tensor:
    return torch.randn(4, *INPUT_SIZE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def hybrid_qdq(hybrid_images: Tensor) -> ExportedProgram:
    return qdq_of(hybrid(), INPUT_SIZE, hybrid_images)


def test_a_walk_computes_what_the_program_computes_and_without_rounding_what_the_float_model_does(
    t2t_qdq: ExportedProgram, t2t_images: Tensor
) -> None:
    walk = Walk(QdqGraph(t2t_qdq.module()))
    with torch.no_grad():
        assert torch.equal(walk.logits(t2t_images), t2t_qdq.module()(t2t_images))
        plain = without_rounding(t2t_qdq.module())(t2t_images)
        expected = t2t()(t2t_images)
        switched_off = walk.logits(t2t_images, walk.everything)
    torch.testing.assert_close(switched_off, plain)
    torch.testing.assert_close(plain, expected, rtol=1e-4, atol=1e-5)


def test_taking_the_rounding_out_leaves_no_quantize_operator(
    hybrid_qdq: ExportedProgram, hybrid_images: Tensor
) -> None:
    module = without_rounding(hybrid_qdq.module())
    assert not [n for n in module.graph.nodes if "quantize" in str(n.target)]
    with torch.no_grad():  # BatchNorm is folded into the convolutions
        torch.testing.assert_close(module(hybrid_images), hybrid()(hybrid_images), rtol=1e-3, atol=1e-4)


def test_layers_have_the_names_of_the_modules(t2t_qdq: ExportedProgram) -> None:
    layers = QdqGraph(t2t_qdq.module()).layers
    names = [layer.name for layer in layers]
    modules = {name for name, _ in t2t().named_modules()}
    assert set(names) <= modules
    assert len(set(names)) == len(names)
    assert "readout.head" in names
    weights = [n for n in t2t_qdq.module().graph.nodes if "quantize_per_channel" in str(n.target)]
    assert len(weights) == 2 * len(layers)  # every int8 weight has its layer
    assert {layer.kind for layer in layers} <= {"linear", "conv2d"}


@pytest.mark.parametrize(
    ("which", "names"),
    [
        ("hybrid", ["stem", "depthwise"]),  # the convolutions hand int8 to each other
        ("hybrid", ["qkv", "proj", "fc2", "head"]),
        ("t2t", ["stage1.kqv.k"]),
        ("t2t", ["embed.project"]),
        ("t2t", ["stage1.kqv.k", "stage1.kqv.q"]),  # two readers of one tensor
        ("t2t", ALL_BUT_THE_HEAD),
    ],
)
def test_layers_kept_float_are_the_program_quantized_without_them(
    which: str, names: list[str], request: pytest.FixtureRequest
) -> None:
    program: ExportedProgram = request.getfixturevalue(f"{which}_qdq")
    images: Tensor = request.getfixturevalue(f"{which}_images")
    model, size = (t2t(), SIZE) if which == "t2t" else (hybrid(), INPUT_SIZE)
    qdq = QdqGraph(program.module())
    if names == ALL_BUT_THE_HEAD:
        names = [layer.module for layer in qdq.layers if layer.module != "readout.head"]
    layers = named_layers(qdq, names)
    assert [layer.module for layer in layers] == [layer.name for layer in qdq.layers if layer.name in names]
    other = qdq_of(model, size, images, *names)  # the same images give the other layers the same scales
    assert not set(names) & {layer.name for layer in QdqGraph(other.module()).layers}
    mixed = leave_float(program, names)
    with torch.no_grad():
        walk = Walk(qdq)
        kept = walk.logits(images, qdq.kept_float(*layers))
        assert torch.equal(kept, other.module()(images))
        assert torch.equal(kept, mixed.module()(images))
        assert not torch.equal(kept, walk.logits(images))  # the layers matter at all
    assert quantize_operators(mixed) == quantize_operators(other)
    assert QdqGraph(mixed.module()).float_names == set(names)


def quantize_operators(program: ExportedProgram) -> Counter[str]:
    return Counter(str(node.target) for node in program.graph.nodes if "quantize" in str(node.target))


def test_float_layers_of_a_mixed_program_add_up(hybrid_qdq: ExportedProgram, hybrid_images: Tensor) -> None:
    one_by_one = leave_float(leave_float(hybrid_qdq, ["qkv"]), ["stem"])
    at_once = leave_float(hybrid_qdq, ["stem", "qkv"])
    with torch.no_grad():
        assert torch.equal(one_by_one.module()(hybrid_images), at_once.module()(hybrid_images))
    assert quantize_operators(one_by_one) == quantize_operators(at_once)
    assert quantize_operators(leave_float(at_once, ["stem"])) == quantize_operators(at_once)  # it is float already


def test_without_float_layers_the_quantizer_rounds_just_what_the_program_rounds(
    t2t_qdq: ExportedProgram, hybrid_qdq: ExportedProgram
) -> None:
    for program in (t2t_qdq, hybrid_qdq):
        qdq = QdqGraph(program.module())
        assert qdq.float_names == frozenset()
        assert qdq.kept_float() == frozenset()


def test_an_unknown_float_layer_is_refused_with_the_nearest_name(hybrid_qdq: ExportedProgram) -> None:
    with pytest.raises(UsageError, match=r"'fc3' is no Linear or convolution.*Did you mean 'fc[12]'"):
        leave_float(hybrid_qdq, ["stem", "fc3"])


class Twice(nn.Module):
    """One Linear that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.head = nn.Linear(48, 48), nn.Linear(48, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.mix(torch.tanh(self.mix(x.flatten(1))))))


def test_a_module_called_twice_is_left_float_in_both_places() -> None:
    torch.manual_seed(0)
    images = torch.randn(4, 3, 4, 4)
    model = Twice().eval()
    program = qdq_of(model, (3, 4, 4), images)
    assert [layer.name for layer in QdqGraph(program.module()).layers] == ["mix", "mix (2)", "head"]
    mixed = leave_float(program, ["mix"])
    with torch.no_grad():
        assert torch.equal(mixed.module()(images), qdq_of(model, (3, 4, 4), images, "mix").module()(images))


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_dropout_between_two_layers_hides_nothing(dropout: float) -> None:
    torch.manual_seed(0)
    images = torch.randn(4, 3, 4, 4)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.Dropout(dropout), nn.Linear(8, 5)).eval()
    program = qdq_of(model, (3, 4, 4), images)
    for name in ("1", "3"):
        with torch.no_grad():
            expected = qdq_of(model, (3, 4, 4), images, name).module()(images)
            assert torch.equal(leave_float(program, [name]).module()(images), expected), name


def test_all_layers_are_ranked_and_alone_is_nearer_than_chained(t2t_qdq: ExportedProgram, t2t_images: Tensor) -> None:
    qdq = QdqGraph(t2t_qdq.module())
    done: list[int] = []
    found = layer_drift(Walk(qdq), list(t2t_images.split(2)), done.append)
    assert sum(done) == 4
    assert {d.layer.name for d in found} == {layer.name for layer in qdq.layers}
    alone = [math.inf if d.alone_db is None else d.alone_db for d in found]
    assert alone == sorted(alone)
    head = next(d for d in found if d.layer.name == "readout.head")
    assert head.alone_db is not None
    assert head.chained_db is not None
    assert head.alone_db > head.chained_db  # the last layer has the rounding of all others before it
    with torch.no_grad():  # its output is the logits: chained is their SQNR
        ref, other = (m(t2t_images).double() for m in (without_rounding(t2t_qdq.module()), t2t_qdq.module()))
    expected = 10 * math.log10(float((ref**2).sum() / ((ref - other) ** 2).sum()))
    assert head.chained_db == pytest.approx(expected, rel=1e-5)


def test_alone_is_the_layer_rounded_by_hand() -> None:
    torch.manual_seed(0)
    images = torch.randn(8, 3, 4, 4)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 5)).eval()
    program = qdq_of(model, (3, 4, 4), images)
    (found,) = layer_drift(Walk(QdqGraph(program.module())), [images], lambda n: None)
    with torch.no_grad():
        ref, other = model(images).double(), program.module()(images).double()
    expected = 10 * math.log10(float((ref**2).sum() / ((ref - other) ** 2).sum()))
    assert found.alone_db == pytest.approx(expected, rel=1e-5)
    assert found.chained_db == found.alone_db


def test_the_search_runs_each_layer_as_a_whole_program_would(t2t_qdq: ExportedProgram, t2t_images: Tensor) -> None:
    qdq = QdqGraph(t2t_qdq.module())
    walk = Walk(qdq)
    labels = np.array([0, 1, 2, 3])
    done: list[int] = []
    found = float_search(walk, list(t2t_images.split(3)), labels, done.append)
    assert sum(done) == 2 * len(qdq.layers)
    assert [k.kl_mean for k in found.kept] == sorted(k.kl_mean for k in found.kept)
    with torch.no_grad():
        trained = without_rounding(t2t_qdq.module())(t2t_images).numpy()
        int8 = torch.cat([t2t_qdq.module()(images) for images in t2t_images.split(3)]).numpy()
        assert found.kl_mean == pytest.approx(kl_divergence(trained, int8).mean(), rel=1e-2)
        for kept in found.kept:
            off = qdq.kept_float(kept.layer)
            logits = torch.cat([walk.logits(images, off) for images in t2t_images.split(3)]).numpy()
            assert kept.kl_mean == pytest.approx(kl_divergence(trained, logits).mean(), rel=1e-2)
            assert kept.top1 == int((logits.argmax(1) == labels).sum())
    assert found.trained_top1 == int((trained.argmax(1) == labels).sum())


def test_output_values_are_int8_tensors_of_the_program(t2t_qdq: ExportedProgram, t2t_images: Tensor) -> None:
    qdq = QdqGraph(t2t_qdq.module())
    found = output_values(Walk(qdq), t2t_images[:1])
    head = found["readout.head"]
    assert head.values.dtype == np.int8
    with torch.no_grad():
        logits = t2t_qdq.module()(t2t_images[:1]).numpy()
    np.testing.assert_allclose((head.values.astype(np.float32) - head.zero_point) * head.scale, logits, rtol=1e-6)
    assert len(found) == sum(layer.output is not None for layer in qdq.layers)
