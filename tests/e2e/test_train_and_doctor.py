"""`train` makes weights that `quantize` takes; `doctor` tells what this machine can do."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from command_line import main_py
from safetensors import safe_open

from pipeline.rundir import find_run
from targets import registry

TINY = ["--img-size", "32", "--batch-size", "8"]


def test_trained_weights_are_taken_by_quantize(tmp_path: Path) -> None:
    out = tmp_path / "weights.safetensors"
    ended = main_py("train", "resnet10t", *TINY, "--epochs", 2, "--half-size-epochs", 1, "--max-steps", 3, "--out", out)
    assert ended.code == 0, ended.err
    assert "of 360" in ended.out
    with safe_open(str(out), framework="pt") as file:
        assert file.metadata()["model"] == "resnet10t"
        assert file.metadata()["data"] == "digits"
    assert len((tmp_path / "weights.training" / "metrics.jsonl").read_text().splitlines()) == 2
    ended = main_py(
        "quantize", "resnet10t", *TINY, "--weights", out, "--epochs", 0, "--limit-val", 10, "--calibration-images", 8,
        "--runs-dir", tmp_path / "runs",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    weights = find_run(tmp_path / "runs", None).read_json("checkpoint/subject.json")["weights"]
    assert weights["head_replaced"] is False


def test_interrupted_training_is_resumed_only_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.qat.trainees import FloatTrainee

    arguments = [
        "train",
        "resnet10t",
        *TINY,
        "--epochs",
        "1",
        "--max-steps",
        "4",
        "--out",
        str(tmp_path / "w.safetensors"),
    ]
    begin_step = FloatTrainee.begin_step

    def stop_in_the_middle(self: FloatTrainee, epoch: int, done_fraction: float, images: object) -> object:
        if done_fraction >= 0.5:
            signal.raise_signal(signal.SIGINT)
        return begin_step(self, epoch, done_fraction, images)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(FloatTrainee, "begin_step", stop_in_the_middle)
        assert main_py(*arguments).code == 130
    assert not (tmp_path / "w.safetensors").exists()
    ended = main_py(*arguments)
    assert ended.code == 2
    assert "--resume" in ended.err
    assert main_py(*arguments, "--resume").code == 0
    assert (tmp_path / "w.safetensors").exists()
    assert not list(tmp_path.rglob("resume.pt"))


def test_doctor_knows_every_target_and_runtime() -> None:
    ended = main_py("doctor")
    assert ended.code == 0, ended.err
    for text in ("executorch", "coreml", "tflite", "litert", "tensorflow", "training device: "):
        assert text in ended.out
    assert ended.out.count("convert: yes") == len(registry.variants())
