"""Logits of a run's torch stages on the validation images: arrays in, one .npz in the checkpoint out, and back."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import RunError
from pipeline.rundir import Run, write_atomic

LOGITS = "checkpoint/logits.npz"


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
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {f"stage_{name}": values for name, values in logits.stages.items()}
    np.savez_compressed(buffer, labels=logits.labels, indices=logits.indices, digest=np.array(logits.digest), **arrays)
    write_atomic(path, buffer.getvalue())


def load_logits(run: Run, name: str = LOGITS) -> StageLogits:
    """The stored logits of a finished run.

    Args:
        name: of the file in the run folder.

    Raises:
        RunError: the file is missing, changed or damaged.
    """
    path = run.file(name)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            stages = {k.removeprefix("stage_"): arrays[k] for k in arrays.files if k.startswith("stage_")}
            return StageLogits(arrays["labels"], arrays["indices"], str(arrays["digest"]), stages)
    except (ValueError, KeyError, OSError) as error:
        raise RunError(f"{path} is not a logits file of this version ({error}): run quantize again") from error
