"""Reads the tensors and metadata of a weights file (.safetensors, .pth, .pt, .pth.tar) without running code in it.

Pickled files are read by torch's weights-only loader with the allow-list below: a file that wants any other class is
refused before that class is touched, so that a hostile file cannot run code.
"""

from __future__ import annotations

import argparse
import json
import pickle
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import WeightsError
from pipeline.files import sha256_of

if TYPE_CHECKING:
    from torch import Tensor

SAFETENSORS_SUFFIXES = (".safetensors",)
PICKLE_SUFFIXES = (".pth", ".pt", ".tar", ".bin", ".ckpt")

#: Where checkpoints keep their tensors, best first. Evaluation figures of both T2T-ViT and timm are of the averaged
#: (EMA) weights where a file holds them.
CONTAINERS = ("state_dict_ema", "state_dict", "model_ema", "model")

#: What DistributedDataParallel and torch.compile put before every name.
WRAPPER_PREFIXES = ("module.", "_orig_mod.")


#: Where files say how their images are prepared: ours, timm's training script, timm's models.
SPEAKERS = ("preprocessing", "args", "pretrained_cfg")


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of one file.

    Attributes:
        tensors: name without wrapper prefixes -> CPU tensor; floating point ones are float32.
        container: which of CONTAINERS they were taken from, or `plain`.
        metadata: text that a safetensors file carries; empty for pickled files.
        said: by SPEAKERS and file name in words, what is in the file beside its tensors.
    """

    path: Path
    sha256: str
    tensors: Mapping[str, Tensor]
    container: str
    metadata: Mapping[str, str]
    said: Mapping[str, Mapping[str, object]]


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a file without running anything in it.

    Raises:
        WeightsError: no such file, another format, damaged, a class that is not on the allow-list (named), no tensors,
            or NaN or infinity in them.
    """
    check_readable(path)
    if path.suffix in SAFETENSORS_SUFFIXES:
        from safetensors.torch import load_file

        with _safetensors_errors(path):
            container, metadata, tensors = "plain", read_metadata(path), load_file(str(path))
        said = said_in_text(path, metadata)
    else:
        metadata, content = {}, _read_pickle(path)
        container, tensors = _choose_container(path, content)
        assert isinstance(content, Mapping)  # or it had no container
        said = _by_source(path, content)
    tensors = {_without_wrappers(key): value.detach() for key, value in tensors.items()}
    tensors = {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
    if not tensors:
        raise WeightsError(f"{path} holds no tensors: it is not a file of weights")
    broken = [key for key, value in tensors.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise WeightsError(
            f"{path}: {len(broken)} of {len(tensors)} tensors hold NaN or infinity ({', '.join(broken[:3])}): the "
            "training that wrote it had diverged, or the file is damaged"
        )
    return Checkpoint(path, sha256_of(path), tensors, container, metadata, said)


def said_in_text(path: Path, metadata: Mapping[str, str]) -> dict[str, Mapping[str, object]]:
    """As Checkpoint.said, from the JSON text of a safetensors file.

    Raises:
        WeightsError: it is not a JSON object.
    """
    found: dict[str, object] = {}
    for key in SPEAKERS:
        if key in metadata:
            try:
                found[key] = json.loads(metadata[key])
            except json.JSONDecodeError:
                found[key] = None
            if not isinstance(found[key], dict):
                raise WeightsError(f"{path}: its metadata `{key}` is not a JSON object ({metadata[key][:80]})")
    return _by_source(path, found)


def _by_source(path: Path, content: Mapping[Any, object]) -> dict[str, Mapping[str, object]]:
    found = {key: content.get(key) for key in SPEAKERS}
    plain = {key: vars(value) if isinstance(value, argparse.Namespace) else value for key, value in found.items()}
    return {f"{key} in {path.name}": value for key, value in plain.items() if isinstance(value, Mapping)}


def check_readable(path: Path) -> None:
    """Return if `path` is a file of a known format.

    Raises:
        WeightsError: it is not; says what is there instead.
    """
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise WeightsError(
            f"weights file {path} {what}: give demo, pretrained, none, or a .safetensors, .pth, .pt or .pth.tar file"
        )
    if path.suffix not in SAFETENSORS_SUFFIXES + PICKLE_SUFFIXES:
        raise WeightsError(
            f"weights file {path} ends in {path.suffix!r}: .safetensors, .pth, .pt and .pth.tar are read"
        )


def read_metadata(path: Path) -> dict[str, str]:
    """The text metadata of a safetensors file, without reading its tensors.

    Raises:
        WeightsError: the header is damaged.
    """
    from safetensors import safe_open

    with _safetensors_errors(path), safe_open(str(path), framework="pt") as file:
        return dict(file.metadata() or {})


@contextmanager
def _safetensors_errors(path: Path) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        yield
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path} is not a readable safetensors file ({error}): copy or download it again") from None


def _allowed_globals() -> list[Any]:
    """Plain records that training scripts leave beside the tensors: argument namespaces and numpy numbers."""
    import numpy as np
    from numpy._core import multiarray

    numbers = [np.dtype, *(type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "bool"))]
    # numpy 1 called this module numpy.core, and files keep the name.
    scalars: list[Any] = [
        (multiarray.scalar, f"{package}.multiarray.scalar") for package in ("numpy.core", "numpy._core")
    ]
    return [argparse.Namespace, *numbers, *scalars]


