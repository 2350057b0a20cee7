"""`quantize`, interrupted and resumed, ends as `quantize` that ran through."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from command_line import main_py

from pipeline.run.facts import read_quantization
from pipeline.run.folder import find_run, list_runs
from pipeline.run.logits import load_logits

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = [
    "quantize", "t2t_vit_7", "--weights", "demo", "--img-size", "64", "--epochs", "2", "--max-steps", "4",
    "--limit-val", "24", "--calibration-images", "16", "--batch-size", "8", "--threads", "1", "--checkpoint-steps", "1",
]  # fmt: skip


def test_interrupt_and_resume(tmp_path: Path) -> None:
    straight, cut = tmp_path / "straight", tmp_path / "cut"
    ended = main_py(*OPTIONS, "--runs-dir", straight)
    assert ended.code == 0, ended.err

    process = subprocess.Popen(
        [sys.executable, "main.py", *OPTIONS, "--runs-dir", str(cut)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 300
    while not list(cut.glob("*/train/qat/resume.pt")):  # written after the first step
        assert process.poll() is None, "it ended before its first resume point"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 130
    (unfinished,) = list_runs(cut)
    assert unfinished.manifest["status"] == "unfinished"
    assert not (cut / "latest").exists()

    ended = main_py("quantize", "--resume", "--runs-dir", cut)
    assert ended.code == 0, ended.err
    first, second = load_logits(find_run(straight, None)), load_logits(find_run(cut, None))
    assert find_run(cut, None).id == unfinished.id
    for stage, logits in first.stages.items():
        assert np.array_equal(logits, second.stages[stage]), stage
    first_best, second_best = (
        read_quantization(find_run(root, None)).training["best_epoch"] for root in (straight, cut)
    )
    assert first_best == second_best
    assert not list(cut.rglob("*.pt"))
    assert main_py("quantize", "--resume", "--run", unfinished.path, "--runs-dir", cut).code == 2
