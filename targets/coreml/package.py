"""Seal the content of an `.mlpackage` when it is saved, and compare it with the seal before it is used.

Core ML and coremltools load a package whose weights were changed by a flipped byte without a word. The seal is a
sha256 in the package's own user-defined metadata, so it travels with the folder; it guards against damage, not
against someone who writes a new seal.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

#: Names of the image that goes into a package and of the scores that come out.
INPUT, OUTPUT = "images", "logits"
#: Of our keys in the user-defined metadata.
PREFIX = "edge_t2t."
SEAL = f"{PREFIX}content_sha256"

_MANIFEST = "Manifest.json"
_DATA = "Data"


def missing(path: Path) -> str:
    """Why there is no package folder at `path`; empty where there is one."""
    if path.is_dir():
        return ""
    what = "is a file, not a package folder" if path.exists() else "does not exist"
    return f"{path.name} {what}: convert the model first"


def seal(path: Path) -> str:
    """Write the digest of the package at `path` into its metadata, and return it; a second seal replaces the first.

    Raises:
        ValueError: the folder is no package.
    """
    model_file, weights = _parts(path)
    model = _read_model(path, model_file)
    digest = _digest(model, weights)
    model.description.metadata.userDefined[SEAL] = digest
    model_file.write_bytes(model.SerializeToString(deterministic=True))
    return digest


def check_seal(path: Path) -> bool:
    """Whether the package at `path` carries a seal; True only if its content is what was sealed.

    Returns:
        False for a package that this program did not write: there is nothing to compare.

    Raises:
        ValueError: the content changed (both digests are told), the seal of one of our packages is gone, or the folder
            is no package.
    """
    model_file, weights = _parts(path)
    model = _read_model(path, model_file)
    metadata = model.description.metadata.userDefined
    if SEAL not in metadata:
        if ours := sorted(key for key in metadata if key.startswith(PREFIX)):
            raise ValueError(
                f"{path.name} has {ours[0]} in its metadata and no {SEAL}: it was changed after it was written, or is "
                "of an earlier version; convert again"
            )
        return False
    sealed, found = metadata[SEAL], _digest(model, weights)
    if sealed != found:
        raise ValueError(
            f"{path.name} changed after it was written (content sha256 {found}, sealed {sealed}): do not trust it, "
            "convert again"
        )
    return True


def _digest(model: Any, weights: list[tuple[str, Path]]) -> str:
    """sha256 over the whole Model message without its seal, and over name, size and bytes of every weights file."""
    unsealed = type(model)()
    unsealed.CopyFrom(model)
    unsealed.description.metadata.userDefined.pop(SEAL, None)
    content = unsealed.SerializeToString(deterministic=True)
    total = hashlib.sha256(f"model {len(content)}\n".encode())
    total.update(content)
    for name, file in weights:
        data = file.read_bytes()
        total.update(f"\nweights {json.dumps(name)} {len(data)}\n".encode())
        total.update(data)
    return total.hexdigest()


def _parts(path: Path) -> tuple[Path, list[tuple[str, Path]]]:
    """The model file that the manifest names as the root, and all other files of the package's data, sorted by name."""
    try:
        manifest = json.loads((path / _MANIFEST).read_bytes())
        root = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"]
        model_file = path / _DATA / root
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path.name} is no Core ML package ({_MANIFEST}: {type(error).__name__}: {error}): convert again"
        ) from error
    if not model_file.is_file():
        raise ValueError(f"{path.name} lacks {_DATA}/{root}, which its {_MANIFEST} names: convert again")
    data = path / _DATA
    files = [file for file in sorted(data.rglob("*")) if file.is_file() and file != model_file]
    return model_file, [(file.relative_to(data).as_posix(), file) for file in files]


# Any: coremltools' protobuf classes are untyped.
def _read_model(path: Path, model_file: Path) -> Any:
    from coremltools.proto import Model_pb2
    from google.protobuf.message import DecodeError

    model = Model_pb2.Model()
    try:
        model.ParseFromString(model_file.read_bytes())
    except DecodeError as error:
        raise ValueError(f"{path.name}: {model_file.name} is no Core ML model ({error}): convert again") from error
    return model
