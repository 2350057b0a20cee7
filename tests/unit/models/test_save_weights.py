"""Files that we save ourselves: what they say, what is read back, and what a save that fails leaves behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from known_weights import CLASSES, NAME, OWN_SCALE, Made, assert_equal_tensors, make
from safetensors.torch import load_file

from pipeline.errors import WeightsError
from pipeline.files import sha256_of
from pipeline.models.build import build
from pipeline.models.checkpoint import read_checkpoint
from pipeline.models.weights import LoadedWeights, load_weights, peek, save_weights


@pytest.fixture(scope="module")
def made() -> Made:
    return make()


@pytest.fixture(scope="module")
def file(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "own.safetensors"
    save_weights(made.model, made.config, path, CLASSES)
    return path


def test_saved_file_says_what_it_is_for_and_is_read_back(file: Path, made: Made) -> None:
    info = peek(file, NAME)
    assert (info.source, info.num_classes, info.classes) == (str(file), 4, CLASSES)
    checkpoint = read_checkpoint(file)
    assert_equal_tensors(dict(checkpoint.tensors), made.state)
    assert checkpoint.metadata["model"] == NAME
    assert checkpoint.metadata["num_classes"] == "4"
    fresh = make(seed=9)
    record = load_weights(fresh.model, fresh.config, file, classes=CLASSES)
    assert_equal_tensors(fresh.state, made.state)
    assert record == LoadedWeights(str(file), sha256_of(file), "plain", False, False, OWN_SCALE)


def test_metadata_of_the_caller_is_added(made: Made, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(made.model, made.config, path, CLASSES, extra_metadata={"data": "digits"})
    metadata = read_checkpoint(path).metadata
    assert metadata["data"] == "digits"
    assert metadata["model"] == NAME


def test_half_is_half_the_size_and_reads_back_as_rounded_float32(file: Path, made: Made, tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    save_weights(made.model, made.config, path, CLASSES, half=True)
    whole = {key for key, value in load_file(path).items() if value.dtype == torch.float32}
    # Rows that are orthogonal to float32 precision, without which the deploy form keeps a product more.
    assert whole == {"tokens_to_token.attention1.w", "tokens_to_token.attention2.w"}
    assert 0.5 < path.stat().st_size / file.stat().st_size < 0.51
    expected = {key: value if key in whole else value.half().float() for key, value in made.state.items()}
    assert_equal_tensors(dict(read_checkpoint(path).tensors), expected)
    assert peek(path, NAME).qk_scale == OWN_SCALE


def test_half_keeps_the_integers_of_a_timm_model(tmp_path: Path) -> None:
    model, config = build("resnet10t", 4)
    counter = next(key for key in model.state_dict() if key.endswith("num_batches_tracked"))
    model.state_dict()[counter].fill_(100_001)
    save_weights(model, config, tmp_path / "half.safetensors", CLASSES, half=True)
    assert read_checkpoint(tmp_path / "half.safetensors").tensors[counter].item() == 100_001


@pytest.fixture
def own(tmp_path: Path) -> tuple[Made, Path, bytes]:
    """A model of its own to be spoilt, and its file."""
    made, path = make(), tmp_path / "w.safetensors"
    save_weights(made.model, made.config, path, CLASSES)
    return made, path, path.read_bytes()


def test_model_that_is_not_finite_is_not_written(own: tuple[Made, Path, bytes]) -> None:
    made, path, before = own
    made.state["norm.bias"][0] = float("nan")
    with pytest.raises(WeightsError, match=r"norm\.bias is not finite as torch\.float32"):
        save_weights(made.model, made.config, path, CLASSES)
    assert path.read_bytes() == before


def test_value_beyond_float16_is_not_written_as_half(own: tuple[Made, Path, bytes]) -> None:
    made, path, before = own
    made.state["norm.bias"][0] = 1e5
    with pytest.raises(WeightsError, match=r"norm\.bias is not finite as torch\.float16 \(largest value 100000\)"):
        save_weights(made.model, made.config, path, CLASSES, half=True)
    assert path.read_bytes() == before
    save_weights(made.model, made.config, path, CLASSES)
    assert read_checkpoint(path).tensors["norm.bias"][0] == 1e5


def test_wrong_number_of_names_is_not_written(own: tuple[Made, Path, bytes]) -> None:
    made, path, before = own
    with pytest.raises(WeightsError, match="3 class names for a head with 4 outputs"):
        save_weights(made.model, made.config, path, CLASSES[:3])
    assert path.read_bytes() == before


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_save_that_fails_on_the_disk_leaves_the_old_file_and_nothing_else(
    call: str, own: tuple[Made, Path, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, path, before = own

    def disk_full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    made.state["norm.bias"][0] = 0.25
    with monkeypatch.context() as patch:
        patch.setattr(os, call, disk_full)
        with pytest.raises(OSError, match="No space left"):
            save_weights(made.model, made.config, path, CLASSES)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
    save_weights(made.model, made.config, path, CLASSES)
    assert read_checkpoint(path).tensors["norm.bias"][0] == 0.25
