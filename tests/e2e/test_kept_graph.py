"""A training that makes the answers worse leaves what calibration alone gives, and says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from command_line import main_py

from pipeline.run.facts import read_quantization
from pipeline.run.folder import find_run
from pipeline.run.logits import load_logits

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
    ours, alone = load_logits(run), load_logits(find_run(calibrated, None))
    for stage in ("fake_quant", "qdq"):
        assert np.array_equal(ours.stages[stage], alone.stages[stage]), stage
