"""What a package says of itself: a seal over its content, and the preprocessing that it does inside.

Core ML and coremltools load a package whose weights were changed by a flipped byte without a word. The seal is a
sha256 in the package's own user-defined metadata, so it travels with the folder; it guards against damage, not
against someone who writes a new seal.

A package with an image input takes pixels of 0..255, any other one normalised floats. The record in the package's
metadata says which of the two it wants.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
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


_INPUT, _MEAN, _STD = f"{PREFIX}input", f"{PREFIX}mean", f"{PREFIX}std"
_IMAGE = "image"


@dataclass(frozen=True)
class Preprocessing:
    """(pixel / 255 - mean) / std for each channel in the order R, G, B; `mean` and `std` are of pixels in 0..1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.mean or len(self.mean) != len(self.std) or not all(s > 0 for s in self.std):
            raise ValueError(f"mean {self.mean} and std {self.std}: one of each for a channel, std above 0")

    def terms(self) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
        """(whole, rest, factor) for each channel, with ((pixel - whole) - rest) * factor equal to the formula above.

        `whole` is 255 * mean to the nearest integer and `rest` what is left, so that in half precision, too, the first
        difference is exact and each later step rounds relative to the result. pixel / 255 - mean would lose the digits
        that cancel: up to 1e-3 of a standard deviation near the mean.
        """
        shift = [255.0 * m for m in self.mean]
        whole = [float(round(s)) for s in shift]
        return (
            tuple(whole),
            tuple(s - w for s, w in zip(shift, whole, strict=True)),
            tuple(1 / (255.0 * s) for s in self.std),
        )


def record(preprocessing: Preprocessing) -> dict[str, str]:
    """What `read` needs, as user-defined metadata of a package."""
    return {_INPUT: _IMAGE, _MEAN: json.dumps(preprocessing.mean), _STD: json.dumps(preprocessing.std)}


def read(metadata: Mapping[str, str]) -> Preprocessing | None:
    """The preprocessing inside a package with this user-defined metadata; None where it takes normalised images.

    Raises:
        ValueError: the metadata say that it takes an image, and not with what mean and std.
    """
    if _INPUT not in metadata:
        return None
    try:
        if metadata[_INPUT] != _IMAGE:
            raise ValueError(f"unknown input {metadata[_INPUT]!r}")
        mean, std = (tuple(float(value) for value in json.loads(metadata[key])) for key in (_MEAN, _STD))
        return Preprocessing(mean, std)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"the package's {PREFIX}* metadata do not tell its preprocessing ({type(error).__name__}: {error}): "
            "convert again"
        ) from error