def _read_pickle(path: Path) -> object:
    import torch

    try:
        with torch.serialization.safe_globals(_allowed_globals()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused:
            raise WeightsError(
                f"{path} was refused: it asks for the class or function {refused.group(1)}, which weights do not "
                "need and which could run code. Nothing of it was run. Save the tensors alone, as safetensors"
            ) from None
        reason = str(error).strip().splitlines()[-1][:200]
        raise WeightsError(f"{path} is not a file of weights, or is damaged ({reason})") from None
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        # A damaged file can fail in any of these ways inside the archive and pickle readers.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise WeightsError(
            f"{path} is not a file of weights, or is damaged ({reason}): copy or download it again"
        ) from None


def _choose_container(path: Path, content: object) -> tuple[str, dict[str, Tensor]]:
    from torch import Tensor

    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds a {type(content).__name__}, not a dictionary of tensors")
    for name in CONTAINERS:
        inner = content.get(name)
        if isinstance(inner, Mapping) and inner:
            return name, _only_tensors(path, inner)
    if content and not any(isinstance(value, Tensor) for value in content.values()):
        found = ", ".join(str(key) for key in list(content)[:5])
        raise WeightsError(f"{path} holds no tensors under {', '.join(CONTAINERS)} or at its top; it has: {found}")
    return "plain", _only_tensors(path, content)


def _only_tensors(path: Path, values: Mapping[Any, object]) -> dict[str, Tensor]:
    from torch import Tensor

    tensors = {str(key): value for key, value in values.items() if isinstance(value, Tensor)}
    others = [str(key) for key in values if str(key) not in tensors]
    if others:
        raise WeightsError(f"{path}: {len(others)} entries among its weights are not tensors ({', '.join(others[:3])})")
    return tensors


def _without_wrappers(key: str) -> str:
    while key.startswith(WRAPPER_PREFIXES):
        key = key.removeprefix("module.").removeprefix("_orig_mod.")
    return key


def parse_classes(path: Path, metadata: Mapping[str, str]) -> tuple[str, ...] | None:
    """The class names a file of ours carries as JSON, None if it carries none.

    Raises:
        WeightsError: they are not a JSON list of strings.
    """
    text = metadata.get("classes")
    if text is None:
        return None
    try:
        classes = json.loads(text)
    except json.JSONDecodeError:
        classes = None
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise WeightsError(f"{path}: its metadata `classes` is not a JSON list of names ({text[:80]})")
    return tuple(classes)
