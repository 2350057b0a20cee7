"""A small T2T-ViT in deploy form through each target: one delegate, nothing outside, all layers int8, right logits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from alive import alive_images, make_alive
from tiny_hybrid import SavedProgram, save_program

from pipeline.models.t2t_vit import T2TViT
from pipeline.quantization.calibration import calibrate
from pipeline.quantization.graph import export, prepare, to_qdq_program
from pipeline.quantization.quantizer import Scheme
from pipeline.rewrites.deploy import deploy_form
from targets import registry
from targets.coreml.inspect import load_operations
from targets.match import match_scales
from targets.program import load_program, trained_quant_params
from targets.types import GraphFacts
from targets.worker.host import HostWorker

SIDE, CLASSES, BLOCKS = 64, 10, 2
SIZE = (3, SIDE, SIDE)
#: kqv of two Performers (3 each), their proj and MLP (3 each), patch projection, 6 layers of a block and 12 of the
#: last, which has keys and values by head, and the head.
LAYERS = 2 * 3 + 2 * 3 + 1 + 6 * (BLOCKS - 1) + 12 + 1
TOLERANCE = {"fp32": 1e-5, "int8": 0.05}


@dataclass(frozen=True)
class Converted:
    target: str
    precision: str
    path: Path
    facts: GraphFacts
    program: SavedProgram


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SavedProgram]:
    torch.manual_seed(0)
    folder, form = tmp_path_factory.mktemp("deploy"), deploy_form(make_alive(T2TViT(BLOCKS, CLASSES, SIDE), seed=1))
    images = alive_images(8, SIDE)
    graph = prepare(form, SIZE, Scheme())
    calibrate(graph, [images], len(images), torch.device("cpu"))
    float_saved = save_program(export(form, SIZE), folder / "float.pt2", images)
    return {
        "fp32": float_saved,
        "fp16": float_saved,
        "int8": save_program(to_qdq_program(graph, SIZE), folder / "qdq.pt2", images),
    }


@pytest.fixture(scope="module")
def worker() -> Iterator[HostWorker]:
    with HostWorker() as process:
        yield process


CELLS = [("executorch", "fp32"), ("executorch", "int8"), ("tflite", "fp32"), ("tflite", "int8"), ("coreml", "int8")]


@pytest.fixture(scope="module", params=CELLS, ids=["-".join(c) for c in CELLS])
def converted(
    request: pytest.FixtureRequest,
    worker: HostWorker,
    programs: dict[str, SavedProgram],
    tmp_path_factory: pytest.TempPathFactory,
) -> Converted:
    target, precision = request.param
    program, suffix = programs[precision], registry.get(target).suffix
    path = tmp_path_factory.mktemp("converted") / f"deploy{suffix}"
    worker.convert(target, program.path, program.sha256, precision, path)
    return Converted(target, precision, path, worker.inspect(target, path), program)


def test_one_delegate_and_nothing_outside(converted: Converted) -> None:
    if converted.target == "coreml":
        assert converted.facts.partitions is None  # the format does not tell before it runs
        return
    assert converted.facts.partitions == 1
    assert converted.facts.fallback == {}


def test_every_layer_is_int8(converted: Converted) -> None:
    facts = converted.facts
    if converted.precision == "int8":
        assert facts.float_weight_names == ()
        assert facts.int8_weights >= LAYERS
    else:
        assert facts.int8_weights == 0
        assert facts.float_weights >= LAYERS - 8  # layers that an equal weight joins are counted once


def test_no_scale_is_lost(converted: Converted) -> None:
    trained = trained_quant_params(load_program(converted.program.path))
    match = match_scales(trained, converted.facts.quant_params, registry.get(converted.target).scale_rtol)
    assert match.found == match.total, match.missing
    assert (match.total == 0) == (converted.precision != "int8")


def test_logits_are_those_of_torch(converted: Converted, worker: HostWorker) -> None:
    target = registry.get(converted.target)
    for runtime in target.simulated or target.runtimes:
        session = worker.open(converted.target, converted.path, runtime, threads=1)
        seen, expected = session.infer(converted.program.images), converted.program.logits
        session.close()
        assert np.linalg.norm(seen - expected) < TOLERANCE[converted.precision] * np.linalg.norm(expected), runtime


def test_core_ml_computes_in_half_precision_throughout(
    programs: dict[str, SavedProgram], worker: HostWorker, tmp_path: Path
) -> None:
    """Nothing stays float32, which the Neural Engine does not run: no operator but the casts at both ends."""
    path = tmp_path / "half.mlpackage"
    worker.convert("coreml", programs["fp16"].path, programs["fp16"].sha256, "fp16", path)
    single = [
        op.op_type
        for op in load_operations(path)[1]
        if op.op_type != "const" and any(getattr(o.dtype, "__name__", "") == "fp32" for o in op.outputs)
    ]
    assert single == ["cast"]  # the logits that leave


def test_core_ml_copies_no_pixel_through_a_convolution(converted: Converted) -> None:
    """coremltools writes `nn.Unfold` as a one-hot convolution, which the official form has three of."""
    if converted.target == "coreml":
        assert "conv" not in converted.facts.operators
