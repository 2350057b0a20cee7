"""Run folders for tests of `check`, written by the program's own writers: the logits and times in them are made up."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from made_up_facts import write_made_up_facts
from made_up_report import made_up_conversion, made_up_rounds

from pipeline.metrics.accuracy import accuracy
from pipeline.metrics.drift import drift
from pipeline.records.conversion import ConversionRecord
from pipeline.records.keys import OK, CellKey, Source
from pipeline.records.latency import LatencyRecord
from pipeline.records.validation import ValidationRecord
from pipeline.run.cells import save_cells, save_conversion
from pipeline.run.facts import read_quantization
from pipeline.run.folder import Run, create_run, set_latest
from pipeline.run.layout import LATENCY, LOGITS, VALIDATION
from pipeline.run.logits import ArtifactLogits, StageLogits, save_artifact_logits, save_logits

N = 400
RUNTIMES = {"executorch": ("executorch",), "tflite": ("litert", "tensorflow")}
HOST = {"system": "Linux x86_64", "processor": "made up", "vector_extensions": "avx2"}


def made_up_run_folder(
    root: Path, wrong: int = 40, seed: int = 0, model: str = "t2t_vit_7", n: int = N, epochs: int = 5
) -> Run:
    """A finished, converted and validated run of int8 files for two targets.

    Args:
        epochs: of QAT; 0: the files are of calibration.
        wrong: images that the artifacts get wrong, the same ones in every runtime; the torch stages get 40 wrong.
    """
    run = create_run(root, model)
    labels = np.arange(n) % 10
    write_made_up_facts(run, n_val=n, epochs=epochs)
    torch_logits = _logits(labels, 40)
    save_logits(
        StageLogits(labels, np.arange(n), "made-up-digest", {"float": torch_logits, "qdq": torch_logits}),
        run.path / LOGITS,
    )
    run.record(LOGITS)
    run.record(facts={"status": "finished", "provenance": {**HOST, "torch": "2.13.0"}})
    for target in RUNTIMES:
        convert(run, target)
    validate(run, wrong)
    set_latest(run)
    return run


def convert(run: Run, target: str, **changes: object) -> ConversionRecord:
    """Publish a file of the target, without float weights or lost scales unless `changes` say so."""
    record = made_up_conversion(run.model, target, "int8", _source(run))
    assert record.facts is not None
    facts = replace(record.facts, fallback={}, partitions=1, delegated=93)
    found = {"scales_total": 131, "scales_found": 131, "scales_missing": ()}
    record = replace(record, facts=facts, **{**found, **changes})  # type: ignore[arg-type]
    if record.path is not None:
        (run.path / "artifacts").mkdir(exist_ok=True)
        (run.path / record.path).write_bytes(b"made up")
    save_conversion(run, record, f"artifacts/{target}-int8.bin")
    return record


def validate(run: Run, wrong: int, peak_bytes: int | None = 20_000_000) -> None:
    """Answers of every runtime to every image, and the memory that each file took."""
    with np.load(run.path / LOGITS) as arrays:
        labels, reference = arrays["labels"], arrays["stage_qdq"]
    logits = _logits(labels, wrong)
    records = []
    for target, runtimes in RUNTIMES.items():
        sha256 = made_up_conversion(run.model, target, "int8", _source(run)).sha256
        assert sha256 is not None
        for runtime in runtimes:
            key = CellKey(run.model, target, runtime, "int8", _source(run), "host")
            save_artifact_logits(run, key, ArtifactLogits(logits, np.arange(len(labels)), sha256))
            moved = drift(reference, logits)
            right = accuracy(logits, labels)
            records.append(ValidationRecord(key, OK, right, moved, moved, 1.0, peak_bytes=peak_bytes))
    save_cells(run, VALIDATION, ValidationRecord, records)


def benchmark(run: Run, ratio: float, seed: int = 0, control: str = "mobilenet_v2") -> None:
    """Latency of every runtime at `ratio` times a control."""
    records = []
    for target, runtimes in RUNTIMES.items():
        sha256 = made_up_conversion(run.model, target, "int8", _source(run)).sha256
        for runtime in runtimes:
            key = CellKey(run.model, target, runtime, "int8", _source(run), "host")
            records.append(
                LatencyRecord(
                    key=key,
                    outcome=OK,
                    threads=1,
                    warmup_ms=(),
                    rounds_ms=made_up_rounds(2.0 * ratio, seed),
                    control=replace(key, model=control),
                    control_rounds_ms=made_up_rounds(2.0, seed + 1),
                    control_note="",
                    host=HOST,
                    processes=5,
                    sha256=sha256,
                )
            )
    save_cells(run, LATENCY, LatencyRecord, records)


def _source(run: Run) -> Source:
    return read_quantization(run).source


def edit_manifest(run: Run, **facts: object) -> None:
    manifest = run.manifest | facts
    (run.path / "manifest.json").write_text(json.dumps(manifest))


def _logits(labels: np.ndarray, wrong: int) -> np.ndarray:
    """[N, 10] float32 that is right but for the first `wrong` images."""
    logits = np.zeros((len(labels), 10), np.float32)
    logits[np.arange(len(labels)), np.where(np.arange(len(labels)) < wrong, (labels + 1) % 10, labels)] = 1.0
    return logits
