"""Opens data sets of WebDataset shards: those on this disk with random access, those behind a URL as a stream.

Which shards belong to which split, timm's way: `_info.json` (or `info.json`) beside them,
`{"splits": {"train": {"name": ..., "num_samples": N, "filenames": [...], "shard_lengths": [...], "alt_label": ...}}}`.
Without it, on this disk, by their names: `train/*.tar`, `*train*.tar`. `classnames.txt` beside them has the names of
the classes, one a line; else they are called by their numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from calibration import remote
from calibration.dataset import DataError, DataSource, Split
from calibration.shards import split_of
from calibration.stream import ShuffledShards, kept_split, streamed

PREFIX = "wds/"
INFO = ("_info.json", "info.json")
CLASS_NAMES = "classnames.txt"
TRAIN = ("train", "training")
VAL = ("validation", "val", "test")


@dataclass(frozen=True)
class ShardList:
    """The shards of one split as `_info.json` tells them; without it `lengths` is empty."""

    split: str
    filenames: tuple[str, ...]
    lengths: tuple[int, ...] = ()
    label_field: str = ""


def holds_shards(folder: Path) -> bool:
    """Whether a folder has WebDataset shards and not class folders."""
    if any(_by_name(folder, names) for names in (TRAIN, VAL)):
        return True
    named = any((folder / name).is_file() for name in INFO)
    return named and any(p for pattern in ("*.tar", "*/*.tar") for p in folder.glob(pattern))


def load(spec: str) -> DataSource:
    """
    Raises:
        DataError: no shards of one of the splits, shards that cannot be read, no `_info.json` at a URL.
    """
    place = spec[len(PREFIX) :] if spec.lower().startswith(PREFIX) else spec
    if "://" in place:
        return _load_remote(spec, place.rstrip("/"))
    folder = Path(place)
    if not folder.is_dir():
        raise DataError(f"--data {spec}: {folder} is no folder: give wds/ and a folder of .tar shards, or their URL")
    return load_folder(folder)


def load_folder(folder: Path) -> DataSource:
    """Both splits of a folder of shards, with random access."""
    listed = next((folder / name for name in INFO if (folder / name).is_file()), None)
    info = None if listed is None else _parsed(listed.read_bytes(), str(listed))
    train, val = (_open(folder, info, names) for names in (TRAIN, VAL))
    lines = folder / CLASS_NAMES
    names = lines.read_text(encoding="utf-8") if lines.is_file() else None
    return DataSource(folder.name or str(folder), _classes(names, train, val), train, val)


def _open(folder: Path, info: Mapping[str, Any] | None, names: tuple[str, ...]) -> Split:
    shards = _by_name(folder, names) if info is None else _declared(info, names, str(folder))
    if shards is None:
        found = sorted(p.name for p in folder.iterdir())[:8]
        raise DataError(
            f"{folder} has no shards {names[0]}/*.tar or *{names[0]}*.tar, and no _info.json that lists them: "
            f"it holds {', '.join(found) or 'nothing'}"
        )
    paths = [folder / name for name in shards.filenames]
    return split_of(shards.split, paths, shards.label_field, shards.lengths)


def _by_name(folder: Path, names: tuple[str, ...]) -> ShardList | None:
    """The shards of the first of `names` that has any, in sorted order."""
    for name in names:
        found = sorted((folder / name).glob("*.tar")) or sorted(
            p for p in folder.glob("*.tar") if name in _words(p.stem)
        )
        if found:
            return ShardList(name, tuple(p.relative_to(folder).as_posix() for p in found))
    return None


def _words(stem: str) -> list[str]:
    return "".join(c if c.isalnum() else " " for c in stem.lower()).split()


def _parsed(content: bytes, name: str) -> Mapping[str, Any]:
    try:
        info = json.loads(content)
        return dict(info["splits"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{name} lists no splits ({error!r}): see timm's reader_wds for its form") from None


def _declared(splits: Mapping[str, Any], names: tuple[str, ...], where: str) -> ShardList:
    """The first of the splits `names` that `_info.json` lists.

    Raises:
        DataError: it lists none, or lacks files or lengths.
    """
    name = next((n for n in names if n in splits), None)
    if name is None:
        raise DataError(f"_info.json of {where} has no split {names[0]}: it lists {', '.join(splits) or 'nothing'}")
    try:
        values = splits[name]
        shards = ShardList(
            name,
            tuple(map(str, values["filenames"])),
            tuple(map(int, values["shard_lengths"])),
            str(values.get("alt_label") or ""),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"_info.json of {where}: the split {name} needs filenames and shard_lengths ({error!r})"
        ) from None
    if not shards.filenames or len(shards.filenames) != len(shards.lengths):
        raise DataError(
            f"_info.json of {where}: {name} has {len(shards.filenames)} filenames and {len(shards.lengths)} lengths"
        )
    return shards


def _classes(names: str | None, *splits: Split) -> tuple[str, ...]:
    """
    Args:
        names: the text of `classnames.txt`.
    """
    if names is not None:
        return tuple(line.strip() for line in names.splitlines() if line.strip())
    highest = max(int(np.max(split.labels, initial=-1)) for split in splits)
    return tuple(str(i) for i in range(highest + 1))


def _load_remote(spec: str, root: str) -> DataSource:
    content = remote.read(f"{root}/{INFO[0]}", missing_ok=True) or remote.read(f"{root}/{INFO[1]}", missing_ok=True)
    if content is None:
        raise DataError(
            f"{root} has no {INFO[0]}: shards behind a URL need one, with filenames, shard_lengths and num_samples of "
            "each split (timm's form)"
        )
    splits = _parsed(content, f"{root}/_info.json")
    train, val = (_declared(splits, names, root) for names in (TRAIN, VAL))
    train_feed, val_feed = (
        ShuffledShards(remote.UrlShards(tuple(f"{root}/{name}" for name in s.filenames), s.lengths, s.label_field))
        for s in (train, val)
    )
    kept = kept_split(val.split, spec, val_feed.identity(), val_feed.in_order)
    names = remote.read(f"{root}/{CLASS_NAMES}", missing_ok=True)
    classes = _classes(None if names is None else names.decode(), kept)
    name = root.rsplit("/", 1)[-1] or root
    return DataSource(name, classes, streamed(train.split, spec, train_feed, sum(train.lengths), len(classes)), kept)
