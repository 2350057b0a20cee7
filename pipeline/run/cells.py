"""The artifacts of a run, and what is stored of each: conversion records, results by cell, logits."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from pipeline.errors import RunError, UsageError
from pipeline.files import write_atomic, write_json
from pipeline.records.cells import (
    HOST,
    SIMULATED,
    CellKey,
    ConversionRecord,
    InstructionRecord,
    LatencyRecord,
    Source,
    ValidationRecord,
)
from pipeline.records.codec import from_dict, to_dict
from pipeline.records.mixed import MixedRecord
from pipeline.records.waterfall import WaterfallRecord
from pipeline.run.folder import Run
from targets import registry
from targets.types import Precision

if TYPE_CHECKING:
    pass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

ARTIFACTS_FOLDER = "artifacts"


def artifact_name(target: str, precision: Precision, source: Source) -> str:
    """Path of an artifact relative to its run folder, for example `artifacts/tflite-int8.tflite`."""
    ptq = "-ptq" if source == "ptq" else ""
    return f"{ARTIFACTS_FOLDER}/{target}-{precision}{ptq}{registry.get(target).suffix}"


def record_name(artifact: str) -> str:
    """Path of the ConversionRecord beside an artifact."""
    return f"{artifact}.json"


def save_conversion(run: Run, record: ConversionRecord, artifact: str) -> None:
    """Write the record and list it, and the artifact if there is one, in the manifest."""
    write_json(run.path / record_name(artifact), to_dict(record))
    if record.path is None:
        run.record(record_name(artifact), remove=(artifact,))
    else:
        run.record(artifact, record_name(artifact))


def load_conversions(run: Run) -> tuple[ConversionRecord, ...]:
    """Every conversion of the run, in the order of targets, then precision, then source."""
    order = {name: position for position, name in enumerate(registry.variants())}
    names = [n for n in run.manifest["files"] if n.startswith(f"{ARTIFACTS_FOLDER}/") and n.endswith(".json")]
    records = [from_dict(ConversionRecord, run.read_json(name), name) for name in names]
    return tuple(sorted(records, key=lambda r: (order[r.target], r.precision, r.source)))


def artifact_path(run: Run, record: ConversionRecord) -> Path:
    """The artifact on disk, after its sha256 was compared with the manifest.

    Raises:
        RunError: gone or changed.
    """
    assert record.path is not None
    return run.file(record.path)


#: Files of cells in a run folder.
VALIDATION = "validation.json"
LATENCY = "latency.json"
INSTRUCTIONS = "instructions.json"


class OfCell(Protocol):
    """A record of one cell."""

    @property
    def key(self) -> CellKey: ...


Record = TypeVar("Record", bound=OfCell)


def load_cells(run: Run, name: str, cls: type[Record]) -> tuple[Record, ...]:
    """The records in the file `name`; empty when there is none."""
    entries: list[Any] = run.read_json(name) if run.has(name) else []
    return tuple(from_dict(cls, entry, name) for entry in entries)


def save_cells(run: Run, name: str, cls: type[Record], records: Sequence[Record]) -> None:
    """Write `records` in place of those of the same cells, and list the file in the manifest."""
    fresh = {record.key for record in records}
    kept = [record for record in load_cells(run, name, cls) if record.key not in fresh]
    write_json(run.path / name, [to_dict(record) for record in [*kept, *records]])
    run.record(name)


MIXED = "mixed.json"


def load_mixed(run: Run) -> MixedRecord | None:
    """None for a run that no float layers were asked for in.

    Raises:
        RunError: the file changed or is damaged.
    """
    return from_dict(MixedRecord, run.read_json(MIXED), MIXED) if run.has(MIXED) else None


LOGITS_FOLDER = "logits"


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
    return f"{LOGITS_FOLDER}/{'-'.join(re.sub(r'[^a-z0-9.]+', '_', part.lower()).strip('_') for part in parts)}.npz"


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


def cell_key(record: ConversionRecord, runtime: str, where: str = HOST) -> CellKey:
    """The cell of an artifact in a runtime on a device, or in a reference."""
    device = SIMULATED if runtime in registry.get(record.target).simulated else where
    return CellKey(record.model, record.target, runtime, record.precision, record.source, device)


def chosen(run: Run, targets: Sequence[str], what: str) -> list[ConversionRecord]:
    """The run's published artifacts for `targets`.

    Raises:
        UsageError: there is none.
    """
    records = [r for r in load_conversions(run) if r.target in targets and r.outcome.status == "ok"]
    if not records:
        raise UsageError(
            f"run {run.id} has no artifact to {what} for {', '.join(targets)}: run `python main.py convert` first"
        )
    return records


def load_validation(run: Run) -> tuple[ValidationRecord, ...]:
    """Records of earlier validations; empty when there were none."""
    return load_cells(run, VALIDATION, ValidationRecord)


def load_latency(run: Run) -> tuple[LatencyRecord, ...]:
    """Records of earlier benchmarks; empty when there were none."""
    return load_cells(run, LATENCY, LatencyRecord)


def load_instructions(run: Run) -> tuple[InstructionRecord, ...]:
    """Records of earlier counts; empty when there were none."""
    return load_cells(run, INSTRUCTIONS, InstructionRecord)


def load_waterfall(run: Run) -> WaterfallRecord | None:
    """None if there is none, or if an artifact in it was converted again since.

    Raises:
        RunError: the file changed or is damaged.
    """
    if not run.has(WATERFALL):
        return None
    record = from_dict(WaterfallRecord, run.read_json(WATERFALL), WATERFALL)
    now = {_artifact(r): r.sha256 for r in load_conversions(run)}
    for stage in record.stages:
        if stage.cell is None:
            continue
        if now.get((stage.cell.target, stage.cell.precision, stage.cell.source)) != record.artifacts.get(stage.name):
            return None
    return record


WATERFALL = "waterfall.json"


def _artifact(record: ConversionRecord) -> tuple[str, str, str]:
    return record.target, record.precision, record.source
