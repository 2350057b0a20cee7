"""WebDataset shards on this disk: the same samples as timm's reader finds, by position, with everything wrong told."""

from __future__ import annotations

import gzip
import hashlib
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from shard_files import picture, write_shards, write_tar

from calibration.audit import audit
from calibration.augment import Augmentation
from calibration.dataset import DataError
from calibration.loader import train_loader
from calibration.preprocess import EvalTransform
from calibration.sources import open_data
from calibration.torchvision_compat import ensure_torchvision

AUGMENTED = Augmentation().transform(EvalTransform((3, 16, 16), (0.5,) * 3, (0.5,) * 3, 0.9, "bicubic"))


def test_timms_reader_finds_the_same_images_and_labels(tmp_path: Path) -> None:
    """webdataset's own reading of tar files, decoded by timm."""
    ensure_torchvision()
    from timm.data import create_dataset

    write_shards(tmp_path)
    source = open_data(f"wds/{tmp_path}")
    for split, name in ((source.pool, "train"), (source.val, "validation")):
        theirs = list(create_dataset("wds/", root=str(tmp_path), split=name))
        assert len(theirs) == len(split) > 0
        for i, (image, label) in enumerate(theirs):
            assert label == split.labels[i]
            assert np.array_equal(np.asarray(image), np.asarray(split.image(i)))


@pytest.mark.parametrize("prefix", ["wds/", ""])
@pytest.mark.parametrize("info", [True, False])
def test_splits_are_found_by_info_file_or_by_name(info: bool, prefix: str, tmp_path: Path) -> None:
    source = open_data(prefix + str(write_shards(tmp_path / "pets", info=info)))
    assert (source.name, source.classes) == ("pets", ("0", "1", "2"))
    assert (len(source.train), len(source.val)) == (21, 6)
    assert source.pool.labels.tolist() == [n % 3 for n in range(21)]
    assert source.pool.ids[7] == "data-train-0001.tar/00007.png"
    assert source.val.content_digest(0) == hashlib.sha256(picture(21)).hexdigest()


def test_shards_in_a_folder_for_each_split_and_names_of_classes(tmp_path: Path) -> None:
    write_shards(tmp_path / "all", info=False)
    for split in ("train", "validation"):
        (tmp_path / "set" / split).mkdir(parents=True)
        for shard in sorted((tmp_path / "all").glob(f"*{split}*")):
            shutil.copy(shard, tmp_path / "set" / split / shard.name[-8:])
    (tmp_path / "set" / "classnames.txt").write_text("cat\ndog\nKäfer\n", encoding="utf-8")
    source = open_data(str(tmp_path / "set"))
    assert source.classes == ("cat", "dog", "Käfer")
    assert len(source.train) == 21


def test_the_label_may_stand_in_a_field_of_json(tmp_path: Path) -> None:
    """timm's `alt_label`; samples with a negative one are left out."""
    for split, first in (("train", 0), ("val", 5)):
        members = []
        for n in range(first, first + 5):
            label = -1 if n == 2 else n % 2
            members += [(f"{n}.png", picture(n)), (f"{n}.json", json.dumps({"kind": label}).encode())]
        write_tar(tmp_path / f"{split}.tar", members)
    splits = {
        s: {"name": s, "num_samples": 5, "filenames": [f"{s}.tar"], "shard_lengths": [5], "alt_label": "kind"}
        for s in ("train", "val")
    }
    (tmp_path / "_info.json").write_text(json.dumps({"splits": splits}))
    assert open_data(str(tmp_path)).pool.labels.tolist() == [0, 1, 1, 0]


def test_what_is_no_sample_is_passed_over(tmp_path: Path) -> None:
    write_shards(tmp_path, info=False)
    members = [
        ("__info__.json", b"{}"),
        ("d/._0.png", b"?"),
        ("d/README", b""),
        ("d/0.PNG", picture(0)),
        ("d/0.cls", b"2"),
    ]
    write_tar(tmp_path / "data-train-0000.tar", members)
    train = open_data(str(tmp_path)).pool
    assert train.ids[0] == "data-train-0000.tar/d/0.PNG"
    assert len(train) == 15


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ([("0.cls", b"1")], "0 has no image"),
        ([("0.png", b""), ("0.txt", b"cat")], r"0 has no label \(\.cls\); it has txt"),
        ([("0.png", b""), ("0.cls", b"cat")], "its label is 'cat'"),
        ([("0.png", b""), ("0.jpg", b""), ("0.cls", b"1")], "two images"),
    ],
)
def test_a_sample_that_cannot_be_used_is_told(members: list[tuple[str, bytes]], told: str, tmp_path: Path) -> None:
    write_shards(tmp_path, info=False)
    write_tar(tmp_path / "data-train-0001.tar", members)
    with pytest.raises(DataError, match=rf"shard data-train-0001\.tar: .*{told}"):
        open_data(str(tmp_path))


