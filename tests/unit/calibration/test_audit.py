"""Before training: every image that cannot be read is in one list, and what is left is checked again."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from calibration.audit import SHOWN, audit
from calibration.dataset import DataError, DataSource
from calibration.sources import open_data


def folder(root: Path, images: int = 3) -> Path:
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for i in range(images):
                Image.new("RGB", (20, 20), (40 * i, 80, 120)).save(root / split / name / f"{i}.png")
    return root


@pytest.fixture
def damaged(tmp_path: Path) -> DataSource:
    root = folder(tmp_path / "pets")
    (root / "train" / "cat" / "empty.jpg").write_bytes(b"")
    (root / "train" / "dog" / "notes.txt").write_text("not an image")
    broken = root / "val" / "dog" / "1.png"
    broken.write_bytes(broken.read_bytes()[:60])
    (root / "train" / "cat" / ".DS_Store").write_bytes(b"\0")
    (root / "train" / "cat" / "Thumbs.db").write_bytes(b"\0")
    return open_data(str(root))


def test_a_sound_folder_passes(tmp_path: Path) -> None:
    report = audit(open_data(str(folder(tmp_path / "pets"))))
    assert (report.looked_at, report.bad) == (12, ())
    report.raise_if_bad()


def test_all_bad_images_are_named_in_one_list(damaged: DataSource) -> None:
    seen: list[int] = []
    report = audit(damaged, on_image=lambda: seen.append(1))
    assert [b.id for b in report.bad] == ["train/cat/empty.jpg", "train/dog/notes.txt", "val/dog/1.png"]
    assert report.looked_at == len(seen) == 14
    with pytest.raises(DataError, match="3 of 14 images cannot be used") as error:
        report.raise_if_bad()
    for bad in report.bad:
        assert bad.id in str(error.value)
    assert "--skip-bad" in str(error.value)


def test_only_the_validation_split_is_looked_at_when_only_it_is_used(damaged: DataSource) -> None:
    report = audit(damaged, val_only=True)
    assert (report.looked_at, [b.id for b in report.bad]) == (6, ["val/dog/1.png"])


def test_bad_images_can_be_left_out(damaged: DataSource) -> None:
    kept = audit(damaged).without_bad(damaged)
    assert (len(kept.train), len(kept.val)) == (6, 5)
    assert "val/dog/1.png" not in kept.val.ids
    assert [kept.classes[label] for label in kept.val.labels] == ["cat"] * 3 + ["dog"] * 2
    assert audit(kept).bad == ()
    assert kept.val.digest() != kept.train.digest()


def test_files_of_other_kinds_are_named_and_not_passed_over(tmp_path: Path) -> None:
    """A folder of videos or raw files must not shrink in silence."""
    root = folder(tmp_path / "pets", images=1)
    for name in ("clip.mp4", "raw.cr2", "no_suffix", "labels.csv", "page.jpg"):
        (root / "train" / "cat" / name).write_bytes(b"<html>none of these is an image</html>")
    bad = audit(open_data(str(root))).bad
    assert [b.id for b in bad] == [
        f"train/cat/{n}" for n in ("clip.mp4", "labels.csv", "no_suffix", "page.jpg", "raw.cr2")
    ]
    assert all("is not an image" in b.reason for b in bad)


def test_an_image_with_the_wrong_suffix_is_read(tmp_path: Path) -> None:
    root = folder(tmp_path / "pets", images=1)
    (root / "train" / "cat" / "0.png").rename(root / "train" / "cat" / "0.JPEG")
    assert audit(open_data(str(root))).bad == ()


def test_every_odd_but_sound_image_passes(tmp_path: Path) -> None:
    root = folder(tmp_path / "pets", images=1)
    for mode, suffix in (("CMYK", "jpg"), ("P", "png"), ("I;16", "png"), ("RGBA", "png"), ("LA", "png"), ("1", "png")):
        Image.new(mode, (20, 20)).save(root / "train" / "cat" / f"odd-{mode.replace(';', '')}.{suffix}")
    report = audit(open_data(str(root)))
    assert (report.looked_at, report.bad) == (10, ())


def test_a_file_that_is_gone_is_in_the_list(tmp_path: Path) -> None:
    root = folder(tmp_path / "pets")
    source = open_data(str(root))
    (root / "val" / "cat" / "2.png").unlink()
    assert [b.id for b in audit(source).bad] == ["val/cat/2.png"]


def test_a_broken_file_in_a_decoder_with_errors_of_its_own_is_in_the_list(tmp_path: Path) -> None:
    """BLP's error is a NotImplementedError: it once ended the audit instead of joining the list."""
    root = folder(tmp_path / "pets")
    path = root / "train" / "dog" / "x.blp"
    Image.new("P", (16, 16)).save(path)
    content = bytearray(path.read_bytes())
    content[4] = 77  # the compression
    path.write_bytes(content)
    (root / "val" / "dog" / "zz.png").write_bytes(b"")
    assert [b.id for b in audit(open_data(str(root))).bad] == ["train/dog/x.blp", "val/dog/zz.png"]


def test_a_class_without_one_readable_image_is_an_error(tmp_path: Path) -> None:
    root = folder(tmp_path / "pets", images=1)
    (root / "val" / "dog" / "0.png").write_bytes(b"broken")
    source = open_data(str(root))
    with pytest.raises(DataError, match=r"1 of 2 classes have no image in val \(dog\)"):
        audit(source).without_bad(source)


def test_a_split_without_one_readable_image_is_an_error(tmp_path: Path) -> None:
    root = folder(tmp_path / "pets", images=1)
    for path in root.glob("val/*/*.png"):
        path.write_bytes(b"broken")
    source = open_data(str(root))
    with pytest.raises(DataError, match="the split val has no images"):
        audit(source).without_bad(source)


def test_a_long_list_is_cut_and_counted(tmp_path: Path) -> None:
    root = folder(tmp_path / "pets")
    for i in range(SHOWN + 5):
        (root / "train" / "cat" / f"bad{i:03d}.jpg").write_bytes(b"")
    with pytest.raises(DataError) as error:
        audit(open_data(str(root))).raise_if_bad()
    assert "25 of 37 images" in str(error.value)
    assert "... and 5 more" in str(error.value)
    assert str(error.value).count("cat/bad0") == SHOWN
