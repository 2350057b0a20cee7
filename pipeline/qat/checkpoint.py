"""The checkpoint folder of a run: float weights, float and QDQ programs, quantization facts, the stages' logits."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram

from pipeline.errors import RunError
from pipeline.rundir import Run, publish, write_atomic

CONFIG = "checkpoint/config.json"
SUBJECT = "checkpoint/subject.json"
FLOAT_WEIGHTS = "checkpoint/float.safetensors"
FLOAT_PROGRAM = "checkpoint/float.pt2"
QDQ_PROGRAM = "checkpoint/qdq.pt2"
QUANTIZATION = "checkpoint/quantization.json"
LOGITS = "checkpoint/logits.npz"
METRICS = "train/metrics.jsonl"


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


def save_program(program: ExportedProgram, path: Path) -> None:
    """`torch.export.save`, atomically."""
    temporary = path.with_name(f".{path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.export.save(program, temporary)
    publish(temporary, path)


def save_logits(logits: StageLogits, path: Path) -> None:
    """Compressed .npz, atomically."""
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {f"stage_{name}": values for name, values in logits.stages.items()}
    np.savez_compressed(buffer, labels=logits.labels, indices=logits.indices, digest=np.array(logits.digest), **arrays)
    write_atomic(path, buffer.getvalue())


def load_logits(run: Run) -> StageLogits:
    """The stored logits of a finished run.

    Raises:
        RunError: the file is missing, changed or damaged.
    """
    path = run.file(LOGITS)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            stages = {k.removeprefix("stage_"): arrays[k] for k in arrays.files if k.startswith("stage_")}
            return StageLogits(arrays["labels"], arrays["indices"], str(arrays["digest"]), stages)
    except (ValueError, KeyError, OSError) as error:
        raise RunError(f"{path} is not a logits file of this version ({error}): run quantize again") from error


def write_metrics(run: Run, records: list[dict[str, Any]]) -> None:
    """The whole history as JSON lines: rewritten at every epoch, so that a resumed run has no line twice."""
    write_atomic(run.path / METRICS, "".join(json.dumps(r, allow_nan=False) + "\n" for r in records))


def read_metrics(run: Run) -> list[dict[str, Any]]:
    """The history written so far; empty before the first epoch ended."""
    path = run.path / METRICS
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
