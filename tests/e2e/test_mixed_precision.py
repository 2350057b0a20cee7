"""`quantize --max-drop` of a T2T-ViT with one ruined layer, killed and resumed, and its recipe repeated."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from command_line import main_py
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pipeline.models.zoo import ZOO
from pipeline.run import layout as files
from pipeline.run.cells import load_mixed
from pipeline.run.folder import find_run, list_runs
from pipeline.run.logits import load_logits
from targets.program import load_program

ROOT = Path(__file__).resolve().parents[2]
MODEL, HEAD = "t2t_vit_7", "readout.head"
SCORED = 60


def ruined_weights(path: Path) -> Path:
    """A bias that no class needs makes the head's int8 output one coarse step; all other layers are as they were."""
    demo = ZOO[MODEL].demo_file
    with safe_open(demo, "pt") as file:
        metadata = file.metadata()
    state = load_file(demo)
    state["head.bias"][9] = -1e4
    save_file(state, path, metadata=metadata)
    return path


def test_the_ruined_layer_is_found_after_a_kill_and_the_recipe_repeats_it_bit_for_bit(tmp_path: Path) -> None:
    weights = ruined_weights(tmp_path / "ruined.safetensors")
    cut, again = tmp_path / "cut", tmp_path / "again"
    options = [
        "quantize", MODEL, "--weights", str(weights), "--img-size", "96", "--max-steps", "1", "--batch-size", "8",
        "--limit-val", str(SCORED), "--calibration-images", "16", "--threads", "1",
    ]  # fmt: skip
    search = ["--max-drop", "4", "--drop-target", "tflite", "--rank-images", "4", "--runs-dir", str(cut)]
    process = subprocess.Popen(
        [sys.executable, "main.py", *options, *search], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    deadline = time.monotonic() + 600
    while not list(cut.glob("*/search/trials.jsonl")):  # written after the first trial
        assert process.poll() is None, "it ended before its first trial"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    (unfinished,) = list_runs(cut)
    assert unfinished.manifest["status"] == "unfinished"
    assert not (cut / "latest").exists()
    logged = (unfinished.path / "search/trials.jsonl").read_text()
    trained = (unfinished.path / "checkpoint/int8/qdq.pt2").read_bytes()

    ended = main_py("quantize", "--resume", "--runs-dir", cut)
    assert ended.code == 0, ended.err
    run = find_run(cut, None)
    assert run.id == unfinished.id
    assert "qat epoch" not in ended.err  # the training is not done again
    assert "mixed precision" in ended.out
    assert run.file("checkpoint/int8/qdq.pt2").read_bytes() == trained
    assert run.file("search/trials.jsonl").read_text().startswith(logged)
    record = load_mixed(run)
    assert record is not None
    assert record.float_layers == (HEAD,)
    int8 = next(trial for trial in record.trials if not trial.float_layers)
    assert int8.cells[0].drop_pp > 50
    on_target = next(trial for trial in record.chosen if trial.judge == "targets")
    assert {cell.name.split()[0] for cell in on_target.cells} == {"tflite"}
    assert on_target.within(4)
    assert run.read_json(files.QUANTIZATION)["scheme"]["float_layers"] == [HEAD]
    assert main_py("quantize", "--resume", "--run", run.path, "--runs-dir", cut).code == 2  # it is finished

    recipe = run.file("recipe.json")
    missing = main_py("quantize", "--recipe", recipe, "--runs-dir", again)
    assert (missing.code, "give --weights" in missing.err) == (2, True)
    assert not list_runs(again)
    ended = main_py("quantize", "--recipe", recipe, "--weights", weights, "--threads", "1", "--runs-dir", again)
    assert ended.code == 0, ended.err
    repeated = find_run(again, None)
    first, second = load_logits(run), load_logits(repeated)
    assert set(first.stages) == set(second.stages) == {"float", "fake_quant", "qdq"}
    for stage, logits in first.stages.items():
        assert np.array_equal(logits, second.stages[stage]), stage
    programs = [load_program(r.file(files.QDQ_PROGRAM)) for r in (run, repeated)]
    assert programs[0].graph_module.code == programs[1].graph_module.code  # scales are numbers in it
    for name, value in programs[0].state_dict.items():
        assert torch.equal(value, programs[1].state_dict[name]), name
    assert repeated.read_json("recipe.json")["options"] == run.read_json("recipe.json")["options"]
