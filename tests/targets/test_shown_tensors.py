"""Int8 tensors inside of artifacts are those of the QDQ program, whatever name and layout the format gives them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_hybrid import SavedProgram

from pipeline.drift.layers import output_values
from pipeline.drift.walk import Walk
from pipeline.metrics.tensor_match import Int8Tensor, compare, find
from pipeline.quantization.float_layers import QdqGraph
from targets import registry
from targets.types import QuantizedTensor
from targets.worker.host import HostWorker


def shown(name: str, runtime: str, program: SavedProgram, folder: Path) -> tuple[QuantizedTensor, ...] | None:
    with HostWorker(timeout_s=600) as worker:
        output = folder / f"tiny{registry.get(name).suffix}"
        worker.convert(name, program.path, program.sha256, "int8", output)
        session = worker.open(name, output, runtime, 1)
        before = session.infer(program.images[:1])
        tensors = session.quantized_tensors(program.images[:1])
        np.testing.assert_array_equal(session.infer(program.images[:1]), before)  # the session is as it was
        return tensors


LEAST_DB = 25.0  # runtimes round and accumulate in another order: here and there by one step


@pytest.mark.parametrize(
    ("name", "runtime"),
    [("tflite", "litert"), ("tflite", "tensorflow"), ("coreml", "mil-fp32"), ("coreml", "mil-fp16")],
)
def test_every_layers_output_is_found_and_near(
    name: str, runtime: str, programs: dict[str, SavedProgram], tmp_path: Path
) -> None:
    from targets.program import load_program

    program = programs["int8"]
    tensors = shown(name, runtime, program, tmp_path)
    assert tensors
    theirs = [Int8Tensor(t.scale, t.zero_point, t.values) for t in tensors]
    walk = Walk(QdqGraph(load_program(program.path).module()))
    ours = output_values(walk, torch.from_numpy(program.images[:1].copy()))
    assert len(ours) == 7
    for layer, mine in ours.items():
        if layer == "stem" and name == "tflite":
            continue  # a ReLU6 is folded into it: what comes before is not in the file
        place = find(mine, theirs, registry.get(name).scale_rtol)
        assert place is not None, layer
        db = compare(mine, theirs[place.number], place.axes).sqnr_db
        assert db is None or db > LEAST_DB, (layer, db)


def test_executorch_shows_nothing(programs: dict[str, SavedProgram], tmp_path: Path) -> None:
    assert shown("executorch", "executorch", programs["int8"], tmp_path) is None
