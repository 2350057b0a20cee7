"""From a checkpoint's own preprocessing through the first lines of a run to every later step that reads images."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch
from command_line import main_py
from safetensors import safe_open
from shard_files import write_shards

from pipeline.models.build import build
from pipeline.quantization.calibration import ptq_program
from pipeline.run.facts import read_subject
from pipeline.run.folder import find_run
from pipeline.run.logits import load_logits
from pipeline.training.subject import scored_images

HALF = (0.5, 0.5, 0.5)
QUICK = ["--calibration-images", 8, "--limit-val", 6]


def weights_of(model: str, folder: Path, **more: object) -> Path:
    """As timm's training script leaves them: fed with [-1, 1], and nothing cropped."""
    path = folder / "best.pth.tar"
    args = argparse.Namespace(mean=[0.5], std=[0.5], crop_pct=1.0, interpolation="bilinear", img_size=32, lr=0.1)
    torch.save({"arch": model, "state_dict": build(model, 3, 32)[0].state_dict(), "args": args, **more}, path)
    return path


def test_a_run_is_fed_as_its_weights_were_from_end_to_end(tmp_path: Path) -> None:
    data, runs = f"wds/{write_shards(tmp_path / 'pets')}", ["--runs-dir", tmp_path / "runs"]
    file = weights_of("t2t_vit_7", tmp_path)
    ended = main_py("quantize", "t2t_vit_7", "--weights", file, "--data", data, "--ptq", *QUICK, *runs)
    assert ended.code == 0, ended.err
    lines = [
        line for line in ended.err.splitlines() if "of pets" in line or line.startswith(("preproc", "the weights"))
    ]
    assert len(lines) == 3, ended.err
    assert lines[1] == (
        "preprocessing: input 32x32, mean 0.5 0.5 0.5, std 0.5 0.5 0.5, crop_pct 1, interpolation bilinear "
        "(args in best.pth.tar)"
    )
    assert lines[2] == "the weights name no classes: their 3 outputs are taken for 0, 1, 2, in order"

    run = find_run(tmp_path / "runs", None)
    subject = read_subject(run)
    config = subject.model_config
    assert (config.mean, config.std, config.crop_pct, config.interpolation) == (HALF, HALF, 1.0, "bilinear")
    assert config.input_size == (3, 32, 32)
    assert subject.origins["mean"] == "args in best.pth.tar"

    content = torch.load(file, weights_only=False)
    content["args"].crop_pct = 0.875  # another file at the same place
    torch.save(content, file)
    run.mark("unfinished")
    ended = main_py("quantize", "--resume", *runs)
    assert ended.code == 7, ended.err
    assert "crop_pct 0.875" in ended.err
    assert "began with preprocessing: input 32x32, mean 0.5 0.5 0.5, std 0.5 0.5 0.5, crop_pct 1," in ended.err
    run.mark("finished")

    file.unlink()  # from here on the run alone is asked; both refuse another transform than the run's
    assert scored_images(run, load_logits(run)).transform.digest() == subject.transform_digest
    assert ptq_program(run, print).is_file()


def test_train_takes_over_the_preprocessing_and_writes_it(tmp_path: Path) -> None:
    data, out = f"wds/{write_shards(tmp_path / 'pets')}", tmp_path / "own.safetensors"
    ended = main_py(
        "train", "timm/resnet10t", "--weights", weights_of("resnet10t", tmp_path), "--data", data, "--epochs", 1,
        "--max-steps", 1, "--batch-size", 8, "--std", "0.25", "--out", out,
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert "mean 0.5 0.5 0.5, crop_pct 1, interpolation bilinear (args in best.pth.tar)" in ended.err
    assert "; std 0.25 0.25 0.25 (--std)" in ended.err
    with safe_open(str(out), framework="pt") as file:
        assert (
            '"std": [0.25, 0.25, 0.25], "crop_pct": 1.0, "interpolation": "bilinear"'
            in (file.metadata()["preprocessing"])
        )


@pytest.mark.parametrize("command", ["quantize", "train"])
def test_two_sources_that_differ_stop_before_an_image_is_read(command: str, tmp_path: Path) -> None:
    path = weights_of("resnet10t", tmp_path, pretrained_cfg={"mean": [0.485, 0.456, 0.406]})
    place = ["--runs-dir", tmp_path / "runs"] if command == "quantize" else ["--out", tmp_path / "w.safetensors"]
    ended = main_py(command, "resnet10t", "--weights", path, *place)
    assert ended.code == 4
    assert "mean is 0.5 0.5 0.5 (args in best.pth.tar) and 0.485 0.456 0.406 (pretrained_cfg in" in ended.err
    assert "give the right one with --mean" in ended.err
    assert "checking images" not in ended.err
    assert [p.name for p in tmp_path.iterdir()] == ["best.pth.tar"]


def test_without_a_network_own_data_is_told_what_to_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_T2T_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # the discard port: nothing answers
    monkeypatch.setattr("pipeline.models.download.time.sleep", lambda seconds: None)
    data = write_shards(tmp_path / "pets")
    ended = main_py("quantize", "mobilenet_v2", "--data", data, "--runs-dir", tmp_path / "runs")
    assert ended.code == 4
    assert "no --weights given: pretrained" in ended.err
    assert "give its path to --weights (--weights none begins with random weights)" in ended.err
    assert "checking images" not in ended.err
    assert not (tmp_path / "runs").exists()
