"""The artifacts of a run, and the records that are stored of each: conversion, validation, latency, instructions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pipeline.errors import UsageError
from pipeline.files import write_json
from pipeline.records.conversion import ConversionRecord
from pipeline.records.keys import HOST, SIMULATED, CellKey
from pipeline.records.latency import InstructionRecord, LatencyRecord, PlanRecord
from pipeline.records.mixed import MixedRecord
from pipeline.records.validation import ValidationRecord
from pipeline.records.waterfall import WaterfallRecord
from pipeline.run import layout
from pipeline.run.facts import read_subject
from pipeline.run.folder import Run
from pipeline.run.layout import record_name
from targets import registry
from targets.boundary import Boundary
from targets.codec import from_dict, to_dict


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
    names = filter(layout.is_record, run.manifest["files"])
    records = [from_dict(ConversionRecord, run.read_json(name), name) for name in names]
    return tuple(sorted(records, key=lambda r: (order[r.target], r.precision, r.source)))


def artifact_path(run: Run, record: ConversionRecord) -> Path:
    """The artifact on disk, after its sha256 was compared with the manifest.

    Raises:
        RunError: gone or changed.
    """
    assert record.path is not None
    return run.file(record.path)


def boundary_of(run: Run, record: ConversionRecord) -> Boundary:
    """What to feed the file with, and what its outputs are."""
    if record.boundary is not None:
        return record.boundary
    config = read_subject(run).model_config
    return Boundary.tensor(config.input_size[1:], config.mean, config.std)


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


def cell_key(record: ConversionRecord, runtime: str, where: str = HOST) -> CellKey:
    """The cell of an artifact in a runtime on a device, or in a reference."""
    device = SIMULATED if runtime in registry.get(record.target).simulated else where
    return CellKey(record.model, record.target, runtime, record.precision, record.source, device)


#: A record of one cell.
Record = TypeVar("Record", bound=ValidationRecord | LatencyRecord | InstructionRecord | PlanRecord)


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


#: Records of earlier validations, benchmarks and counts; empty when there were none.
load_validation = partial(load_cells, name=layout.VALIDATION, cls=ValidationRecord)
load_latency = partial(load_cells, name=layout.LATENCY, cls=LatencyRecord)
load_instructions = partial(load_cells, name=layout.INSTRUCTIONS, cls=InstructionRecord)


def load_mixed(run: Run) -> MixedRecord | None:
    """None for a run that no float layers were asked for in.

    Raises:
        RunError, RecordError: the file changed or is damaged.
    """
    if not run.has(layout.MIXED):
        return None
    return from_dict(MixedRecord, run.read_json(layout.MIXED), layout.MIXED)


def load_waterfall(run: Run) -> WaterfallRecord | None:
    """None if there is none, or if an artifact in it was converted again since.

    Raises:
        RunError, RecordError: the file changed or is damaged.
    """
    if not run.has(layout.WATERFALL):
        return None
    record = from_dict(WaterfallRecord, run.read_json(layout.WATERFALL), layout.WATERFALL)
    now = {conversion.artifact: conversion.sha256 for conversion in load_conversions(run)}
    cells = {stage.name: stage.cell for stage in record.stages if stage.cell is not None}
    as_it_was = all(now.get(cell.artifact) == record.artifacts.get(name) for name, cell in cells.items())
    return record if as_it_was else None
