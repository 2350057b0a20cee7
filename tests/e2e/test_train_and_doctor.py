"""`train` makes weights that `quantize` takes; `doctor` tells what this machine can do."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from command_line import main_py
from safetensors import safe_open
from safetensors.torch import load_file
from shard_files import CLASSES, picture, write_shards

from pipeline.run.folder import find_run
from targets import registry

TINY = ["--img-size", "32", "--batch-size", "8"]


def test_trained_weights_are_taken_by_quantize(tmp_path: Path) -> None:
    """Both on WebDataset shards: 21 images for training, 6 for validation."""
    out, data = tmp_path / "weights.safetensors", ["--data", f"wds/{write_shards(tmp_path / 'pets')}"]
    ended = main_py(
        "train", "resnet10t", *TINY, *data, "--epochs", 2, "--half-size-epochs", 1, "--augment", "light", "--out", out
    )
    assert ended.code == 0, ended.err
    assert "of 6)" in ended.out
    with safe_open(str(out), framework="pt") as file:
        assert file.metadata()["model"] == "resnet10t"
        assert file.metadata()["data"] == "pets"
    assert len((tmp_path / "weights.training" / "metrics.jsonl").read_text().splitlines()) == 2
    ended = main_py(
        "quantize", "resnet10t", *TINY, *data, "--weights", out, "--epochs", 1, "--calibration-images", 8,
        "--runs-dir", tmp_path / "runs",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    subject = find_run(tmp_path / "runs", None).read_json("checkpoint/subject.json")
    assert subject["weights"]["head_replaced"] is False
    assert (subject["data"]["n_train"], subject["data"]["n_val"]) == (21, 6)
    assert subject["classes"] == ["0", "1", "2"]


def test_interrupted_training_is_resumed_only_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "w.safetensors"
    arguments = ["train", "resnet10t", *TINY, "--epochs", 1, "--max-steps", 4, "--out", out]
    with monkeypatch.context() as patched:
        stopped_at(0.5, patched)
        assert main_py(*arguments).code == 130
    assert not out.exists()
    ended = main_py(*arguments)
    assert ended.code == 2
    assert "--resume" in ended.err
    assert main_py(*arguments, "--resume").code == 0
    assert out.exists()
    assert not list(tmp_path.rglob("resume.pt"))


def stopped_at(fraction: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C once so much of the training is done."""
    from pipeline.training.trainees import FloatTrainee

    begin_step = FloatTrainee.begin_step

    def stop_there(self: FloatTrainee, epoch: int, done_fraction: float, images: torch.Tensor) -> torch.Tensor:
        if done_fraction >= fraction:
            signal.raise_signal(signal.SIGINT)
        return begin_step(self, epoch, done_fraction, images)

    monkeypatch.setattr(FloatTrainee, "begin_step", stop_there)


#: 21 images in batches of 4: five steps an epoch; everything of the paper's recipe draws random numbers.
PAPER = [
    "--img-size", 32, "--batch-size", 4, "--augment", "paper", "--epochs", 2, "--lr", 1e-3, "--ema", 0.5,
    "--checkpoint-steps", 1, "--threads", 1,
]  # fmt: skip


