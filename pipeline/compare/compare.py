"""Two finished runs in, their Comparison out: cell by cell, paired where both saw the same images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from pipeline.compare.records import ClassFlips, ComparedCell, ComparedStage, Comparison, Difference, PairedImages
from pipeline.compare.side import LabelledLogits, Side, Spot
from pipeline.metrics.accuracy import accuracy, agreement, correct
from pipeline.metrics.latency import RatioChange, ratio_change
from pipeline.metrics.paired import paired_drop
from pipeline.records.keys import STAGES, StageName
from pipeline.records.latency import LatencyRecord
from pipeline.run.folder import Run

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
    found, why = (None, paired) if isinstance(paired, str) else (paired, "")
    return ComparedStage(name, counts[0], counts[1], found, why)


def _cell(a: Side, b: Side, spot: Spot) -> ComparedCell:
    theirs = _counterpart(a, b, spot)
    halves = a.half(spot), b.half(theirs)
    paired: PairedImages | str = NO_CELL
    change: RatioChange | str = NO_CELL
    if None not in halves:
        paired = _paired(a, b, a.scored(spot), b.scored(theirs))
        change = _change(a, b, a.latency(spot), b.latency(theirs))
    artifact, runtime, device = theirs if halves[0] is None else spot
    return ComparedCell(
        target=artifact.target,
        runtime=runtime,
        precision=artifact.precision,
        source=artifact.source,
        source_b=theirs[0].source if None not in halves and theirs[0] != artifact else None,
        device=device,
        a=halves[0],
        b=halves[1],
        paired=None if isinstance(paired, str) else paired,
        not_paired=paired if isinstance(paired, str) else "",
        change=None if isinstance(change, str) else change,
        not_timed=change if isinstance(change, str) else "",
    )


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
        paired_drop(*right), agreement(one.logits, other.logits), _flips(*right, one.labels, a.class_names)
    )


def _flips(before: np.ndarray, after: np.ndarray, labels: np.ndarray, names: list[str]) -> tuple[ClassFlips, ...]:
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
