"""The program that a device behind SSH runs for questions beside its worker: is a file there, is there room, move it.

Its only argument is a JSON request, its reply one JSON line behind the request's mark.

The text of this file is sent to the device's Python, so it needs nothing but the standard library of 3.11. `digest`
is also called here, so that both sides mean the same by it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

# What was never finished, and images that nobody asked for, are no one's after a day.
STALE_S = 86400
IMAGES = "images"


def digest(path: Path) -> tuple[str, int]:
    """sha256 and bytes of a file; of a folder, of the list of its files with their own digests.

    Raises:
        OSError: not there, or a link or another special file is among it.
    """
    if path.is_file() and not path.is_symlink():
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest(), path.stat().st_size
    if path.is_symlink() or not path.is_dir():
        raise OSError(f"{path.name} is neither a file nor a folder")
    lines, total = [], 0
    for inner in sorted(path.iterdir(), key=lambda inner: inner.name):
        found, size = digest(inner)
        lines.append(json.dumps([inner.name, inner.is_dir(), found]))
        total += size
    return hashlib.sha256("\n".join(lines).encode()).hexdigest(), total


def about(request: dict[str, Any]) -> dict[str, Any]:
    """The folder of this project there, made if it is missing, and what this Python has."""
    root = Path.home() / request["folder"]
    for part in ("code", "files", IMAGES, "tmp"):
        (root / part).mkdir(parents=True, exist_ok=True)
    try:
        import numpy

        version = numpy.__version__
    except Exception as error:  # a broken build raises what it likes
        version = f"does not import ({type(error).__name__}: {error})"
    return {"root": str(root), "numpy": version}


def look(request: dict[str, Any]) -> dict[str, Any]:
    """The digest of what is at `path`, null where nothing usable is; the room beside it."""
    path = Path(request["path"])
    _sweep(path.parent)
    try:
        found = digest(path)[0]
        os.utime(path)
    except OSError:
        found = None
    return {"sha256": found, "free_bytes": shutil.disk_usage(path.parent).free}


def accept(request: dict[str, Any]) -> dict[str, Any]:
    """Move `part` to `path` if it has the digest that was announced; whatever else was at `path` is gone then."""
    part, path = Path(request["part"]), Path(request["path"])
    found, size = digest(part)
    if found == request["sha256"]:
        _remove(path)
        os.replace(part, path)
    else:
        _remove(part)
    return {"sha256": found, "size": size}


def drop(request: dict[str, Any]) -> dict[str, Any]:
    """Remove `part`, which will not be finished."""
    _remove(Path(request["part"]))
    return {"free_bytes": shutil.disk_usage(Path(request["part"]).parent).free}


def _sweep(folder: Path) -> None:
    for part in folder.glob("*" if folder.name == IMAGES else ".part-*"):
        try:
            if time.time() - part.stat().st_mtime > STALE_S:
                _remove(part)
        except OSError:
            continue


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def main() -> None:
    request = json.loads(sys.argv[1])
    operation = {"about": about, "look": look, "accept": accept, "drop": drop}[request["op"]]
    try:
        reply = operation(request)
    except OSError as error:
        reply = {"error": str(error)}
    print(request["mark"] + json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
