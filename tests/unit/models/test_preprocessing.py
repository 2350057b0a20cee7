"""Whose word counts on how images are prepared: options, then the checkpoint, then the model; two that differ stop."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from known_weights import CLASSES, NAME, SIDE, Made, make
from safetensors.torch import save_file

from pipeline.errors import UsageError, WeightsError
from pipeline.models.build import IMAGENET_MEAN
from pipeline.models.preprocessing import told
from pipeline.models.weights import LoadedModel, load_model, peek, save_weights

HALF = (0.5, 0.5, 0.5)


@pytest.fixture(scope="module")
def made() -> Made:
    return make()


def checkpoint(folder: Path, made: Made, **beside: object) -> Path:
    """As timm's training script leaves it."""
    path = folder / "w.pth.tar"
    torch.save({"arch": NAME, "state_dict": made.state, **beside}, path)
    return path


def loaded(path: Path, **given: Any) -> LoadedModel:
    return load_model(NAME, path, given={"input_size": SIDE, **given})


@pytest.mark.parametrize("kind", [argparse.Namespace, dict])
def test_what_a_checkpoint_says_of_its_preprocessing_is_used(kind: Any, made: Made, tmp_path: Path) -> None:
    args = kind(mean=[0.5, 0.5, 0.5], std=[0.5], crop_pct=1.0, interpolation="bilinear", img_size=SIDE, lr=1e-3)
    got = load_model(NAME, checkpoint(tmp_path, made, args=args))
    config = got.config
    assert (config.mean, config.std, config.crop_pct, config.interpolation) == (HALF, HALF, 1.0, "bilinear")
    assert config.input_size == (3, SIDE, SIDE)
    assert set(got.origins.values()) == {"args in w.pth.tar", "the authors' _cfg of T2T-ViT, as w.pth.tar does not say"}
    assert told(config, got.origins) == (
        f"preprocessing: input {SIDE}x{SIDE}, mean 0.5 0.5 0.5, std 0.5 0.5 0.5, crop_pct 1, interpolation bilinear "
        "(args in w.pth.tar)"
    )


def test_numbers_of_numpy_are_read(made: Made, tmp_path: Path) -> None:
    args = argparse.Namespace(mean=[np.float64(0.25)] * 3, crop_pct=np.float32(0.5))
    config = loaded(checkpoint(tmp_path, made, args=args)).config
    assert (config.mean, config.crop_pct) == ((0.25, 0.25, 0.25), 0.5)
    assert json.dumps(config.mean) == "[0.25, 0.25, 0.25]"


def test_what_was_left_to_the_model_is_the_models(made: Made, tmp_path: Path) -> None:
    """Options of timm's script that were not given are None or ''; `train_interpolation` is for training alone."""
    args = argparse.Namespace(
        mean=None, std=None, crop_pct=None, interpolation="", input_size=None, train_interpolation="random"
    )
    got = loaded(checkpoint(tmp_path, made, args=args))
    assert (got.config.mean, got.config.crop_pct, got.config.interpolation) == (IMAGENET_MEAN, 0.9, "bicubic")
    assert got.origins["mean"] == "the authors' _cfg of T2T-ViT, as w.pth.tar does not say"
    assert got.origins["input_size"] == "--img-size"
    assert "); mean 0.485 0.456 0.406, std" in told(got.config, got.origins)


def test_an_option_beats_the_checkpoint(made: Made, tmp_path: Path) -> None:
    path = checkpoint(tmp_path, made, args=argparse.Namespace(mean=[0.5], std=[0.5], crop_pct=1.0))
    got = loaded(path, mean="0.4,0.5,0.6", std="0.25", crop_pct=0.8, interpolation="nearest")
    config = got.config
    assert (config.mean, config.std) == ((0.4, 0.5, 0.6), (0.25, 0.25, 0.25))
    assert (config.crop_pct, config.interpolation) == (0.8, "nearest")
    assert [got.origins[key] for key in ("mean", "std", "crop_pct")] == ["--mean", "--std", "--crop-pct"]


