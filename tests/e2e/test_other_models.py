"""Models that are not T2T-ViT, and data that is not digits."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import main_py

from pipeline.records.validation import ValidationRecord
from pipeline.run.cells import load_conversions
from pipeline.run.folder import find_run
from targets.codec import from_dict

GARMENTS = Path(__file__).resolve().parents[3] / "shared" / "data" / "garments"


def test_a_timm_model_goes_all_the_way_by_calibration_alone(tmp_path: Path) -> None:
    ended = main_py(
        "quantize", "resnet10t", "--weights", "none", "--img-size", 64, "--epochs", 0, "--limit-val", 20,
        "--calibration-images", 16, "--runs-dir", tmp_path,
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert main_py("convert", "-t", "executorch", "-t", "coreml", "--no-baseline", "--runs-dir", tmp_path).code == 0
    assert main_py("validate", "--runs-dir", tmp_path).code == 0
    run = find_run(tmp_path, None)
    for record in load_conversions(run):
        assert record.scales_total
        assert record.scales_found is not None
        assert record.scales_found >= 0.95 * record.scales_total, record.scales_missing
    for entry in run.read_json("validation.json"):
        validation = from_dict(ValidationRecord, entry)
        if validation.key.runtime != "coreml":  # its packages are simulated
            assert validation.drift_qdq is not None
            assert validation.drift_qdq.agreement_percent >= 90  # random weights: logits lie close together


@pytest.mark.skipif(
    not GARMENTS.is_dir(), reason="needs the garments photos beside the checkout (shared/data/garments)"
)
def test_photos_of_other_classes_replace_the_head_and_train_it(tmp_path: Path) -> None:
    ended = main_py(
        "quantize", "t2t_vit_7", "--data", GARMENTS, "--weights", "demo", "--img-size", 64, "--max-steps", 3,
        "--limit-val", 30, "--calibration-images", 20, "--runs-dir", tmp_path,
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert "the head was replaced" in ended.err
    subject = find_run(tmp_path, None).read_json("checkpoint/subject.json")
    assert subject["weights"]["head_replaced"]
    assert subject["classes"][0] == "dress"
    assert (subject["data"]["n_train"], subject["data"]["n_val"]) == (3068, 341)
    training = find_run(tmp_path, None).read_json("checkpoint/quantization.json")["training"]
    assert [record["phase"] for record in training["history"]] == ["float", "qat"]
