"""Made-up pictures as WebDataset shards on disk, written by Python's tarfile alone."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = 3


def picture(number: int) -> bytes:
    """A PNG of 20 x 16 pixels that no other number has."""
    pixels = np.random.default_rng(number).integers(0, 256, (16, 20, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def write_shards(
    root: Path, train: tuple[int, ...] = (7, 6, 8), val: tuple[int, ...] = (6,), info: bool = True
) -> Path:
    """Shards `data-train-0000.tar`, ... with so many samples each; label = number of the picture modulo CLASSES."""
    number = 0
    splits = {}
    for split, lengths in (("train", train), ("validation", val)):
        filenames = [f"data-{split}-{i:04d}.tar" for i in range(len(lengths))]
        for filename, length in zip(filenames, lengths, strict=True):
            members = []
            for n in range(number, number + length):
                members += [(f"{n:05d}.png", picture(n)), (f"{n:05d}.cls", str(n % CLASSES).encode())]
            number += length
            write_tar(root / filename, members)
        splits[split] = {
            "name": split,
            "num_samples": sum(lengths),
            "filenames": filenames,
            "shard_lengths": list(lengths),
        }
    if info:
        (root / "_info.json").write_text(json.dumps({"splits": splits}))
    return root
