"""What QAT leaves: its best epoch, or what calibration alone gives where it made the answers worse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_line import Ended, main_py

from pipeline.metrics.drift import kl_divergence
from pipeline.records.waterfall import WaterfallRecord
from pipeline.run.facts import read_quantization
from pipeline.run.folder import Run, find_run
from pipeline.run.logits import load_logits
from targets.codec import from_dict

OPTIONS = [
    "quantize", "t2t_vit_7", "--weights", "demo", "--img-size", "64", "--max-steps", "2", "--batch-size", "8",
    "--limit-val", "60", "--calibration-images", "16", "--threads", "1",
]  # fmt: skip


def test_a_ruinous_training_is_not_kept(tmp_path: Path) -> None:
    trained, calibrated = tmp_path / "trained", tmp_path / "calibrated"
    ended = main_py(*OPTIONS, "--lr", "0.05", "--runs-dir", trained)
    assert ended.code == 0, ended.err
    assert "QAT made it worse, so the calibrated graph is kept" in ended.err
    assert main_py(*OPTIONS, "--ptq", "--runs-dir", calibrated).code == 0

    run = find_run(trained, None)
    facts = read_quantization(run)
    assert facts.source == "ptq"
    kept = facts.training["kept"]
    assert isinstance(kept, dict)
    assert kept["trained"] is False
    assert kept["trained_right"] < kept["calibrated_right"]
    assert set(facts.calibration) == {"images", "seed", "digest", "bias_correction"}
    ours, alone = load_logits(run), load_logits(find_run(calibrated, None))
    for stage in ("fake_quant", "qdq"):
        assert np.array_equal(ours.stages[stage], alone.stages[stage]), stage


@pytest.fixture(scope="module")
def drifting(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Ended]:
    """Three epochs in which BatchNorm's statistics move away from those of the float model, farther in each."""
    root = tmp_path_factory.mktemp("drifting")
    ended = main_py(
        "quantize", "mobilenet_v2", "--weights", "demo", "--img-size", "64", "--epochs", "3", "--max-steps", "2",
        "--batch-size", "8", "--lr", "0.001", "--batch-norm-freeze", "1", "--limit-val", "60",
        "--calibration-images", "16", "--threads", "1", "--keep", "trained", "--ranges", "observed",
        "--runs-dir", root,
    )  # fmt: skip
    assert ended.code == 0, ended.err
    return find_run(root, None), ended


def test_the_best_epoch_is_kept(drifting: tuple[Run, Ended]) -> None:
    run, ended = drifting
    assert "qat: epoch 1 of 3 is the best" in ended.err
    assert read_quantization(run).training["best_epoch"] == 1
    assert not list(run.path.rglob("best.pt"))
    stages = load_logits(run).stages
    first, program = (float(kl_divergence(stages["float"], stages[name]).mean()) for name in ("fake_quant", "qdq"))
    assert f"{first:.4g} from the float model" in ended.err
    assert program == pytest.approx(first, rel=0.1)  # it was made of the same state


def test_a_depthwise_network_is_equalized_and_rounded_adaptively(drifting: tuple[Run, Ended]) -> None:
    """And a T2T-ViT is not, see above."""
    facts = read_quantization(drifting[0]).calibration
    assert facts["equalization"]["channels"] > 100
    assert len(facts["adaptive_rounding"]["layers"]) == 53
    assert facts["adaptive_rounding"]["error"] < 0.8


def test_the_explanation_names_the_batch_norms_that_moved(drifting: tuple[Run, Ended]) -> None:
    run, _ = drifting
    root = run.path.parent
    assert main_py("convert", "--target", "executorch", "--no-baseline", "--runs-dir", root).code == 0
    ended = main_py("validate", "--explain", "--explain-images", "2", "--runs-dir", root)
    assert ended.code == 0, ended.err
    record = from_dict(WaterfallRecord, run.read_json("waterfall.json"))
    assert record.explanation is not None
    (note,) = (note for note in record.explanation.notes if note.startswith("trained: "))
    moved = read_quantization(run).moved_norms
    assert f"{len(moved)} BatchNorm layers, most in {moved[0].name} (mean {moved[0].mean_shift:.2g} " in note
    assert "--batch-norm-freeze 0" in ended.out.replace("\n", " ")
