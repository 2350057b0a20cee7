"""A search for float layers with a real converter and runtime, and what it leaves in the run folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from outlier_run import IMAGES, LAYERS, NEEDED, outlier_run

from pipeline.errors import CellsFailedError, RunError
from pipeline.files import sha256_of, write_json
from pipeline.gate.baseline import FileFacts
from pipeline.mixed.search import MixedPlan
from pipeline.quantization.float_layers import QdqGraph, leave_float
from pipeline.quantization.integer import IntegerProgram
from pipeline.records.conversion import ConversionRecord
from pipeline.records.mixed import MixedRecord
from pipeline.run import layout as files
from pipeline.run.cells import load_mixed
from pipeline.run.folder import Run
from pipeline.run.layout import CANDIDATE, INT8, MIXED, TRIALS
from pipeline.run.logits import load_logits
from pipeline.stages import mixed_precision as mixed_targets
from pipeline.stages.convert import convert_cells
from pipeline.stages.mixed_precision import mix, write_checkpoint
from pipeline.training.subject import scored_images
from targets.program import load_program
from targets.types import TargetError

PLAN = MixedPlan((), 15.0, ("executorch",), rank_images=16, threads=1)


@dataclass(frozen=True)
class Mixed:
    run: Run
    int8: dict[str, str]  # sha256 of the checkpoint before
    record: MixedRecord
    made: tuple[ConversionRecord, ...]  # of the candidates


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Mixed:
    run = outlier_run(tmp_path_factory.mktemp("runs"))
    before = {name: sha256_of(run.path / name) for name in INT8}
    made: list[ConversionRecord] = []

    def converted(*arguments: Any) -> tuple[ConversionRecord, ...]:
        made.extend(records := convert_cells(*arguments))
        return records

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.stages.convert.convert_cells", converted)
        record = mix(run, PLAN, lambda line: None)
    return Mixed(run, before, record, tuple(made))


def test_the_result_is_what_was_scored_in_the_runtime(mixed: Mixed) -> None:
    record = mixed.record
    assert record.float_layers == NEEDED
    assert record.layers == len(LAYERS)
    assert (record.float_parameters, record.parameters) == (2 * 24 * 24, 24 * 768 + 2 * 24 * 24 + 240)
    in_torch, on_target = record.chosen
    (cell,) = on_target.cells
    assert cell.name == "executorch int8 ptq"
    assert cell.n == IMAGES
    assert abs(cell.lost - in_torch.cells[0].lost) <= 2
    assert cell.size_bytes is not None
    assert cell.size_bytes > record.parameters + 3 * record.float_parameters  # a byte a weight, four for a float one
    assert load_mixed(mixed.run) == record


def test_the_checkpoint_is_the_mixed_program_and_the_first_one_is_kept(mixed: Mixed) -> None:
    run = mixed.run
    for name, kept in INT8.items():
        assert sha256_of(run.file(kept)) == mixed.int8[name]
    program = load_program(run.file(files.QDQ_PROGRAM))
    assert QdqGraph(program.module()).float_names == set(NEEDED)
    kept = load_program(run.file(INT8[files.QDQ_PROGRAM]))
    reference = load_logits(run)
    images = torch.cat(list(scored_images(run, reference).batches(32)))
    with torch.no_grad():
        program = IntegerProgram(leave_float(kept, NEEDED).module())
        rows = [program(batch) for batch in images.split(32)]
        assert np.array_equal(torch.cat(rows).numpy(), reference.stages["qdq"])
    assert np.array_equal(reference.stages["float"], load_logits(run, INT8[files.LOGITS]).stages["float"])
    assert run.read_json(files.QUANTIZATION)["scheme"] == {
        "observer": "moving-average",
        "float_layers": list(NEEDED),
    }
    for name in run.manifest["files"]:
        run.file(name)  # raises if it is not what the manifest says
    assert run.has(TRIALS)
    assert not (run.path / CANDIDATE).exists()


def test_its_files_have_just_these_weights_in_float_and_the_gate_knows(mixed: Mixed) -> None:
    (record,) = mixed.made
    assert record.outcome.status == "ok", record.outcome
    assert record.facts is not None
    assert record.facts.float_weights == len(NEEDED)
    assert record.facts.int8_weights == len(LAYERS) - len(NEEDED)
    assert record.scales_found == record.scales_total
    facts = FileFacts.of(record, float_layers=len(mixed.run.read_json(files.QUANTIZATION)["scheme"]["float_layers"]))
    assert facts is not None
    assert facts.float_weights - facts.meant_float == 0


def test_once_more_is_the_same_without_a_trial(mixed: Mixed, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: object) -> None:
        raise AssertionError("a candidate was converted again")

    monkeypatch.setattr(mixed_targets.TargetsJudge, "trial", never)
    assert mix(mixed.run, PLAN, lambda line: None) == mixed.record  # seconds of the trials, too: from the log


def test_cut_off_while_the_checkpoint_is_written_it_is_written_again(
    mixed: Mixed, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = mixed.run
    kept = load_program(run.file(INT8[files.QDQ_PROGRAM]))
    reference = load_logits(run)
    other = (LAYERS[0],)
    write_checkpoint(run, kept, scored_images(run, reference), other)  # and the process is gone before the manifest
    with pytest.raises(RunError, match="changed after it was written"):
        run.file(files.QDQ_PROGRAM)
    assert mix(run, PLAN, lambda line: None) == mixed.record
    assert QdqGraph(load_program(run.file(files.QDQ_PROGRAM)).module()).float_names == set(NEEDED)


def test_named_layers_need_no_search(tmp_path: Path) -> None:
    run = outlier_run(tmp_path)
    before = load_logits(run).stages["qdq"]
    record = mix(run, MixedPlan(NEEDED, None, (), rank_images=1), lambda line: None)
    assert record.float_layers == record.given == NEEDED
    assert [trial.judge for trial in record.trials] == ["torch"]
    assert not np.array_equal(load_logits(run).stages["qdq"], before)
    assert run.has(MIXED)


def test_layers_that_were_float_in_training_stay_in_the_scheme(tmp_path: Path) -> None:
    run = outlier_run(tmp_path)
    facts = run.read_json(files.QUANTIZATION)
    facts["scheme"]["float_layers"] = ["some.table"]
    write_json(run.path / files.QUANTIZATION, facts)
    run.record(files.QUANTIZATION)
    mix(run, MixedPlan(("head",), None, (), rank_images=1), lambda line: None)
    assert run.read_json(files.QUANTIZATION)["scheme"]["float_layers"] == ["head", "some.table"]


def test_no_float_layers_leave_the_program_as_it_was(tmp_path: Path) -> None:
    run = outlier_run(tmp_path, outlier=1.0)
    before = sha256_of(run.path / files.QDQ_PROGRAM)
    record = mix(run, MixedPlan((), None, (), rank_images=1), lambda line: None)
    assert record.float_layers == ()
    assert sha256_of(run.file(files.QDQ_PROGRAM)) == before


def test_a_target_that_fails_stops_the_search_and_keeps_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = outlier_run(tmp_path)

    def fail(*arguments: object, **options: object) -> Callable[..., None]:
        raise TargetError("convert", "made to fail")

    monkeypatch.setattr("pipeline.stages.convert._make", fail)
    with pytest.raises(
        CellsFailedError, match="executorch int8 ptq with 2 layers in float failed at convert: made to fail"
    ):
        mix(run, PLAN, lambda line: None)
    run.file(files.QDQ_PROGRAM)
    assert not run.has(MIXED)
    assert not (run.path / CANDIDATE).exists()
