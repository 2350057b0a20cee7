"""Logits of a run's artifacts on the validation images: kept by validate, read back for paired comparison."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass

import numpy as np

from pipeline.errors import RunError
from pipeline.reports.records import CellKey
from pipeline.rundir import Run, write_atomic

FOLDER = "logits"


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


def rows_of(indices: np.ndarray, among: np.ndarray) -> list[int]:
    """Where each image of `indices` stands in `among`, both positions in the validation split.

    Raises:
        KeyError: the first one that is not there.
    """
    row = {int(index): number for number, index in enumerate(among)}
    return [row[int(index)] for index in indices]


def logits_name(key: CellKey) -> str:
    """Path of a cell's logits relative to its run folder, for example `logits/tflite-litert-int8-qat-host.npz`."""
    parts = (key.target, key.runtime, key.precision, key.source, key.device)
    return f"{FOLDER}/{'-'.join(re.sub(r'[^a-z0-9.]+', '_', part.lower()).strip('_') for part in parts)}.npz"


def save_artifact_logits(run: Run, key: CellKey, value: ArtifactLogits) -> None:
    """Compressed .npz, atomically, and listed in the manifest."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, logits=value.logits, indices=value.indices, sha256=np.array(value.sha256))
    write_atomic(run.path / logits_name(key), buffer.getvalue())
    run.record(logits_name(key))


def load_artifact_logits(run: Run, key: CellKey) -> ArtifactLogits | None:
    """None where the cell was not validated by a version that keeps them.

    Raises:
        RunError: the file changed or is damaged.
    """
    if not run.has(logits_name(key)):
        return None
    path = run.file(logits_name(key))
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return ArtifactLogits(arrays["logits"], arrays["indices"], str(arrays["sha256"]))
    except (ValueError, KeyError, OSError) as error:
        raise RunError(f"{path} is not a logits file of this version ({error}): run validate again") from error
