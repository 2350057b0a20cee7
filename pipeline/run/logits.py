"""Logits that a run keeps: of the torch stages on the validation images, and of each artifact in each runtime."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import RunError
from pipeline.files import write_atomic
from pipeline.records.keys import CellKey
from pipeline.run import layout
from pipeline.run.folder import Run


@dataclass(frozen=True)
class StageLogits:
    """Logits [N, classes] of the torch stages on the same images in the same order, with their labels [N].

    Attributes:
        indices: positions of the images in the validation split, [N].
        digest: of the validation split and its transform: other images are not comparable.
    """

    labels: np.ndarray
    indices: np.ndarray
    digest: str
    stages: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        if not len(self.labels):
            raise ValueError("no images were scored")
        for name, logits in self.stages.items():
            if len(logits) != len(self.labels):
                raise ValueError(f"stage {name} has {len(logits)} rows for {len(self.labels)} labels")


def save_logits(logits: StageLogits, path: Path) -> None:
    """Compressed .npz, atomically."""
    arrays: dict[str, Any] = {f"stage_{name}": values for name, values in logits.stages.items()}
    _save(path, labels=logits.labels, indices=logits.indices, digest=np.array(logits.digest), **arrays)


def load_logits(run: Run, name: str = layout.LOGITS) -> StageLogits:
    """The stored logits of a finished run.

    Args:
        name: of the file in the run folder.

    Raises:
        RunError: the file is missing, changed or damaged.
    """
    with _arrays(run.file(name), made_by="quantize") as arrays:
        stages = {k.removeprefix("stage_"): arrays[k] for k in arrays if k.startswith("stage_")}
        return StageLogits(arrays["labels"], arrays["indices"], str(arrays["digest"]), stages)


def load_logits_subset(run: Run, limit: int | None) -> StageLogits:
    """The torch stages' logits, of `limit` images evenly spread over those scored."""
    stored = load_logits(run)
    keep = list(evenly(len(stored.labels), limit))
    return StageLogits(
        stored.labels[keep], stored.indices[keep], stored.digest, {k: v[keep] for k, v in stored.stages.items()}
    )


def evenly(total: int, limit: int | None) -> tuple[int, ...]:
    """`limit` positions spread evenly over 0..total-1 (all of them without a limit)."""
    if limit is None or limit >= total:
        return tuple(range(total))
    return tuple(np.linspace(0, total - 1, limit).round().astype(int).tolist())


@dataclass(frozen=True)
class ArtifactLogits:
    """Of one artifact in one runtime.

    Attributes:
        logits: float32 [N, classes].
        indices: positions of the images in the validation split, [N].
        sha256: of the artifact that computed them: a later file of the same name has other logits.
    """

    logits: np.ndarray
    indices: np.ndarray
    sha256: str


def save_artifact_logits(run: Run, key: CellKey, value: ArtifactLogits) -> None:
    """Compressed .npz, atomically, and listed in the manifest."""
    name = layout.logits_name(key)
    _save(run.path / name, logits=value.logits, indices=value.indices, sha256=np.array(value.sha256))
    run.record(name)


def load_artifact_logits(run: Run, key: CellKey) -> ArtifactLogits | None:
    """None where the cell was not validated by a version that keeps them.

    Raises:
        RunError: the file changed or is damaged.
    """
    name = layout.logits_name(key)
    if not run.has(name):
        return None
    with _arrays(run.file(name), made_by="validate") as arrays:
        return ArtifactLogits(arrays["logits"], arrays["indices"], str(arrays["sha256"]))


def rows_of(indices: np.ndarray, among: np.ndarray) -> list[int]:
    """Where each image of `indices` stands in `among`, both positions in the validation split.

    Raises:
        KeyError: the first one that is not there.
    """
    row = {int(index): number for number, index in enumerate(among)}
    return [row[int(index)] for index in indices]


def _save(path: Path, **arrays: Any) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomic(path, buffer.getvalue())


@contextmanager
def _arrays(path: Path, made_by: str) -> Iterator[Mapping[str, np.ndarray]]:
    """Of an .npz file; whatever in it does not fit is the file's fault.

    Raises:
        RunError: says which command makes it again.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            yield arrays
    except (ValueError, KeyError, OSError) as error:
        raise RunError(f"{path} is not a logits file of this version ({error}): run {made_by} again") from error
