"""The checkpoint folder of a run: its file names, and the logits of the torch stages on the validation images."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import RunError
from pipeline.files import write_atomic
from pipeline.run import checkpoint as files
from pipeline.run.folder import Run

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


CONFIG = "checkpoint/config.json"
SUBJECT = "checkpoint/subject.json"
FLOAT_WEIGHTS = "checkpoint/float.safetensors"
FLOAT_PROGRAM = "checkpoint/float.pt2"
QDQ_PROGRAM = "checkpoint/qdq.pt2"
QUANTIZATION = "checkpoint/quantization.json"
METRICS = "train/metrics.jsonl"


def write_metrics(run: Run, records: list[dict[str, Any]]) -> None:
    """The whole history as JSON lines: rewritten at every epoch, so that a resumed run has no line twice."""
    write_atomic(run.path / METRICS, "".join(json.dumps(r, allow_nan=False) + "\n" for r in records))


def read_metrics(run: Run) -> list[dict[str, Any]]:
    """The history written so far; empty before the first epoch ended."""
    path = run.path / METRICS
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def load_logits_subset(run: Run, limit: int | None) -> StageLogits:
    """The torch stages' logits, of `limit` images evenly spread over those scored."""
    stored = files.load_logits(run)
    if limit is None or limit >= len(stored.labels):
        return stored
    keep = np.linspace(0, len(stored.labels) - 1, limit).round().astype(int)
    return StageLogits(
        stored.labels[keep], stored.indices[keep], stored.digest, {k: v[keep] for k, v in stored.stages.items()}
    )