@pytest.mark.parametrize("kind", ["shards", "stream"])
def test_the_papers_recipe_on_shards_and_streams_resumes_to_the_same_bits(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_T2T_CACHE", str(tmp_path / "cache"))
    if kind == "shards":
        data = ["--data", f"wds/{write_shards(tmp_path / 'pets')}"]
    else:
        data = ["--data", f"hfids/{parquet_set(tmp_path / 'pets')}", "--epoch-images", 21]
    whole, resumed = tmp_path / "whole.safetensors", tmp_path / "resumed.safetensors"
    arguments = ["train", "t2t_vit_7", *PAPER, *data]
    ended = main_py(*arguments, "--out", whole)
    assert ended.code == 0, ended.err
    assert "21 training and 6 validation images" in ended.err
    assert "rand-m9-mstd0.5-inc1, random erasing 0.25, mixup 0.8, cutmix 1; drop path 0.1, EMA 0.5" in ended.err
    with monkeypatch.context() as patched:
        stopped_at(0.3, patched)
        assert main_py(*arguments, "--out", resumed).code == 130
    ended = main_py(*arguments, "--out", resumed, "--resume", "--workers", 1)
    assert ended.code == 0, ended.err
    expected, seen = load_file(whole), load_file(resumed)
    assert expected.keys() == seen.keys()
    assert all(torch.equal(expected[key], seen[key]) for key in expected)


def parquet_set(root: Path) -> Path:
    """The pictures of `write_shards` as parquet files."""
    import datasets

    root.mkdir()
    names = [f"class {i}" for i in range(CLASSES)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    for name, numbers in {"train-0": range(13), "train-1": range(13, 21), "test-0": range(21, 27)}.items():
        rows = [{"image": {"bytes": picture(n), "path": None}, "label": n % CLASSES} for n in numbers]
        datasets.Dataset.from_list(rows, features=features).to_parquet(str(root / f"{name}.parquet"))
    return root


def test_another_augmentation_or_preprocessing_does_not_take_up_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["train", "resnet10t", *TINY, "--epochs", 1, "--max-steps", 4, "--out", tmp_path / "w.safetensors"]
    with monkeypatch.context() as patched:
        stopped_at(0.5, patched)
        assert main_py(*arguments).code == 130
    ended = main_py(*arguments, "--resume", "--reprob", 0.5)
    assert ended.code == 7
    assert "with other settings of augment" in ended.err
    ended = main_py(*arguments, "--resume", "--mean", 0.25)
    assert ended.code == 7
    assert "prepared otherwise: resume with the same" in ended.err


def test_train_works_as_typed_and_replaces_nothing_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["train", "resnet10t", *TINY, "--epochs", 1, "--max-steps", 1]
    ended = main_py(*arguments)
    assert ended.code == 0, ended.err
    file = Path("weights") / "resnet10t-digits.safetensors"
    assert ended.out.startswith(f"{file}: top-1 ")
    before = file.read_bytes()
    ended = main_py(*arguments)
    assert ended.code == 2
    assert f"{file} is there already" in ended.err
    assert file.read_bytes() == before
    assert main_py(*arguments, "--out", file, "--seed", 1).code == 0
    assert file.read_bytes() != before


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--auto-augment", "rand-mm9"], "no policy that timm knows"),
        (["--drop-path", 0.1], "no residual branches that can be dropped"),
        (["--augment", "heavy"], "'heavy' is not one of paper, light, none"),
        (["--epoch-images", 10], "--epoch-images is for streams"),
    ],
)
def test_what_cannot_be_is_refused_before_any_image_is_read(options: list[object], told: str, tmp_path: Path) -> None:
    ended = main_py("train", "resnet10t", *TINY, "--out", tmp_path / "w.safetensors", *options)
    assert ended.code == 2
    assert told in ended.err
    assert "checking images" not in ended.err


def test_doctor_knows_every_target_and_runtime() -> None:
    ended = main_py("doctor")
    assert ended.code == 0, ended.err
    for text in ("executorch", "coreml", "tflite", "litert", "tensorflow", "training device: "):
        assert text in ended.out
    assert ended.out.count("convert: yes") == len(registry.variants())


def test_the_papers_recipe_begins_in_a_fresh_process(tmp_path: Path) -> None:
    """Where nothing was imported before: what a model of ours needs of timm must load by itself."""
    data, out = write_shards(tmp_path / "pets"), tmp_path / "w.safetensors"
    command = ["train", "t2t_vit_7", *PAPER, "--epochs", 1, "--max-steps", 1, "--data", data, "--out", out]
    ended = subprocess.run(
        [sys.executable, Path(__file__).parents[2] / "main.py", *map(str, command)], capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert out.exists()
