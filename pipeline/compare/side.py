"""One side of a comparison: a run folder in, what it has of each cell out, read once."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from pipeline.compare.records import ComparedRun, Half
from pipeline.metrics.latency import ratio_of, summarize
from pipeline.records.conversion import ConversionRecord
from pipeline.records.keys import ArtifactKey, CellKey
from pipeline.records.latency import LatencyRecord
from pipeline.records.validation import ValidationRecord
from pipeline.report.values import flat
from pipeline.run.cells import load_cells, load_conversions
from pipeline.run.facts import read_quantization, read_subject
from pipeline.run.folder import Run
from pipeline.run.layout import LATENCY, VALIDATION
from pipeline.run.logits import StageLogits, load_artifact_logits, load_logits, rows_of

#: A file, and the runtime and device that it ran in and on; both None for a file that ran nowhere.
Spot = tuple[ArtifactKey, str | None, str | None]
#: Facts of the host that a latency depends on; the kernel's release, in `system`, is not one.
HOST_FACTS = ("processor", "vector_extensions", "cores")


@dataclass(frozen=True)
class LabelledLogits:
    """Logits of some images, the images by their position in the validation split, and their labels."""

    logits: np.ndarray
    indices: np.ndarray
    labels: np.ndarray


class Side:
    """One run, read once."""

    def __init__(self, run: Run):
        run.check_finished()
        self.run = run
        self.subject = read_subject(run)
        self.quantization = read_quantization(run)
        self.logits: StageLogits = load_logits(run)
        self.conversions = {c.artifact: c for c in load_conversions(run)}
        self.validations = {r.key: r for r in load_cells(run, VALIDATION, ValidationRecord)}
        self.latencies = {r.key: r for r in load_cells(run, LATENCY, LatencyRecord)}

    @property
    def about(self) -> ComparedRun:
        run = self.run
        return ComparedRun(run.id, run.model, run.created_utc, self.subject.data.name, images=len(self.logits.labels))

    @property
    def images(self) -> str:
        """Digest of the validation images, without how a model wants them cut and scaled."""
        return self.subject.data.val_digest

    @property
    def class_names(self) -> list[str]:
        return list(self.subject.classes)

    def spots(self) -> list[Spot]:
        """Of files that ran somewhere, and of files that did not; in the order of the conversions."""
        keys = list(dict.fromkeys([*self.validations, *self.latencies]))
        found: list[Spot] = []
        for artifact in dict.fromkeys([*self.conversions, *(key.artifact for key in keys)]):
            tried = [key for key in keys if key.artifact == artifact]
            found += [(artifact, key.runtime, key.device) for key in tried]
            if not tried:
                found.append((artifact, None, None))
        return found

    def key(self, spot: Spot) -> CellKey | None:
        artifact, runtime, device = spot
        if runtime is None or device is None:
            return None
        return CellKey(self.run.model, artifact.target, runtime, artifact.precision, artifact.source, device)

    def conversion(self, spot: Spot) -> ConversionRecord | None:
        return self.conversions.get(spot[0])

    def validation(self, spot: Spot) -> ValidationRecord | None:
        key = self.key(spot)
        return None if key is None else self.validations.get(key)

    def latency(self, spot: Spot) -> LatencyRecord | None:
        key = self.key(spot)
        return None if key is None else self.latencies.get(key)

    def half(self, spot: Spot) -> Half | None:
        conversion, validation, timed = self.conversion(spot), self.validation(spot), self.latency(spot)
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

    def scored(self, spot: Spot) -> LabelledLogits | str:
        """The logits of a cell, or why there are none that can be used."""
        key, conversion, validation = self.key(spot), self.conversion(spot), self.validation(spot)
        if key is None or validation is None or validation.accuracy is None:
            return "it was not validated"
        stored = load_artifact_logits(self.run, key)
        if stored is None:
            return "its logits were not kept: run validate again"
        if conversion is None or stored.sha256 != conversion.sha256:
            return "the file was converted again after it was validated: run validate again"
        rows = rows_of(stored.indices, self.logits.indices)
        return LabelledLogits(stored.logits, stored.indices, self.logits.labels[rows])

    def host(self, record: LatencyRecord) -> dict[str, str]:
        """The machine of a latency; records of older versions say only where the run began."""
        known = record.host or self.run.provenance
        return {fact: str(known.get(fact, "unknown")) for fact in HOST_FACTS}

    def provenance(self) -> dict[str, str]:
        facts: dict[str, object] = {
            "model": self.run.model,
            "data": asdict(self.subject.data),
            "input": self.subject.model_config.to_dict(),
            "weights": asdict(self.subject.weights),
            "scheme": self.quantization.scheme,
            "calibration": self.quantization.calibration,
            "training": self.quantization.training,
            "provenance": self.run.provenance,
        }
        return dict(flat(facts))
