"""A small T2T-ViT as published through each target: slow, but it converts, is int8, and gives the right logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from alive import alive_images, make_alive
from tiny_hybrid import SavedProgram, save_program

from pipeline.models.t2t_vit import T2TViT
from pipeline.quantization.calibration import calibrate
from pipeline.quantization.graph import prepare, to_qdq_program
from pipeline.quantization.quantizer import Scheme
from targets import registry
from targets.worker.host import HostWorker

SIZE = (3, 32, 32)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> SavedProgram:
    images = alive_images(8, SIZE[1])
    graph = prepare(make_alive(T2TViT(1, 10, SIZE[1]), seed=1), SIZE, Scheme())
    calibrate(graph, [images], len(images), torch.device("cpu"))
    return save_program(to_qdq_program(graph, SIZE), tmp_path_factory.mktemp("official") / "qdq.pt2", images)


@pytest.mark.parametrize("target", registry.names())
def test_the_official_form_still_converts(target: str, program: SavedProgram, tmp_path: Path) -> None:
    path = tmp_path / f"official{registry.get(target).suffix}"
    with HostWorker() as worker:
        worker.convert(target, program.path, program.sha256, "int8", path)
        facts = worker.inspect(target, path)
        # Its random features are a matrix product with a constant, in float: two Performers, for keys and queries.
        assert facts.float_weights <= 4, facts.float_weight_names
        assert facts.int8_weights >= 14
        if target != "coreml":
            assert facts.fallback, "the deploy form would have nothing to improve"
        found = registry.get(target)
        session = worker.open(target, path, (*found.simulated, *found.runtimes)[0], threads=1)
        seen = session.infer(program.images)
        assert np.linalg.norm(seen - program.logits) < 0.05 * np.linalg.norm(program.logits)
