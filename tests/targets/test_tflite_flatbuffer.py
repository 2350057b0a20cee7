"""What is done to a `.tflite` file after the converter: int8 operators that no delegate takes, names, equal vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from alive import alive_images
from tiny_hybrid import SavedProgram

from pipeline.models.t2t_vit import T2TViT
from pipeline.quantization.calibration import calibrate
from pipeline.quantization.graph import prepare, to_qdq_program
from pipeline.quantization.quantizer import Scheme
from pipeline.rewrites.deploy import deploy_form
from targets.program import load_program, static_batch
from targets.tflite import convert, flatbuffer, passes, runner
from targets.tflite.inspect import inspect

FLOAT_ONLY = ("GELU", "SOFTMAX", "BATCH_MATMUL")


@pytest.fixture(scope="module")
def raw(programs: dict[str, SavedProgram]) -> bytes:
    """As litert-torch writes the int8 file."""
    return convert.lower(static_batch(load_program(programs["int8"].path)), "int8")


def operators(model: Any) -> list[str]:
    return [flatbuffer.operator_name(model, op) for op in model.subgraphs[0].operators]


def types(model: Any, name: str) -> set[str]:
    """Of all tensors that operators of this name read or write."""
    graph = model.subgraphs[0]
    return {
        flatbuffer.type_name(graph.tensors[index])
        for op in graph.operators
        if flatbuffer.operator_name(model, op) == name
        for index in (*op.inputs, *op.outputs)
    }


def logits(model: Any, path: Path, images: np.ndarray) -> np.ndarray:
    path.write_bytes(flatbuffer.serialize(model))
    return runner.load(path, runner.LITERT, threads=1).infer(images)


def test_operators_that_no_delegate_takes_become_float(
    raw: bytes, programs: dict[str, SavedProgram], tmp_path: Path
) -> None:
    before, after = (flatbuffer.parse(raw, "m") for _ in range(2))
    assert types(before, "GELU") == {"INT8"}  # as the converter merges quantize(gelu(dequantize(x)))
    assert passes.make_operators_float(after, FLOAT_ONLY)
    for name in FLOAT_ONLY:
        assert types(after, name) <= {"FLOAT32"}, name
    count = operators(after).count
    assert count("QUANTIZE") > operators(before).count("QUANTIZE")
    assert [n for n in operators(after) if n not in ("QUANTIZE", "DEQUANTIZE")] == [
        n for n in operators(before) if n not in ("QUANTIZE", "DEQUANTIZE")
    ]
    images = programs["int8"].images
    seen, expected = (logits(m, tmp_path / "m.tflite", images) for m in (after, before))
    assert np.abs(seen - expected).max() < 0.02 * np.abs(expected).max()  # one int8 step of GELU's table


def test_nothing_to_do_is_nothing_done(raw: bytes) -> None:
    model = flatbuffer.parse(raw, "m")
    before = operators(model)
    assert not passes.make_operators_float(model, ["CONV_3D"])
    assert operators(model) == before


def test_names_become_module_paths(raw: bytes, programs: dict[str, SavedProgram], tmp_path: Path) -> None:
    model = flatbuffer.parse(raw, "m")
    graph = model.subgraphs[0]
    ends = {graph.tensors[i].name for i in (*graph.inputs, *graph.outputs)}
    before = logits(model, tmp_path / "a.tflite", programs["int8"].images)
    passes.shorten_names(model)
    names = [t.name for t in graph.tensors]
    assert ends <= set(names)
    assert len(set(names)) == len(names)
    assert max(map(len, names)) < 60
    assert any(name.startswith(b"fc1;") for name in names)
    assert np.array_equal(logits(model, tmp_path / "b.tflite", programs["int8"].images), before)


def test_equal_vectors_are_stored_once(raw: bytes, programs: dict[str, SavedProgram], tmp_path: Path) -> None:
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer.parse(raw, "m")
    shared, plain = flatbuffer.serialize(model), bytes(flatbuffer_utils.convert_object_to_bytearray(model))
    assert len(shared) < len(plain)
    again = flatbuffer.parse(shared, "m")
    for seen, expected in zip(again.subgraphs[0].tensors, model.subgraphs[0].tensors, strict=True):
        for name in ("scale", "zeroPoint"):
            a, b = (getattr(t.quantization, name, None) for t in (seen, expected))
            assert (a is None) == (b is None)
            assert a is None or np.array_equal(a, b)
    (tmp_path / "plain.tflite").write_bytes(plain)
    images = programs["int8"].images
    expected = runner.load(tmp_path / "plain.tflite", runner.LITERT, threads=1).infer(images)
    assert np.array_equal(logits(model, tmp_path / "shared.tflite", images), expected)


def test_products_of_activations_are_delegated(tmp_path: Path) -> None:
    """A Performer with biases of zero, as drawn: nothing stands between its int8 layers and the products with them."""
    torch.manual_seed(0)
    size, images = (3, 32, 32), alive_images(4, 32)
    graph = prepare(deploy_form(T2TViT(1, 10, 32).eval()), size, Scheme())
    calibrate(graph, [images], len(images), torch.device("cpu"))
    program = to_qdq_program(graph, size)
    model = flatbuffer.parse(convert.lower(static_batch(program), "int8"), "m")
    before = operators(model)
    passes.make_operators_float(model, FLOAT_ONLY)
    assert passes.make_products_of_activations(model)
    assert operators(model).count("BATCH_MATMUL") > before.count("BATCH_MATMUL")
    assert not passes.make_products_of_activations(model)
    seen = logits(model, tmp_path / "m.tflite", images.numpy())
    expected = program.module()(images).detach().numpy()
    assert np.linalg.norm(seen - expected) < 0.05 * np.linalg.norm(expected)
    assert inspect(tmp_path / "m.tflite").partitions == 1


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("pkg.Net/torch.nn.modules.container.Sequential_mlp/torch.nn.modules.linear.Linear_0;1", "mlp.0"),
        ("pkg.Net/pkg.Stage_stage1/torch.nn.modules.linear.Linear_k;", "stage1.k"),
        ("arith.constant12", ""),
    ],
)
def test_module_path(name: str, path: str) -> None:
    assert flatbuffer.module_path(name) == path
