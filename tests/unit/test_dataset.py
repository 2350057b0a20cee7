"""Folder layouts, the embedded digits, and names of timm's dataset factory: what is taken and what is refused."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calibration.dataset import DIGITS, open_data
from calibration.errors import DataError


def folder(root: Path, train: str = "train", val: str = "val", classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    for split in (train, val):
        for name in classes:
            (root / split / name).mkdir(parents=True)
            for i in range(2):
                Image.new("RGB", (20, 20), (40 * i, len(name), 120)).save(root / split / name / f"{i}.png")
    return root


@pytest.mark.parametrize(("train", "val"), [("train", "val"), ("train", "validation"), ("training", "val")])
def test_the_usual_names_of_the_splits_are_found(train: str, val: str, tmp_path: Path) -> None:
    source = open_data(str(folder(tmp_path / "pets", train, val)))
    assert source.classes == ("cat", "dog")
    assert (len(source.train), len(source.val)) == (4, 4)
    assert source.train.labels.tolist() == [0, 0, 1, 1]
    assert source.train.ids[0] == f"{train}/cat/0.png"


def test_nested_folders_and_unicode_names_are_read(tmp_path: Path) -> None:
    root = folder(tmp_path / "pets", classes=("Käfer", "犬"))
    (root / "train" / "犬" / "inner").mkdir()
    shutil.copy(root / "train" / "犬" / "0.png", root / "train" / "犬" / "inner" / "a b.png")
    source = open_data(str(root))
    assert source.classes == tuple(sorted(("Käfer", "犬")))
    assert "train/犬/inner/a b.png" in source.train.ids


def test_the_digest_changes_with_content_label_and_name(tmp_path: Path) -> None:
    root = folder(tmp_path / "pets")
    before = open_data(str(root)).val.digest()
    assert open_data(str(root)).val.digest() == before
    Image.new("RGB", (20, 20), (1, 2, 3)).save(root / "val" / "cat" / "0.png")
    changed = open_data(str(root)).val.digest()
    (root / "val" / "cat" / "1.png").rename(root / "val" / "cat" / "2.png")
    renamed = open_data(str(root)).val.digest()
    assert len({before, changed, renamed}) == 3


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda root: shutil.rmtree(root / "val"), "has no folder val or validation"),
        (lambda root: shutil.rmtree(root / "train"), "has no folder train"),
        (lambda root: [p.unlink() for p in (root / "val" / "dog").iterdir()], "have no image in val"),
        (lambda root: shutil.rmtree(root / "val" / "dog"), "have no image in val"),
        (lambda root: (root / "val" / "cow").mkdir(), "classes that .* does not have"),
        (lambda root: [shutil.rmtree(root / s / "dog") for s in ("train", "val")], "at least 2 are needed"),
    ],
    ids=["no val", "no train", "empty class", "missing class", "strange class", "one class"],
)
def test_a_layout_that_cannot_be_used_is_told(harm, says: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    root = folder(tmp_path / "pets")
    harm(root)
    with pytest.raises(DataError, match=says):
        open_data(str(root))


@pytest.mark.parametrize("spec", ["nowhere", "nowhere/at/all", "digit"])
def test_what_is_nothing_is_told(spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=f"--data {spec} does not exist: give digits, a folder"):
        open_data(spec)


def test_a_file_is_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "data.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match="is a file"):
        open_data(str(tmp_path / "data.zip"))


def test_the_digits_are_split_by_seed_and_class() -> None:
    from sklearn.datasets import load_digits

    source, again = open_data(DIGITS), open_data(DIGITS)
    assert (len(source.train), len(source.val)) == (1437, 360)
    assert not set(source.train.ids) & set(source.val.ids)
    counts, shares = np.bincount(source.val.labels), np.bincount(load_digits().target) * 360 / 1797
    assert np.abs(counts - shares).max() <= 1  # stratified
    assert source.val.digest() == again.val.digest() != source.train.digest()


def test_a_digit_is_shown_upright_and_white_on_black() -> None:
    """The middle of a zero is dark, its rim is bright; 80 px with a dark border that survives the crop."""
    source = open_data(DIGITS)
    zeros = [np.asarray(source.val.image(i))[..., 0] for i in np.flatnonzero(source.val.labels == 0)]
    mean = np.mean(zeros, axis=0)
    assert mean.shape == (80, 80)
    assert mean[36:44, 36:44].mean() < 60 < 120 < mean[12:20, 36:44].mean()
    assert mean[0].max() < 30


def test_splits_can_go_to_loader_processes() -> None:
    split = open_data(DIGITS).val
    copy = pickle.loads(pickle.dumps(split))
    assert copy.digest() == split.digest()


def test_a_stream_is_refused() -> None:
    with pytest.raises(DataError, match="without random access"):
        open_data("wds/some-shards")


def test_a_hub_name_that_does_not_exist_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_T2T_CACHE", str(tmp_path))
    with pytest.raises(DataError, match="torch/no_such_set"):
        open_data("torch/no_such_set")


def test_a_torchvision_set_comes_through_timms_factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`torch/image_folder` is timm's name for a folder; the factory gives train and validation of it."""
    monkeypatch.setenv("EDGE_T2T_CACHE", str(tmp_path))
    folder(tmp_path / "datasets", "train", "validation")
    source = open_data("torch/image_folder")
    assert source.classes == ("cat", "dog")
    assert source.train.labels.tolist() == source.val.labels.tolist() == [0, 0, 1, 1]
    assert source.val.name == "validation"
    assert source.val.image(0).size == (20, 20)
    assert source.val.digest() == open_data("torch/image_folder").val.digest()