def test_a_shard_that_is_cut_off_or_compressed_is_told(tmp_path: Path) -> None:
    shard = write_shards(tmp_path, info=False) / "data-train-0002.tar"
    content = shard.read_bytes()
    shard.write_bytes(content[:700])
    with pytest.raises(DataError, match=r"data-train-0002\.tar is no whole tar file"):
        open_data(str(tmp_path))
    shard.write_bytes(gzip.compress(content))
    with pytest.raises(DataError, match=r"must be plain \.tar, not compressed"):
        open_data(str(tmp_path))


def test_another_number_of_samples_than_declared_is_told(tmp_path: Path) -> None:
    write_shards(tmp_path)
    write_tar(tmp_path / "data-train-0000.tar", [("0.png", picture(0)), ("0.cls", b"0")])
    with pytest.raises(DataError, match=r"data-train-0000\.tar has 1 samples, and 7 are declared"):
        open_data(str(tmp_path))


@pytest.mark.parametrize(
    ("info", "told"),
    [
        ("{}", "lists no splits"),
        ('{"splits": {"train": {}}}', "needs filenames and shard_lengths"),
        ('{"splits": {"training": {"filenames": ["a.tar"], "shard_lengths": []}}}', "1 filenames and 0 lengths"),
        ('{"splits": {"test": {}}}', "has no split train: it lists test"),
    ],
)
def test_an_info_file_that_tells_too_little_is_told(info: str, told: str, tmp_path: Path) -> None:
    write_shards(tmp_path)
    (tmp_path / "_info.json").write_text(info)
    with pytest.raises(DataError, match=told):
        open_data(str(tmp_path))


def test_a_place_without_shards_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no folder"):
        open_data("wds/nowhere")
    write_shards(tmp_path, info=False)
    (tmp_path / "data-validation-0000.tar").unlink()
    with pytest.raises(DataError, match=r"no shards validation/\*\.tar"):
        open_data(f"wds/{tmp_path}")


def test_a_broken_image_is_in_the_list_of_the_audit_and_can_be_left_out(tmp_path: Path) -> None:
    write_shards(tmp_path, info=False)
    members = [("a.png", picture(0)[:60]), ("a.cls", b"0"), ("b.png", picture(1)), ("b.cls", b"1")]
    write_tar(tmp_path / "data-train-0002.tar", members)
    source = open_data(str(tmp_path))
    report = audit(source)
    assert [b.id for b in report.bad] == ["data-train-0002.tar/a.png"]
    assert "a.png cannot be decoded" in report.bad[0].reason
    assert len(report.without_bad(source).train) == 14


def test_a_shard_that_shrinks_after_it_was_opened_is_told(tmp_path: Path) -> None:
    train = open_data(str(write_shards(tmp_path))).pool
    shard = tmp_path / "data-train-0002.tar"
    shard.write_bytes(shard.read_bytes()[:600])
    with pytest.raises(DataError, match="it was shortened since"):
        train.image(20)


def test_batches_of_shards_are_exact_for_workers_and_after_a_resume(tmp_path: Path) -> None:
    train = open_data(str(write_shards(tmp_path))).pool
    assert pickle.loads(pickle.dumps(train)).digest() == train.digest()
    whole = list(train_loader(train, AUGMENTED, 4, seed=1, epoch=2))
    rest = list(train_loader(train, AUGMENTED, 4, seed=1, epoch=2, start_step=2, workers=2))
    assert len(whole) == 5
    assert len({train.ids[int(i)].split("/")[0] for i in torch.cat([i for _, _, i in whole[:2]])}) == 3  # all shards
    for (a, labels, i), (b, _, j) in zip(whole[2:], rest, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(i, j)
        assert labels.tolist() == [int(x) % 3 for x in i]
