"""`torchrun main.py quantize` with two gloo processes: curve and answers of one process with twice the batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.run.folder import find_run, list_runs
from pipeline.run.logits import load_logits

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = [
    "--img-size", "64", "--epochs", "1", "--max-steps", "3", "--limit-val", "25", "--calibration-images", "16",
    "--no-dropout", "--ema", "0.5", "--distill", "0.5", "--threads", "1", "--lr", "1e-4", "--keep", "trained",
]  # fmt: skip


def main_py(runs: Path, *options: str, launcher: tuple[str, ...] = ()) -> str:
    command = [sys.executable, *launcher, "main.py", *options, "--runs-dir", str(runs)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended.stdout


@pytest.mark.parametrize(
    ("model", "phases"),
    [
        (["t2t_vit_7", "--weights", "demo"], ["qat"]),
        # Float training keeps the dropout of the model, of which T2T-ViT has some: it differs between two processes.
        (["vit_tiny_patch16_224", "--weights", "none", "--float-epochs", "1"], ["float", "qat"]),
    ],
    ids=["QAT of T2T-ViT", "float training and QAT"],
)
def test_two_processes_train_as_one_with_the_doubled_batch(tmp_path: Path, model: list[str], phases: list[str]) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    main_py(one, "quantize", *model, *OPTIONS, "--batch-size", "8")
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    out = main_py(two, "quantize", *model, *OPTIONS, "--batch-size", "4", launcher=launcher)
    assert out.count("checkpoint:") == 1, "both processes printed the result"
    assert len(list_runs(two)) == 1

    alone, together = find_run(one, None), find_run(two, None)
    curves = [
        [json.loads(line) for line in (run.path / "train" / "metrics.jsonl").read_text().splitlines()]
        for run in (alone, together)
    ]
    assert [r["phase"] for r in curves[0]] == phases
    for expected, seen in zip(*curves, strict=True):
        assert (seen["phase"], seen["epoch"], seen["n"]) == (expected["phase"], expected["epoch"], 25)
        assert seen["loss"] == pytest.approx(expected["loss"], rel=2e-3)
    quantization = together.read_json("checkpoint/quantization.json")
    assert quantization["training"]["processes"] == 2
    expected, seen = load_logits(alone), load_logits(together)
    for stage, tolerance in (
        ("float", 1e-3),
        ("fake_quant", 5e-2),
        ("qdq", 5e-2),
    ):  # one rounding the other way moves more
        error = np.linalg.norm(seen.stages[stage] - expected.stages[stage]) / np.linalg.norm(expected.stages[stage])
        assert error < tolerance, stage
