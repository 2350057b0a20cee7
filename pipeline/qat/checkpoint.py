"""The checkpoint folder of a run: float weights, float and QDQ programs, quantization facts, the stages' logits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from pipeline.qat.stage_logits import LOGITS, StageLogits, load_logits, save_logits  # noqa: F401  (of this folder too)
from pipeline.rundir import Run, publish, write_atomic

CONFIG = "checkpoint/config.json"
SUBJECT = "checkpoint/subject.json"
FLOAT_WEIGHTS = "checkpoint/float.safetensors"
FLOAT_PROGRAM = "checkpoint/float.pt2"
QDQ_PROGRAM = "checkpoint/qdq.pt2"
QUANTIZATION = "checkpoint/quantization.json"
METRICS = "train/metrics.jsonl"


def save_program(program: ExportedProgram, path: Path) -> None:
    """`torch.export.save`, atomically."""
    temporary = path.with_name(f".{path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.export.save(program, temporary)
    publish(temporary, path)


def write_metrics(run: Run, records: list[dict[str, Any]]) -> None:
    """The whole history as JSON lines: rewritten at every epoch, so that a resumed run has no line twice."""
    write_atomic(run.path / METRICS, "".join(json.dumps(r, allow_nan=False) + "\n" for r in records))


def read_metrics(run: Run) -> list[dict[str, Any]]:
    """The history written so far; empty before the first epoch ended."""
    path = run.path / METRICS
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