def test_two_sources_that_differ_stop_with_both_values_and_an_option_decides(made: Made, tmp_path: Path) -> None:
    args, published = argparse.Namespace(crop_pct=1.0, mean=[0.5]), {"crop_pct": 0.875, "mean": [0.5, 0.5, 0.5]}
    path = checkpoint(tmp_path, made, args=args, pretrained_cfg=published)
    with pytest.raises(WeightsError) as caught:
        peek(path, NAME)
    assert str(caught.value) == (
        f"{path}: crop_pct is 1 (args in w.pth.tar) and 0.875 (pretrained_cfg in w.pth.tar): "
        "give the right one with --crop-pct"
    )
    assert peek(path, NAME, given={"crop_pct": 0.9}).known["crop_pct"].value == 0.9


def test_text_in_a_safetensors_file_is_a_source_as_the_records_of_a_pickle_are(made: Made, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    ours, args = json.dumps({"mean": [0.5, 0.5, 0.5]}), json.dumps({"mean": [0.4, 0.5, 0.5]})
    save_file(made.state, path, metadata={"preprocessing": ours, "args": args})
    with pytest.raises(WeightsError, match=r"mean is 0\.5 0\.5 0\.5 \(preprocessing in .* and 0\.4 0\.5 0\.5 \(args"):
        peek(path, NAME)
    save_file(made.state, path, metadata={"args": args})
    assert peek(path, NAME).known["mean"].value == (0.4, 0.5, 0.5)
    save_file(made.state, path, metadata={"args": "lr: 1"})
    with pytest.raises(WeightsError, match="`args` is not a JSON object"):
        peek(path, NAME)


def test_our_own_files_say_how_they_were_fed(made: Made, tmp_path: Path) -> None:
    first = loaded(checkpoint(tmp_path, made), mean="0.5", std="0.25", crop_pct=1.0, interpolation="bilinear")
    path = tmp_path / "own.safetensors"
    save_weights(first.model, first.config, path, CLASSES)
    again = load_model(NAME, path)
    assert again.config == first.config
    assert set(again.origins.values()) == {"preprocessing in own.safetensors"}
    assert load_model(NAME, path, img_size=64).config.input_size == (3, 64, 64)


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({"mean": [123.7, 116.3, 103.5]}, r"mean .*123\.7.* from 0 to 1: divide .* by 255"),
        ({"std": [0.2, 0.0, 0.2]}, "std .* above 0"),
        ({"mean": [0.5, 0.5]}, "mean .* one number, or one for each of the 3 channels"),
        ({"mean": "grey"}, "mean"),
        ({"crop_pct": float("nan")}, "crop_pct"),
        ({"crop_pct": [1]}, "crop_pct"),
        ({"interpolation": "random"}, "interpolation 'random' .* nearest, bilinear"),
        ({"input_size": (1, 28, 28)}, "input_size .* 3 channels"),
        ({"img_size": 0}, "input_size"),
        ({"img_size": torch.ones(2)}, "input_size"),
        ({"mean": torch.ones(3)}, "mean"),
        ({"crop_pct": 10**400}, "crop_pct"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(said: dict[str, Any], says: str, made: Made, tmp_path: Path) -> None:
    path = checkpoint(tmp_path, made, args=argparse.Namespace(**said))
    with pytest.raises(WeightsError, match=says):
        peek(path, NAME)


def test_an_option_that_cannot_be_is_a_usage_error(made: Made, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--mean: mean '0\.5,x'"):
        peek("none", NAME, given={"mean": "0.5,x"})


def test_a_size_that_the_model_is_not_built_for_is_told(made: Made, tmp_path: Path) -> None:
    path = checkpoint(tmp_path, made, args=argparse.Namespace(input_size=(3, 32, 48)))
    with pytest.raises(WeightsError, match=r"input 32x48 \(args in w\.pth\.tar\).*built for 224x224.*--img-size"):
        load_model(NAME, path)


def test_models_of_timm_keep_their_pretrained_cfg(tmp_path: Path) -> None:
    got = load_model("resnet10t", "none", 4)
    assert got.config.input_size == (3, 176, 176)
    assert got.config.crop_pct == 0.875
    assert set(got.origins.values()) == {"timm's pretrained_cfg of resnet10t"}
