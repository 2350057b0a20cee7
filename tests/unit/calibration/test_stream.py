"""Streams: shards behind a URL and Hugging Face sets. Every image once an epoch, the same order anew, exact resume."""

from __future__ import annotations

import hashlib
import io
import pickle
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from shard_files import picture, write_shards, write_tar

from calibration import remote
from calibration import stream as streams
from calibration.audit import audit, images_to_check
from calibration.augment import Augmentation
from calibration.dataset import DataError, DataSource, Encoded, Stream
from calibration.loader import read_ahead, train_loader
from calibration.preprocess import EvalTransform
from calibration.remote import UrlShards
from calibration.sampler import calibration_subset
from calibration.sources import open_data
from calibration.stream import balanced, interleaved, kept_split, shuffled

AUGMENTED = Augmentation().transform(EvalTransform((3, 16, 16), (0.5,) * 3, (0.5,) * 3, 0.9, "bicubic"))
TRAIN = 21


class Server(ThreadingHTTPServer):
    """Serves a folder; `cut` answers to come break off after 3,000 bytes, each with the length of the whole file."""

    daemon_threads = True
    cut = 0

    def __init__(self, folder: Path):
        super().__init__(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.asked: Counter[str] = Counter()


class Handler(SimpleHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked[self.path] += 1
        super().do_GET()

    def copyfile(self, source: io.BufferedReader, outputfile: io.BufferedIOBase) -> None:  # type: ignore[override]
        if self.server.cut and self.path.endswith(".tar"):
            self.server.cut -= 1
            outputfile.write(source.read(3000))
        else:
            super().copyfile(source, outputfile)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("EDGE_T2T_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "PAUSE_S", 0.01)
    write_shards(tmp_path / "pets")
    with Server(tmp_path) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def spec(server: Server) -> str:
    return f"wds/http://127.0.0.1:{server.server_address[1]}/pets"


@pytest.fixture
def parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same pictures as a Hugging Face set of parquet files: three of training images, one of validation."""
    import datasets

    monkeypatch.setenv("EDGE_T2T_CACHE", str(tmp_path / "cache"))
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog", "cow"])})
    root = tmp_path / "hub" / "pets"
    root.mkdir(parents=True)
    parts = {
        "train-0": range(7), "train-1": range(7, 13), "train-2": range(13, TRAIN), "validation-0": range(TRAIN, 27),
    }  # fmt: skip
    for name, numbers in parts.items():
        rows = [{"image": {"bytes": picture(n), "path": f"{n}.png"}, "label": n % 3} for n in numbers]
        datasets.Dataset.from_list(rows, features=features).to_parquet(str(root / f"{name}.parquet"))
    return root


def epoch(train: object, batch_size: int = 4, **options: object) -> list[tuple[torch.Tensor, ...]]:
    return list(train_loader(train, AUGMENTED, batch_size, **{"seed": 1, "epoch": 0, **options}))  # type: ignore[arg-type]


def contents(feed: object, seed: int = 0, epoch: int = 0, shard: tuple[int, int] = (0, 1)) -> list[str]:
    return [hashlib.sha256(s.content).hexdigest() for s in feed.one_pass(seed, epoch, shard)]  # type: ignore[attr-defined]


ALL = sorted(hashlib.sha256(picture(n)).hexdigest() for n in range(TRAIN))


def look_at(source: DataSource) -> None:
    """What holds for every stream of the 21 pictures."""
    train = source.train
    assert isinstance(train, Stream)
    assert len(train) == TRAIN
    assert source.val.labels.tolist() == [n % 3 for n in range(TRAIN, 27)]
    assert source.val.content_digest(0) == hashlib.sha256(picture(TRAIN)).hexdigest()
    first = contents(train.feed, seed=0, epoch=0)
    assert sorted(first) == ALL
    assert first == contents(train.feed, seed=0, epoch=0)
    assert len({tuple(first), tuple(contents(train.feed, 0, 1)), tuple(contents(train.feed, 1, 0)), tuple(ALL)}) == 4
    for world in (2, 3, 5):
        parts = [contents(train.feed, 3, 1, (rank, world)) for rank in range(world)]
        assert sorted(c for part in parts for c in part) == ALL
        assert all(parts)

    whole = epoch(train)
    assert [len(labels) for _, labels, _ in whole] == [4] * 5
    for workers, start in ((0, 2), (2, 2), (2, 0)):
        again = epoch(train, start_step=start, workers=workers)
        assert len(again) == 5 - start
        for (a, la, i), (b, lb, j) in zip(whole[start:], again, strict=True):
            assert torch.equal(a, b)
            assert torch.equal(la, lb)
            assert torch.equal(i, j)
    halves = [epoch(train, batch_size=2, shard=(rank, 2)) for rank in range(2)]
    assert [len(h) for h in halves] == [5, 5]
    assert not set(torch.cat([i for _, _, i in halves[0]]).tolist()) & set(
        torch.cat([i for _, _, i in halves[1]]).tolist()
    )

    assert len(source.pool) == TRAIN  # fewer than are kept of a large set
    assert len(calibration_subset(source.pool.labels, 6, 0)) == 6
    assert audit(source).looked_at == images_to_check(source) == TRAIN + 6
    assert pickle.loads(pickle.dumps(train.pool)).digest() == source.pool.digest()


def test_shards_behind_a_url_are_a_stream(server: Server) -> None:
    source = open_data(spec(server))
    assert (source.name, source.classes) == ("pets", ("0", "1", "2"))
    look_at(source)
    assert source.train.digest() == open_data(spec(server)).train.digest()


def test_a_hugging_face_set_is_a_stream(parquet: Path) -> None:
    source = open_data(f"hfids/{parquet}|{TRAIN}")
    assert source.classes == ("cat", "dog", "cow")
    look_at(source)


def test_validation_and_pool_are_read_once_and_kept(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    before = open_data(spec(server))
    assert "6 images, 0.0 MB, kept in" in capsys.readouterr().err
    assert server.asked["/pets/data-validation-0000.tar"] == server.asked["/pets/data-train-0000.tar"] == 1
    again = open_data(spec(server))
    assert server.asked["/pets/data-validation-0000.tar"] == server.asked["/pets/data-train-0000.tar"] == 1
    assert again.val.digest() == before.val.digest()
    assert again.pool.ids == before.pool.ids


def test_what_is_kept_is_made_anew_when_it_was_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_T2T_CACHE", str(tmp_path))
    reads = []

    def read() -> Iterator[Encoded]:
        reads.append(1)
        yield from (Encoded(picture(n), n, f"{n}.png") for n in range(3))

    digest = kept_split("val", "x", "1", read).digest()
    (pack,) = tmp_path.rglob("*.pack")
    pack.write_bytes(pack.read_bytes()[:-1] + b"?")
    assert kept_split("val", "x", "1", read).digest() == digest
    assert len(reads) == 2
    assert kept_split("val", "x", "2", read).ids == ("0.png", "1.png", "2.png")
    assert len(reads) == 3


def test_a_stream_that_breaks_off_while_it_is_kept_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_T2T_CACHE", str(tmp_path))

    def read() -> Iterator[Encoded]:
        yield Encoded(picture(0), 0, "0.png")
        raise DataError("gone")

    with pytest.raises(DataError, match="gone"):
        kept_split("val", "x", "1", read)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_a_connection_that_breaks_is_taken_up_again(server: Server) -> None:
    train = open_data(spec(server)).train
    expected = contents(train.feed)
    server.cut = 2
    assert contents(train.feed) == expected
    assert server.cut == 0


def test_a_shard_that_never_comes_whole_is_told(server: Server, tmp_path: Path) -> None:
    train = open_data(spec(server)).train
    server.cut = 100
    with pytest.raises(DataError, match=r"data-train-000\d\.tar cannot be read after 4 tries"):
        contents(train.feed)
    server.cut = 0
    write_tar(tmp_path / "pets" / "data-train-0001.tar", [("0.png", picture(0)), ("0.cls", b"0")])
    with pytest.raises(DataError, match=r"data-train-0001\.tar cannot be read after 4 tries: it ended after 1 samples"):
        contents(train.feed)
    (tmp_path / "pets" / "data-train-0001.tar").unlink()
    with pytest.raises(DataError, match=r"data-train-0001\.tar cannot be had: HTTP 404"):
        contents(train.feed)


def test_shards_behind_a_url_need_an_info_file(server: Server, tmp_path: Path) -> None:
    (tmp_path / "pets" / "_info.json").unlink()
    with pytest.raises(DataError, match=r"has no _info\.json: shards behind a URL need one"):
        open_data(spec(server))


def test_names_of_classes_lie_beside_the_shards(server: Server, tmp_path: Path) -> None:
    (tmp_path / "pets" / "classnames.txt").write_text("cat\ndog\ncow\n")
    assert open_data(spec(server)).classes == ("cat", "dog", "cow")


def test_a_protocol_that_nothing_speaks_is_told() -> None:
    with pytest.raises(DataError, match=r"has no _info\.json"):
        open_data("wds/nonsense://somewhere/pets")
    with pytest.raises(DataError, match="install what fsspec needs for nonsense"):
        list(UrlShards(("nonsense://x/0.tar",), (1,)).samples(0))


def test_a_broken_image_stops_a_stream_or_is_left_out(server: Server, tmp_path: Path) -> None:
    members = []
    for n in range(13, TRAIN):
        members += [(f"{n:05d}.png", picture(n)[: 60 if n == 15 else None]), (f"{n:05d}.cls", b"1")]
    source = open_data(spec(server))
    write_tar(tmp_path / "pets" / "data-train-0002.tar", members)
    with pytest.raises(DataError, match=r"00015\.png cannot be decoded"):
        epoch(source.train)
    left = audit(source).without_bad(source).train
    assert sum(len(labels) for _, labels, _ in epoch(left)) in (19, 20)  # 20 of 21 are shown


def test_a_label_without_a_class_in_the_middle_of_a_stream_is_told(server: Server, tmp_path: Path) -> None:
    source = open_data(spec(server))
    members = [m for n in range(8) for m in ((f"{n}.png", picture(n)), (f"{n}.cls", b"7"))]
    write_tar(tmp_path / "pets" / "data-train-0002.tar", members)
    with pytest.raises(DataError, match="has label 7, and there are 3 classes"):
        epoch(source.train)


def test_an_epoch_longer_than_the_stream_begins_it_anew(parquet: Path) -> None:
    train = open_data(f"hfids/{parquet}|40").train
    indices = torch.cat([i for _, _, i in epoch(train)])
    assert indices.tolist() == list(range(40))


@pytest.mark.parametrize(
    ("suffix", "told"),
    [("", "does not say how many training images it has"), ("|many", "not 'many'"), ("|0", "not '0'")],
)
def test_a_stream_of_unknown_length_is_told(suffix: str, told: str, parquet: Path) -> None:
    with pytest.raises(DataError, match=told):
        open_data(f"hfids/{parquet}{suffix}")


def test_a_hugging_face_set_without_validation_or_images_is_told(parquet: Path) -> None:
    import datasets

    validation = parquet / "validation-0.parquet"
    datasets.Dataset.from_dict({"text": ["a"], "label": [1]}).to_parquet(str(validation))
    for file in parquet.glob("train*"):
        shutil.copy(validation, file)
    with pytest.raises(DataError, match="has no column of images: it has text, label"):
        open_data(f"hfids/{parquet}|3")
    validation.unlink()
    with pytest.raises(DataError, match="has no split validation, val or test"):
        open_data(f"hfids/{parquet}|3")


def test_a_changed_hugging_face_set_is_read_anew(parquet: Path) -> None:
    import datasets

    before = open_data(f"hfids/{parquet}|{TRAIN}").val.digest()
    file = str(parquet / "validation-0.parquet")
    rows = datasets.Dataset.from_parquet(file).cast_column("image", datasets.Image(decode=False)).to_list()
    rows[0]["image"]["bytes"] = picture(99)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog", "cow"])})
    datasets.Dataset.from_list(rows, features=features).to_parquet(file)
    assert open_data(f"hfids/{parquet}|{TRAIN}").val.digest() != before


def test_shards_are_read_in_turn_and_followed_by_the_next() -> None:
    parts = (iter(p) for p in ("ab", "", "cdef", "g", "hi"))
    assert "".join(interleaved(parts, 2)) == "acbdgehfi"


def test_the_buffer_gives_every_item_once_and_mixes_near_ones() -> None:
    given = list(shuffled(iter(range(1000)), 50, np.random.default_rng(0)))
    assert sorted(given) == list(range(1000))
    assert given != sorted(given)
    assert max(i - item for i, item in enumerate(given)) > 50 > -min(i - item for i, item in enumerate(given)) - 1


def test_the_pool_is_even_by_class_within_what_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "POOL", 12)
    monkeypatch.setattr(streams, "LOOK_AHEAD", 50)

    class Rare:
        """Class 2 comes once in fifty images, and a 3 only later."""

        def one_pass(self, seed: int, epoch: int, shard: tuple[int, int]) -> Iterator[Encoded]:
            labels = [0, 1] * 24 + [2, 0] + [3] * 10
            yield from (Encoded(b"", label, str(n)) for n, label in enumerate(labels))

    labels = Counter(s.label for s in balanced(Rare(), 4))  # type: ignore[arg-type]
    assert labels == {0: 3, 1: 3, 2: 1}


def test_reading_ahead_keeps_order_and_errors_and_ends() -> None:
    assert list(read_ahead(iter(range(100)), 3)) == list(range(100))

    def failing() -> Iterator[int]:
        yield 1
        raise DataError("gone")

    items = read_ahead(failing(), 3)
    assert next(items) == 1
    with pytest.raises(DataError, match="gone"):
        next(items)
    endless = read_ahead(iter(int, 1), 2)
    assert next(endless) == 0
    endless.close()  # type: ignore[attr-defined]
    for thread in threading.enumerate():
        if thread.name.startswith("read ahead"):
            thread.join(5)
            assert not thread.is_alive()


def test_the_pixels_of_a_streamed_image_are_those_of_its_file(server: Server) -> None:
    def pixels(image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.asarray(image).copy())

    source = open_data(spec(server))
    seen = [row for rows, _, _ in train_loader(source.train, pixels, 7, seed=0, epoch=0) for row in rows]
    files = {np.asarray(Image.open(io.BytesIO(picture(n)))).tobytes() for n in range(TRAIN)}
    assert {row.numpy().tobytes() for row in seen} == files
