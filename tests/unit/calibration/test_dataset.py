"""Folder layouts, the embedded digits, and names of timm's dataset factory: what is taken and what is refused."""

from __future__ import annotations

import importlib.util
import pickle
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calibration.audit import audit
from calibration.dataset import DIGITS, DataError, Split
from calibration.hub import INSTALL, HubImages
from calibration.sources import open_data
from calibration.torchvision_compat import ensure_torchvision


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


def test_the_order_is_the_same_twice_and_does_not_depend_on_when_files_were_written(tmp_path: Path) -> None:
    root = folder(tmp_path / "pets")
    for name in ("10.png", "a.png", "B.png", "02.png"):
        shutil.copy(root / "train" / "cat" / "0.png", root / "train" / "cat" / name)
    ids = open_data(str(root)).train.ids
    assert ids[:6] == tuple(f"train/cat/{n}" for n in ("0.png", "02.png", "1.png", "10.png", "B.png", "a.png"))
    assert open_data(str(root)).train.ids == ids
    other = tmp_path / "again" / "pets"
    for name in reversed(ids):
        (other / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, other / name)
    shutil.copytree(root / "val", other / "val")
    again = open_data(str(other))
    assert again.train.ids == ids
    assert again.train.digest() == open_data(str(root)).train.digest()


def test_hidden_files_and_folders_are_no_classes_and_no_images(tmp_path: Path) -> None:
    root = folder(tmp_path / "pets")
    (root / "train" / ".cache").mkdir()
    (root / "train" / "cat" / "._0.png").write_bytes(b"left by an archive of macOS")
    source = open_data(str(root))
    assert source.classes == ("cat", "dog")
    assert len(source.train) == 4


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
        (lambda root: [p.unlink() for p in root.glob("val/*/*")], "the split val has no images"),
        (lambda root: [shutil.rmtree(p) for p in root.glob("*/*")], r"has 0 class \(\): at least 2"),
        (lambda root: [p.unlink() for p in (root / "val" / "dog").iterdir()], "have no image in val"),
        (lambda root: shutil.rmtree(root / "val" / "dog"), "have no image in val"),
        (lambda root: (root / "val" / "cow").mkdir(), "classes that .* does not have"),
        (lambda root: [shutil.rmtree(root / s / "dog") for s in ("train", "val")], "at least 2 are needed"),
    ],
    ids=[
        "no val",
        "no train",
        "empty split",
        "no classes",
        "empty class",
        "missing class",
        "strange class",
        "one class",
    ],
)
def test_a_layout_that_cannot_be_used_is_told(harm, says: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    root = folder(tmp_path / "pets")
    harm(root)
    with pytest.raises(DataError, match=says):
        open_data(str(root))


def test_what_a_wrong_folder_holds_is_told(tmp_path: Path) -> None:
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=r"it holds images, labels\. Expected: train/<class>/<image> and val/<class>"):
        open_data(str(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="it holds nothing"):
        open_data(str(tmp_path / "empty"))


@pytest.mark.parametrize(("label", "told"), [(-1, "from -1 to 1"), (2, "from 0 to 2")])
def test_a_label_without_a_class_is_told(label: int, told: str, tmp_path: Path) -> None:
    """Hubs hide the labels of a test split as -1."""
    source = open_data(str(folder(tmp_path / "pets")))
    labels = source.val.labels.copy()
    labels[1] = label
    with pytest.raises(DataError, match=f"the labels of val go {told}, and there are 2 classes"):
        replace(source, val=replace(source.val, labels=labels))


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


def test_a_stream_that_is_not_read_here_is_refused() -> None:
    with pytest.raises(DataError, match=r"is a stream of TensorFlow Datasets.*WebDataset shards \(wds/\)"):
        open_data("tfds/mnist")


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


def odd(root: Path) -> Path:
    """cat: a broken file and a transparent one; dog: one with EXIF orientation 6 and one of 16 bits."""
    folder(root, "train", "validation")
    cat, dog = root / "train" / "cat", root / "train" / "dog"
    (cat / "0.png").write_bytes(b"broken")
    Image.new("RGBA", (6, 4), (0, 0, 0, 0)).save(cat / "1.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 4), "red").save(dog / "0.png", exif=exif)
    Image.fromarray(np.full((4, 6), 0x8080, dtype=np.uint16)).save(dog / "1.png")
    return root


def look_at_odd_images(split: Split) -> None:
    with pytest.raises(DataError, match="is not an image"):
        split.image(0)
    assert split.image(1).getpixel((0, 0)) == (255, 255, 255)
    assert split.image(2).size == (4, 6)
    assert split.image(3).getpixel((0, 0)) == (128, 128, 128)
    with pytest.raises(DataError, match="is not an image"):
        split.digest()


def test_a_cache_folder_in_the_home_folder_may_begin_with_a_tilde(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("EDGE_T2T_CACHE", "~/cache")
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "cache" / "datasets", "train", "validation")
    assert open_data("torch/image_folder").classes == ("cat", "dog")
    assert not (tmp_path / "~").exists()


def test_images_of_torchvision_are_read_as_files_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_T2T_CACHE", str(tmp_path))
    odd(tmp_path / "datasets")
    look_at_odd_images(open_data("torch/image_folder").train)


def test_images_of_timms_readers_are_read_as_files_are(tmp_path: Path) -> None:
    """timm's own item access puts the next image, with its pixels, in place of a broken one."""
    ensure_torchvision()
    from timm.data import create_dataset

    odd(tmp_path / "pets")
    dataset = create_dataset("", root=str(tmp_path / "pets"), split="train")
    look_at_odd_images(Split("train", np.array([0, 0, 1, 1]), tuple("abcd"), HubImages(dataset), np.arange(4)))


def test_a_broken_hub_image_is_in_the_list_of_the_audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_T2T_CACHE", str(tmp_path))
    odd(tmp_path / "datasets")
    report = audit(open_data("torch/image_folder"))
    assert [(b.split, b.index) for b in report.bad] == [("train", 0)]


def test_a_hugging_face_set_is_read_as_files_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets", reason="needs the extra `hub`")
    monkeypatch.setenv("EDGE_T2T_CACHE", str(tmp_path / "cache"))
    source = open_data(f"hfds/{odd(tmp_path / 'pets')}")
    assert source.classes == ("cat", "dog")
    assert source.train.labels.tolist() == source.val.labels.tolist() == [0, 0, 1, 1]
    look_at_odd_images(source.train)


def test_a_hugging_face_set_without_its_package_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if importlib.util.find_spec("datasets"):
        pytest.skip("the extra `hub` is installed")
    monkeypatch.setenv("EDGE_T2T_CACHE", str(tmp_path))
    with pytest.raises(DataError, match=re.escape(INSTALL)):
        open_data("hfds/somebody/flowers")


def test_a_folder_wins_over_a_hub_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "torch" / "pets")
    assert open_data("torch/pets").train.ids[0] == "train/cat/0.png"
