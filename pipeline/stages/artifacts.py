"""Where artifacts live in a run and what is known of them: a target, precision and source in, names and records out."""

from __future__ import annotations

from pathlib import Path

from pipeline.reports.codec import from_dict, to_dict
from pipeline.reports.records import ConversionRecord, Source
from pipeline.rundir import Run, write_json
from targets import registry
from targets.types import Precision

FOLDER = "artifacts"


def artifact_name(target: str, precision: Precision, source: Source) -> str:
    """Path of an artifact relative to its run folder, for example `artifacts/tflite-int8.tflite`."""
    ptq = "-ptq" if source == "ptq" else ""
    return f"{FOLDER}/{target}-{precision}{ptq}{registry.get(target).suffix}"


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
    names = [n for n in run.manifest["files"] if n.startswith(f"{FOLDER}/") and n.endswith(".json")]
    records = [from_dict(ConversionRecord, run.read_json(name), name) for name in names]
    return tuple(sorted(records, key=lambda r: (order[r.target], r.precision, r.source)))


def artifact_path(run: Run, record: ConversionRecord) -> Path:
    """The artifact on disk, after its sha256 was compared with the manifest.

    Raises:
        RunError: gone or changed.
    """
    assert record.path is not None
    return run.file(record.path)
