"""The loss of an artifact is the sum of its steps, in the record and in the sentence; unknown logits stay out."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_up_facts import write_made_up_facts
from made_up_waterfall import made_up_waterfall

from pipeline.drift import waterfall as stage
from pipeline.files import write_json
from pipeline.records.conversion import ConversionRecord
from pipeline.records.keys import OK, CellKey
from pipeline.records.validation import ValidationRecord
from pipeline.report.tables.waterfall import attribution, tables
from pipeline.run.folder import create_run
from pipeline.run.logits import ArtifactLogits, StageLogits, save_artifact_logits
from targets.codec import to_dict


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_steps_of_every_artifact_add_up_exactly(seed: int) -> None:
    record = made_up_waterfall(seed=seed)
    for found in record.stages[1:]:
        assert found.to_first is not None
        steps = [s.to_previous.change for s in record.chain(found.name) if s.to_previous is not None]
        total = found.to_first.change
        assert sum(c.lost - c.gained for c in steps) == total.lost - total.gained
        assert total.lost - total.gained == record.stages[0].accuracy.top1 - found.accuracy.top1


def test_the_sentence_names_every_step_and_its_figures_add_up() -> None:
    record = made_up_waterfall(seed=3)
    lines = attribution(record)
    assert len(lines) == sum(found.cell is not None for found in record.stages)
    for line in lines:
        total, steps = line.split(" = ")
        drop = float(re.findall(r"official (−?[\d.]+) pp", total)[0].replace("−", "-"))
        figures = [float(step.split()[-1].replace("−", "-")) for step in steps.split(" + ")]
        assert len(figures) == (2 if "fp32:" in line and "mil" not in line else 5)  # deploy, (QAT's three,) the runtime
        assert sum(figures) == pytest.approx(drop, abs=0.03)  # each is rounded to 0.01


def test_the_tables_have_every_stage_and_the_worst_layers() -> None:
    record = made_up_waterfall()
    stages, worst, kept = tables(record)
    assert len(stages.rows) == len(record.stages)
    assert record.explanation is not None
    assert worst.rows[0][0].text == record.explanation.layers[0].name
    assert kept.rows[0][0].text == "none (QDQ program)"
    assert kept.rows[1][0].text == record.explanation.kept_float[0].name


def test_logits_of_another_file_or_of_other_images_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = create_run(tmp_path, "m")
    write_made_up_facts(run)
    keys = [CellKey("m", "tflite", runtime, "int8", "qat", "host") for runtime in ("litert", "tensorflow")]
    records = [made_up_validation(key) for key in keys]
    write_json(run.path / "validation.json", [to_dict(record) for record in records])
    run.record("validation.json")
    monkeypatch.setattr(stage, "load_conversions", lambda run: (conversion("a" * 64),))
    reference = StageLogits(np.array([0, 1]), np.array([5, 3]), "digest", {})
    logits = np.arange(6, dtype=np.float32).reshape(3, 2)
    save_artifact_logits(run, keys[0], ArtifactLogits(logits, np.array([3, 4, 5]), "a" * 64))
    save_artifact_logits(run, keys[1], ArtifactLogits(logits, np.array([3, 4, 6]), "a" * 64))
    said: list[str] = []
    (found,) = stage.artifact_stages(run, reference, said.append)
    assert (found.name, found.previous) == ("tflite litert int8", "qdq")
    np.testing.assert_array_equal(found.logits, logits[[2, 0]])  # in the order of the reference
    assert len(said) == 1
    assert "tflite tensorflow int8 is not in the waterfall" in said[0]
    monkeypatch.setattr(stage, "load_conversions", lambda run: (conversion("b" * 64),))
    assert stage.artifact_stages(run, reference, said.append) == []


@pytest.mark.parametrize(("epochs", "previous"), [(5, "deploy"), (0, "qdq")])
def test_a_calibrated_file_comes_from_the_program_of_a_run_that_trained_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: int, previous: str
) -> None:
    run = create_run(tmp_path, "m")
    write_made_up_facts(run, epochs=epochs)
    key = CellKey("m", "tflite", "litert", "int8", "ptq", "host")
    write_json(run.path / "validation.json", [to_dict(made_up_validation(key))])
    run.record("validation.json")
    monkeypatch.setattr(stage, "load_conversions", lambda run: (replace(conversion("a" * 64), source="ptq"),))
    images = np.array([0, 1])
    save_artifact_logits(run, key, ArtifactLogits(np.eye(2, dtype=np.float32), images, "a" * 64))
    (found,) = stage.artifact_stages(run, StageLogits(images, images, "digest", {}), pytest.fail)
    assert (found.name, found.previous) == ("tflite litert int8 ptq", previous)


def made_up_validation(key: CellKey) -> ValidationRecord:
    from pipeline.metrics.accuracy import Accuracy

    return ValidationRecord(key, OK, Accuracy(2, 1, None), None, None, 1.0)


def conversion(sha256: str) -> ConversionRecord:
    from targets.types import FactsRecord

    facts = FactsRecord(1, (), (), {}, None, None, None, 1, 0, ())
    return ConversionRecord(
        "m", "tflite", "int8", "qat", OK, "artifacts/tflite-int8.tflite", sha256, 1.0, facts, 1, 1, (), "ran"
    )
