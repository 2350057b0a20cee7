"""One side of a comparison: what a run folder has of each cell, read once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.compare.records import ComparedRun, Half
from pipeline.errors import RunError
from pipeline.metrics.latency import ratio_of, summarize
from pipeline.records.cells import CellKey, ConversionRecord, LatencyRecord, Source, ValidationRecord
from pipeline.report.values import flat, flat_samples
from pipeline.run.cells import LATENCY, VALIDATION, load_artifact_logits, load_cells, load_conversions, rows_of
from pipeline.run.checkpoint import StageLogits, load_logits
from pipeline.run.folder import Run
from targets.types import Precision

Place = tuple[str, Precision, Source, str | None, str | None]  # target, precision, source, runtime, device
SUBJECT, QUANTIZATION = "checkpoint/subject.json", "checkpoint/quantization.json"
#: Facts of the host that a latency depends on; the kernel's release, in `system`, is not one.
HOST_FACTS = ("processor", "vector_extensions", "cores")


@dataclass(frozen=True)
class Scored:
    """Logits of some images, the images by their position in the validation split, and their labels."""

    logits: np.ndarray
    indices: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Found:
    """What one run has of a cell; `key` is None for a file that was run nowhere."""

    key: CellKey | None
    conversion: ConversionRecord | None
    validation: ValidationRecord | None
    latency: LatencyRecord | None

    @property
    def half(self) -> Half | None:
        """The figures; None if there is nothing."""
        conversion, validation, timed = self.conversion, self.validation, self.latency
        if conversion is None and validation is None and timed is None:
            return None
        steps = (r.outcome for r in (conversion, validation) if r is not None)
        facts = None if conversion is None else conversion.facts
        rounds = None if timed is None else timed.rounds_ms
        beside = None if timed is None else timed.to_control
        return Half(
            outcome=next((outcome for outcome in steps if outcome.status != "ok"), None),
            accuracy=None if validation is None else validation.accuracy,
            size_bytes=None if facts is None else facts.size_bytes,
            outside=None if facts is None or facts.fallback is None else sum(facts.fallback.values()),
            median_ms=None if rounds is None else summarize(flat_samples(rounds)).median_ms,
            latency=None if beside is None else ratio_of(beside),
        )


def _artifact(record: ConversionRecord | CellKey) -> tuple[str, Precision, Source]:
    return record.target, record.precision, record.source


class Side:
    """One run, read once."""

    def __init__(self, run: Run):
        if run.manifest.get("status") != "finished":
            raise RunError(f"run {run.id} did not finish: `quantize --resume --run {run.id}` continues it")
        self.run = run
        self.subject = run.read_json(SUBJECT)
        self.quantization = run.read_json(QUANTIZATION)
        self.logits: StageLogits = load_logits(run)
        self.conversions = {_artifact(record): record for record in load_conversions(run)}
        self.cells = dict(self._cells())

    @property
    def about(self) -> ComparedRun:
        manifest, data = self.run.manifest, self.subject["data"]
        return ComparedRun(
            self.run.id, self.run.model, manifest["created_utc"], data["name"], images=len(self.logits.labels)
        )

    @property
    def images(self) -> str:
        """Digest of the validation images, without how a model wants them cut and scaled."""
        return str(self.subject["data"]["val_digest"])

    @property
    def class_names(self) -> list[str]:
        return [str(name) for name in self.subject["classes"]]

    def _cells(self) -> Iterator[tuple[Place, Found]]:
        """Files that ran somewhere, and files that did not; in the order of the conversions."""
        validations: dict[CellKey | None, ValidationRecord]
        validations = {r.key: r for r in load_cells(self.run, VALIDATION, ValidationRecord)}
        latencies: dict[CellKey | None, LatencyRecord]
        latencies = {r.key: r for r in load_cells(self.run, LATENCY, LatencyRecord)}
        keys = [key for key in dict.fromkeys([*validations, *latencies]) if key is not None]
        for artifact in dict.fromkeys([*self.conversions, *map(_artifact, keys)]):
            each: list[CellKey | None] = [key for key in keys if _artifact(key) == artifact]
            for key in each or [None]:
                where = (key.runtime, key.device) if key else (None, None)
                found = Found(key, self.conversions.get(artifact), validations.get(key), latencies.get(key))
                yield (*artifact, *where), found

    def at(self, place: Place) -> Found:
        """What there is of a cell; of one that only the other run has tried, the conversion."""
        return self.cells.get(place, Found(None, self.conversions.get(place[:3]), None, None))

    def scored(self, found: Found) -> Scored | str:
        """The logits of a cell, or why there are none that can be used."""
        if found.key is None or found.validation is None or found.validation.accuracy is None:
            return "it was not validated"
        stored = load_artifact_logits(self.run, found.key)
        if stored is None:
            return "its logits were not kept: run validate again"
        if found.conversion is None or stored.sha256 != found.conversion.sha256:
            return "the file was converted again after it was validated: run validate again"
        rows = rows_of(stored.indices, self.logits.indices)
        return Scored(stored.logits, stored.indices, self.logits.labels[rows])

    def host(self, record: LatencyRecord) -> dict[str, str]:
        """The machine of a latency; records of older versions say only where the run began."""
        known = record.host or self.run.manifest.get("provenance", {})
        return {fact: str(known.get(fact, "unknown")) for fact in HOST_FACTS}

    def provenance(self) -> dict[str, str]:
        facts: dict[str, object] = {
            "model": self.run.model,
            "data": self.subject["data"],
            "input": self.subject["model_config"],
            "weights": self.subject["weights"],
            "scheme": self.quantization["scheme"],
            "calibration": self.quantization["calibration"],
            "training": self.quantization["training"],
            "provenance": self.run.manifest.get("provenance", {}),
        }
        return dict(flat(facts))
