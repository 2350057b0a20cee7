"""Compare two runs cell by cell: what each has is read once, and paired on the same images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TypeVar

import numpy as np

from pipeline.compare.records import (
    ClassFlips,
    ComparedCell,
    ComparedRun,
    ComparedStage,
    Comparison,
    Difference,
    Half,
    PairedImages,
)
from pipeline.metrics.accuracy import accuracy, agreement, correct
from pipeline.metrics.latency import RatioChange, ratio_change, ratio_of, summarize
from pipeline.metrics.paired import paired_drop
from pipeline.records.conversion import ConversionRecord
from pipeline.records.keys import STAGES, ArtifactKey, CellKey, StageName
from pipeline.records.latency import LatencyRecord
from pipeline.records.validation import ValidationRecord
from pipeline.report.values import flat
from pipeline.run.cells import load_conversions, load_latency, load_validation
from pipeline.run.facts import read_quantization, read_subject
from pipeline.run.folder import Run
from pipeline.run.logits import StageLogits, load_artifact_logits, load_logits, rows_of

T = TypeVar("T")
NO_CELL = "the cell is in one run only"


def compare_runs(run_a: Run, run_b: Run) -> Comparison:
    """A is the run before, B the one after.

    Raises:
        RunError: a run did not finish, or a file of it is missing, changed or damaged.
    """
    a, b = Side(run_a), Side(run_b)
    return Comparison(
        a=a.about,
        b=b.about,
        stages=tuple(_stage(a, b, name) for name in STAGES if name in a.logits.stages or name in b.logits.stages),
        cells=tuple(_cell(a, b, spot) for spot in _spots(a, b)),
        differences=_differences(a.provenance(), b.provenance()),
        notes=tuple(_notes(a, b)),
    )


def _spots(a: Side, b: Side) -> list[Spot]:
    """Of both, as A names them; a file that ran nowhere in one run stands beside the runtimes of the other."""
    every = list(dict.fromkeys([*a.spots(), *(_counterpart(b, a, spot) for spot in b.spots())]))
    ran = {artifact for artifact, runtime, _ in every if runtime is not None}
    return [spot for spot in every if spot[1] is not None or spot[0] not in ran]


def _counterpart(of: Side, other: Side, spot: Spot) -> Spot:
    """The same cell in the other run: files of the QDQ programs correspond, whether these were trained or not."""
    artifact, runtime, device = spot
    swapped = {of.quantization.source: other.quantization.source, other.quantization.source: of.quantization.source}
    if artifact.precision == "int8":
        artifact = replace(artifact, source=swapped.get(artifact.source, artifact.source))
    return artifact, runtime, device


def _stage(a: Side, b: Side, name: StageName) -> ComparedStage:
    both = []
    for side in (a, b):
        logits = side.logits.stages.get(name)
        both.append(NO_CELL if logits is None else LabelledLogits(logits, side.logits.indices, side.logits.labels))
    paired = _paired(a, b, both[0], both[1])
    counts = [None if isinstance(s, str) else accuracy(s.logits, s.labels) for s in both]
    return ComparedStage(name, counts[0], counts[1], *_or_why(paired))


def _cell(a: Side, b: Side, spot: Spot) -> ComparedCell:
    theirs = _counterpart(a, b, spot)
    halves = a.half(spot), b.half(theirs)
    paired: PairedImages | str = NO_CELL
    change: RatioChange | str = NO_CELL
    if None not in halves:
        paired = _paired(a, b, a.scored(spot), b.scored(theirs))
        change = _change(a, b, a.records(spot)[2], b.records(theirs)[2])
    artifact, runtime, device = theirs if halves[0] is None else spot
    (images, not_paired), (rounds, not_timed) = _or_why(paired), _or_why(change)
    return ComparedCell(
        target=artifact.target,
        runtime=runtime,
        precision=artifact.precision,
        source=artifact.source,
        source_b=theirs[0].source if None not in halves and theirs[0] != artifact else None,
        device=device,
        a=halves[0],
        b=halves[1],
        paired=images,
        not_paired=not_paired,
        change=rounds,
        not_timed=not_timed,
    )


def _or_why(found: T | str) -> tuple[T | None, str]:
    """What was found, and an empty reason; or nothing, and the reason."""
    return (None, found) if isinstance(found, str) else (found, "")


def _paired(a: Side, b: Side, one: LabelledLogits | str, other: LabelledLogits | str) -> PairedImages | str:
    """What the same images say, or why there are no such images."""
    for side, scored in (("A", one), ("B", other)):
        if isinstance(scored, str):
            return scored if scored == NO_CELL else f"{side}: {scored}"
    assert isinstance(one, LabelledLogits)
    assert isinstance(other, LabelledLogits)
    if a.images != b.images:
        return "not paired: other images (their digests differ)"
    if not np.array_equal(one.indices, other.indices):
        return f"not paired: other images ({len(one.indices)} and {len(other.indices)} of the split were scored)"
    if one.logits.shape != other.logits.shape or not np.array_equal(one.labels, other.labels):
        return "not paired: other classes"
    right = correct(one.logits, one.labels), correct(other.logits, one.labels)
    return PairedImages(
        paired_drop(*right), agreement(one.logits, other.logits), _flips(*right, one.labels, a.subject.classes)
    )


def _flips(before: np.ndarray, after: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> tuple[ClassFlips, ...]:
    found = []
    for label in map(int, np.unique(labels)):
        own = labels == label
        change = paired_drop(before[own], after[own])
        if change.lost or change.gained:
            found.append(ClassFlips(label, names[label], change.n, change.lost, change.gained))
    return tuple(sorted(found, key=lambda f: (f.gained - f.lost, f.label)))


def _change(a: Side, b: Side, one: LatencyRecord | None, other: LatencyRecord | None) -> RatioChange | str:
    """B's ratio to the control over A's, or why that would mean nothing."""
    for side, record in (("A", one), ("B", other)):
        if record is None or record.rounds_ms is None:
            return f"{side}: no latency was measured"
        if record.control_rounds_ms is None:
            return f"{side}: no control was measured ({record.control_note})"
    assert one is not None
    assert other is not None
    if one.threads != other.threads:
        return f"not comparable: {one.threads} and {other.threads} threads"
    for fact, seen in a.host(one).items():
        if seen != (now := b.host(other)[fact]):
            return f"not comparable: {fact.replace('_', ' ')} {seen} and {now}"
    if (one.cpu_rounds_ms is None) != (other.cpu_rounds_ms is None):
        return "not comparable: processor time in one run, time on the wall in the other"
    assert one.to_control is not None
    assert other.to_control is not None
    return ratio_change(other.to_control, one.to_control)


def _differences(a: dict[str, str], b: dict[str, str]) -> tuple[Difference, ...]:
    keys = dict.fromkeys([*a, *b])
    pairs = ((key, a.get(key, "not recorded"), b.get(key, "not recorded")) for key in keys)
    return tuple(Difference(key, one, other) for key, one, other in pairs if one != other)


def _notes(a: Side, b: Side) -> Iterable[str]:
    if a.images != b.images:
        yield "The validation images are not the same: figures stand side by side, not paired, and nothing is tested."
    elif a.logits.digest != b.logits.digest:
        yield "The same validation images, cut and scaled differently, as each model wants them."
    elif not np.array_equal(a.logits.indices, b.logits.indices):
        yield "Not the same part of the validation images was scored: what was is not paired, and nothing is tested."
    if a.run.model != b.run.model:
        yield f"Different models: cells are joined by target, runtime and precision ({a.run.model}, {b.run.model})."


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
        self.validations: dict[CellKey | None, ValidationRecord] = {r.key: r for r in load_validation(run)}
        self.latencies: dict[CellKey | None, LatencyRecord] = {r.key: r for r in load_latency(run)}

    @property
    def about(self) -> ComparedRun:
        run = self.run
        return ComparedRun(run.id, run.model, run.created_utc, self.subject.data.name, images=len(self.logits.labels))

    @property
    def images(self) -> str:
        """Digest of the validation images, without how a model wants them cut and scaled."""
        return self.subject.data.val_digest

    def spots(self) -> list[Spot]:
        """Of files that ran somewhere, and of files that did not; in the order of the conversions."""
        keys = [key for key in dict.fromkeys([*self.validations, *self.latencies]) if key is not None]
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

    def records(self, spot: Spot) -> tuple[ConversionRecord | None, ValidationRecord | None, LatencyRecord | None]:
        key = self.key(spot)
        return self.conversions.get(spot[0]), self.validations.get(key), self.latencies.get(key)

    def half(self, spot: Spot) -> Half | None:
        conversion, validation, timed = self.records(spot)
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
        key, (conversion, validation, _) = self.key(spot), self.records(spot)
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
            "input": asdict(self.subject.model_config),
            "weights": asdict(self.subject.weights),
            "scheme": self.quantization.scheme,
            "calibration": self.quantization.calibration,
            "training": self.quantization.training,
            "provenance": self.run.provenance,
        }
        return dict(flat(facts))
