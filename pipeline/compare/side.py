"""One side of a comparison: a run folder in, what it has of each cell out, read once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.compare.records import ComparedRun, Half
from pipeline.errors import RunError
from pipeline.metrics.latency import ratio_of, summarize
from pipeline.records.cells import CellKey, ConversionRecord, LatencyRecord, Source, ValidationRecord
from pipeline.report.values import flat
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


class Side:
    """One run, read once."""

    def __init__(self, run: Run):
        if run.manifest.get("status") != "finished":
            raise RunError(f"run {run.id} did not finish: `quantize --resume --run {run.id}` continues it")
        self.run = run
        self.subject = run.read_json(SUBJECT)
        self.quantization = run.read_json(QUANTIZATION)
        self.logits: StageLogits = load_logits(run)
        self.conversions = {(c.target, c.precision, c.source): c for c in load_conversions(run)}
        self.validations = {r.key: r for r in load_cells(run, VALIDATION, ValidationRecord)}
        self.latencies = {r.key: r for r in load_cells(run, LATENCY, LatencyRecord)}

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

    def places(self) -> list[Place]:
        """Of files that ran somewhere, and of files that did not; in the order of the conversions."""
        keys = list(dict.fromkeys([*self.validations, *self.latencies]))
        found: list[Place] = []
        for target, precision, source in dict.fromkeys(
            [*self.conversions, *((k.target, k.precision, k.source) for k in keys)]
        ):
            tried = [k for k in keys if (k.target, k.precision, k.source) == (target, precision, source)]
            found += [(target, precision, source, k.runtime, k.device) for k in tried]
            if not tried:
                found.append((target, precision, source, None, None))
        return found

    def key(self, place: Place) -> CellKey | None:
        target, precision, source, runtime, device = place
        if runtime is None or device is None:
            return None
        return CellKey(self.run.model, target, runtime, precision, source, device)

    def conversion(self, place: Place) -> ConversionRecord | None:
        return self.conversions.get((place[0], place[1], place[2]))

    def validation(self, place: Place) -> ValidationRecord | None:
        key = self.key(place)
        return None if key is None else self.validations.get(key)

    def latency(self, place: Place) -> LatencyRecord | None:
        key = self.key(place)
        return None if key is None else self.latencies.get(key)

    def half(self, place: Place) -> Half | None:
        conversion, validation, timed = self.conversion(place), self.validation(place), self.latency(place)
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
            median_ms=None if rounds is None else summarize([ms for samples in rounds for ms in samples]).median_ms,
            latency=None if beside is None else ratio_of(beside),
        )

    def scored(self, place: Place) -> Scored | str:
        """The logits of a cell, or why there are none that can be used."""
        key, conversion, validation = self.key(place), self.conversion(place), self.validation(place)
        if key is None or validation is None or validation.accuracy is None:
            return "it was not validated"
        stored = load_artifact_logits(self.run, key)
        if stored is None:
            return "its logits were not kept: run validate again"
        if conversion is None or stored.sha256 != conversion.sha256:
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
