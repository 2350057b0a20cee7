"""A finished run folder of made-up logits, written with the pipeline's own writers: nothing in it was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from made_up_facts import write_made_up_facts
from made_up_report import made_up_conversion, made_up_rounds

from pipeline.files import sha256_of, write_atomic
from pipeline.metrics.accuracy import accuracy
from pipeline.records.keys import OK, ArtifactKey, CellKey, Outcome, Source
from pipeline.records.latency import LatencyRecord
from pipeline.records.validation import ValidationRecord
from pipeline.run.cells import save_cells, save_conversion
from pipeline.run.folder import Run, create_run
from pipeline.run.layout import LATENCY, LOGITS, VALIDATION, artifact_name
from pipeline.run.logits import ArtifactLogits, StageLogits, save_artifact_logits, save_logits

CLASSES = ("cat", "dog", "eel")
HOST = {"processor": "made up", "vector_extensions": "avx2", "cores": "2", "system": "Linux 1"}


@dataclass(frozen=True)
class MadeUp:
    """What is written. `wrong`: images whose answer in the artifact is not right; all torch stages are right.

    The artifact is tflite int8 in litert, qat or without `epochs` ptq; image i is of class i % 3.
    """

    model: str = "t2t_vit_7"
    images: int = 60
    indices: tuple[int, ...] | None = None
    wrong: tuple[int, ...] = ()
    val_digest: str = "ab" * 32
    transform: str = "cd" * 32
    size_bytes: int = 4_000_000
    slower: float = 3.0
    threads: int = 1
    host: dict[str, str] = field(default_factory=lambda: dict(HOST))
    converted: bool = True
    timed: bool = True
    versions: dict[str, str] = field(default_factory=lambda: {"torch": "2.13.0"})
    classes: Sequence[str] = CLASSES
    epochs: int = 5


def logits_of(labels: np.ndarray, wrong: Sequence[int], classes: int) -> np.ndarray:
    """[N, classes]: 1 at the answer, which is the label but for the rows in `wrong`, where it is the next class."""
    answers = labels.copy()
    answers[list(wrong)] = (answers[list(wrong)] + 1) % classes
    return np.eye(classes, dtype=np.float32)[answers]


def make_run(root: Path, made: MadeUp, second: int = 0) -> Run:
    """Write it under `root`; `second` makes the names of runs differ."""
    run = create_run(root, made.model, datetime(2026, 1, 1, 12, 0, second, tzinfo=UTC))
    classes = len(made.classes)
    indices = np.arange(made.images) if made.indices is None else np.array(made.indices)
    labels = np.arange(len(indices)) % classes
    right = logits_of(labels, (), classes)
    write_made_up_facts(run, made.classes, val_digest=made.val_digest, weights_sha256="12" * 32, epochs=made.epochs)
    digest = f"{made.val_digest}-{made.transform}"
    stages = {"float": right, "qdq": right}
    save_logits(StageLogits(labels, indices, digest, stages), run.path / LOGITS)
    run.record(
        LOGITS,
        facts={"status": "finished", "provenance": {**made.versions, **made.host}},
    )
    source: Source = "qat" if made.epochs else "ptq"
    key = CellKey(made.model, "tflite", "litert", "int8", source, "host")
    name = artifact_name(key.artifact)
    record = made_up_conversion(made.model, "tflite", "int8", source)
    if not made.converted:
        failed = Outcome("failed", "convert", "no lowering")
        none = replace(
            record, outcome=failed, path=None, sha256=None, facts=None, scales_total=None, scales_found=None,
            scales_missing=(),
        )  # fmt: skip
        save_conversion(run, none, name)
        return run
    write_atomic(run.path / name, f"file of {second}")
    digest = sha256_of(run.path / name)
    assert record.facts is not None
    facts = replace(record.facts, size_bytes=made.size_bytes)
    save_conversion(run, replace(record, path=name, sha256=digest, facts=facts), name)
    logits = logits_of(labels, made.wrong, classes)
    save_artifact_logits(run, key, ArtifactLogits(logits, indices, digest))
    save_cells(
        run,
        VALIDATION,
        ValidationRecord,
        [ValidationRecord(key, OK, accuracy(logits, labels), None, None, 1.0)],
    )
    if made.timed:
        control = replace(key, model="mobilenet_v2")
        timed = LatencyRecord(
            key,
            OK,
            made.threads,
            (),
            made_up_rounds(2.0 * made.slower, second),
            control,
            made_up_rounds(2.0, second + 50),
            "",
            processes=5,
            host=made.host,
        )
        save_cells(run, LATENCY, LatencyRecord, [timed])
    return run


def with_file(run: Run, target: str, text: str = "file") -> Run:
    """The run, with an int8 file for one more target."""
    name = artifact_name(ArtifactKey(target, "int8", "qat"))
    write_atomic(run.path / name, text)
    record = made_up_conversion(run.model, target, "int8", "qat")
    save_conversion(run, replace(record, path=name, sha256=sha256_of(run.path / name)), name)
    return run
