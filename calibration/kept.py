"""Images of a stream in, a split of them on this disk out: read once, and found again by what they are."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from calibration.dataset import Encoded, Split
from calibration.errors import DataError
from calibration.hub import cache_folder
from calibration.shards import PackedImages

FOLDER = "streams"


def kept_split(name: str, spec: str, identity: str, read: Callable[[], Iterator[Encoded]]) -> Split:
    """The split `name` of `spec`, from the cache where it is there and whole, else read now and kept.

    One file with the images one after the other, and one beside it, written last, that says where each is.

    Raises:
        DataError: the stream cannot be read, or the cache cannot be written.
    """
    key = hashlib.sha256(f"{name}\0{identity}".encode()).hexdigest()[:24]
    folder = cache_folder() / FOLDER / key
    pack, index = folder / f"{name}.pack", folder / f"{name}.json"
    split = _opened(name, pack, index)
    if split is not None:
        return split
    print(f"reading images of {name} from {spec} once, into {folder}", file=sys.stderr, flush=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(pack, index, read(), spec)
    except OSError as error:
        raise DataError(f"{folder} cannot be written ({error.strerror or error}): set EDGE_T2T_CACHE") from None
    split = _opened(name, pack, index)
    assert split is not None  # written just now
    print(f"{len(split)} images, {pack.stat().st_size / 1e6:.1f} MB, kept in {folder}", file=sys.stderr, flush=True)
    return split


def _write(pack: Path, index: Path, samples: Iterator[Encoded], spec: str) -> None:
    entries: list[tuple[str, int, int]] = []
    digest = hashlib.sha256()
    handle, temporary = tempfile.mkstemp(prefix=f".{pack.name}.", dir=pack.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            for sample in samples:
                file.write(sample.content)
                digest.update(sample.content)
                entries.append((sample.id, sample.label, len(sample.content)))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, pack)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    facts = {"of": spec, "sha256": digest.hexdigest(), "images": entries}
    aside = index.with_name(f".{index.name}.{os.getpid()}")
    aside.write_text(json.dumps(facts))
    os.replace(aside, index)


def _opened(name: str, pack: Path, index: Path) -> Split | None:
    """None if it is not there or not whole."""
    try:
        facts = json.loads(index.read_text())
        with pack.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != facts["sha256"]:
                return None
        entries = [(str(i), int(label), int(size)) for i, label, size in facts["images"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    ids = tuple(i for i, _, _ in entries)
    sizes = np.array([size for _, _, size in entries], dtype=np.int64)
    images = PackedImages((pack,), np.zeros(len(entries), dtype=np.int32), np.cumsum(sizes) - sizes, sizes, ids)
    return Split(name, np.array([label for _, label, _ in entries], dtype=np.int64), ids, images, np.arange(len(ids)))
