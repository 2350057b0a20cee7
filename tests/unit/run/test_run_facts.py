"""What a run says of itself: read as it was written, by this version and by earlier ones; and how far it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from made_up_facts import write_made_up_facts

from pipeline.errors import RunError
from pipeline.files import write_json
from pipeline.records.keys import ArtifactKey
from pipeline.run.facts import QuantizationFacts, read_quantization, read_subject
from pipeline.run.folder import DONE, PENDING, SEARCH, Run, create_run
from pipeline.run.layout import QUANTIZATION, SUBJECT
from pipeline.stages.convert import as_made, plan_cells
from targets.codec import RecordError, to_dict

QAT, PTQ = ArtifactKey("tflite", "int8", "qat"), ArtifactKey("tflite", "int8", "ptq")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return create_run(tmp_path / "runs", "t2t_vit_7")


def test_the_subject_has_the_keys_of_earlier_versions(run: Run) -> None:
    """As `quantize` wrote it before it was read as a dataclass."""
    stored: dict[str, Any] = {
        "model_config": {
            "name": "t2t_vit_7", "num_classes": 10, "input_size": [3, 96, 96], "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5], "crop_pct": 0.9, "interpolation": "bicubic", "qk_scale": 0.0625,
            "crop_mode": "center",
        },
        "parameters": 4_000_000,
        "classes": list("0123456789"),
        "data": {"name": "digits", "n_train": 1, "n_val": 2, "train_digest": "a", "val_digest": "b"},
        "weights": {
            "source": "demo", "sha256": "c", "container": "plain", "head_replaced": False,
            "position_embedding_resized": False, "qk_scale": 0.0625,
        },
        "transform_digest": "d",
    }  # fmt: skip
    write_json(run.path / SUBJECT, stored)
    run.record(SUBJECT)
    subject = read_subject(run)
    assert subject.model_config.input_size == (3, 96, 96)
    assert to_dict(subject.model_config) == stored["model_config"]
    assert (subject.data.n_val, subject.weights.qk_scale, subject.classes[-1]) == (2, 0.0625, "9")
    write_json(run.path / SUBJECT, {**stored, "parameter": 1})
    run.record(SUBJECT)
    with pytest.raises(RecordError, match=r"checkpoint/subject\.json has an unknown key 'parameter'"):
        read_subject(run)


def test_written_facts_are_read_back(run: Run) -> None:
    write_made_up_facts(run, epochs=3)
    stored = run.read_json(QUANTIZATION)
    assert stored == {"scheme": {"name": "w8a8"}, "calibration": {}, "training": {"qat": {"epochs": 3}}}
    assert list(run.read_json(SUBJECT)) == [
        "model_config", "parameters", "classes", "data", "weights", "transform_digest", "origins",
    ]  # fmt: skip
    assert read_quantization(run) == QuantizationFacts(**stored)


@pytest.mark.parametrize(
    ("training", "source"),
    [
        ({"qat": {"epochs": 0}}, "ptq"),
        ({"qat": {"epochs": 1}}, "qat"),
        ({}, "qat"),
        ({"qat": {"epochs": 1}, "kept": {"trained": True}}, "qat"),
        ({"qat": {"epochs": 1}, "kept": {"trained": False}}, "ptq"),
    ],
)
def test_without_an_epoch_of_training_the_scales_come_from_calibration(
    training: dict[str, object], source: str
) -> None:
    facts = QuantizationFacts({}, {}, training)
    assert facts.source == source
    assert facts.made(QAT)  # earlier versions labelled files of a run without training so
    assert facts.made(PTQ) == (source == "ptq")
    assert not facts.made(ArtifactKey("coreml", "w8a16", "ptq"))
    assert not facts.made(ArtifactKey("tflite", "fp32", "float"))


def test_files_of_a_run_that_trained_nothing_are_called_ptq(run: Run) -> None:
    cells = plan_cells(["tflite"], ["fp32", "int8", "w8a16"], from_float=False, say=pytest.fail)
    write_made_up_facts(run, epochs=3)
    assert as_made(run, cells) == cells
    write_made_up_facts(run, epochs=0)
    float_file = ArtifactKey("tflite", "fp32", "float")
    assert as_made(run, cells) == [float_file, PTQ, ArtifactKey("tflite", "w8a16", "ptq")]
    assert as_made(run, [QAT, PTQ]) == [PTQ]  # one file


def test_a_run_is_finished_when_its_search_is_too(run: Run) -> None:
    assert run.status == "unfinished"
    with pytest.raises(RunError, match=f"did not finish: `python main.py quantize --resume --run {run.id}` continues"):
        run.check_finished()
    run.record(facts={SEARCH: PENDING})
    write_made_up_facts(run)
    assert run.status == "unfinished"  # nothing says that the training ended
    run.mark("finished", provenance={"torch": "2"})
    assert run.status == "searching"
    with pytest.raises(RunError, match="did not finish"):
        run.check_finished()
    run.mark("finished", **{SEARCH: DONE})
    assert run.status == "finished"
    run.check_finished()
