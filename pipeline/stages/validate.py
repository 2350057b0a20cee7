"""Validation of a run's artifacts: files and the validation images in, one ValidationRecord a runtime out.

Every artifact runs in its real runtime, in a worker process, on the images whose torch logits are in the checkpoint,
in the same order. Where a target has a reference for what a file says, that computes it too, under each of its
rounding models, and its records carry the label of a simulation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np

from pipeline.config import ValidationPlan
from pipeline.metrics.accuracy import accuracy
from pipeline.metrics.drift import aligned, drift
from pipeline.progress import Say, progress
from pipeline.records.conversion import ConversionRecord
from pipeline.records.keys import OK, CellKey, Outcome
from pipeline.records.validation import ValidationRecord
from pipeline.run.cells import artifact_path, boundary_of, cell_key, chosen, load_validation, save_cells
from pipeline.run.facts import QuantizationFacts, read_quantization
from pipeline.run.folder import Run
from pipeline.run.layout import VALIDATION
from pipeline.run.logits import (
    ArtifactLogits,
    StageLogits,
    load_artifact_logits,
    load_logits_subset,
    save_artifact_logits,
)
from pipeline.stages.devices import Place
from pipeline.training.subject import scored_images
from targets import registry
from targets.boundary import Boundary
from targets.types import RangeEvent, Session, TargetError

CHUNK = 16  # images a request: small enough for a smooth bar, large enough to hide the pipe


@dataclass
class _Open:
    """One artifact in one runtime while images go through it; `times`: its time and memory say something."""

    key: CellKey
    sha256: str
    boundary: Boundary
    times: bool
    outcome: Outcome = OK
    session: Session | None = None
    range_events: tuple[RangeEvent, ...] | None = None
    rows: list[np.ndarray] = field(default_factory=list)
    seconds: float = 0.0
    load_ms: float | None = None
    peak_bytes: int | None = None


def validate_run(
    run: Run,
    targets: Sequence[str],
    plan: ValidationPlan,
    say: Say,
    compute_units: str = registry.ALL_UNITS,
    look: Callable[[CellKey, Session], None] | None = None,
    on: Place | None = None,
    resume: bool = False,
) -> tuple[ValidationRecord, ...]:
    """Score every artifact of `targets` and write validation.json (cells of other targets are kept).

    Args:
        plan: its threads are of a runtime; references run side by side, so many at a time, on this host only.
        compute_units: a choice of hardware, where a target has it; each choice is a runtime, and cells, of its own.
        look: called with each session that answered all images, while it is open; several at a time.
        on: the device; None: this host. On another one the cells follow each other, each kept as soon as it is done.
        resume: leave out cells whose logits for these images, of this file, are kept from before.

    Raises:
        UsageError: nothing was converted.
        RunError: the images are not those of the checkpoint.
        TargetError: stage "device", the device cannot be reached at all.
    """
    conversions = chosen(run, targets, "validate")
    reference = load_logits_subset(run, plan.limit)
    on = on or Place.host()
    wanted = [(c, runtime, plan.threads) for c, runtime in on.runtimes(conversions, compute_units)]
    if plan.simulate and on.is_host:
        wanted += [(c, runtime, 1) for c in conversions for runtime in _references(c, plan.roundings)]
    on.reach(say)
    before = {record.key: record for record in load_validation(run)} if resume else {}
    kept: dict[CellKey, ValidationRecord] = {}
    for conversion, runtime, _ in wanted:
        key = cell_key(conversion, runtime, on.label)
        if key in before and _is_done(run, before[key], conversion, reference):
            say(f"{key.label}: validated before, left as it is")
            kept[key] = before[key]
    left = [cell for cell in wanted if cell_key(cell[0], cell[1], on.label) not in kept]
    made: dict[CellKey, ValidationRecord] = {}
    for together in [left] if on.is_host else [[cell] for cell in left]:
        with ExitStack() as stack:
            cells = _open_all(stack, run, together, plan.threads, on)
            _infer(run, cells, reference, plan.threads)
            if look is not None:
                _look(cells, look, plan.threads)
        made |= _save(run, cells, reference, on, say)
    keys = [cell_key(conversion, runtime, on.label) for conversion, runtime, _ in wanted]
    return tuple(kept.get(key) or made[key] for key in keys)


def _is_done(run: Run, record: ValidationRecord, conversion: ConversionRecord, reference: StageLogits) -> bool:
    stored = load_artifact_logits(run, record.key)
    return (
        record.outcome.status == "ok"
        and stored is not None
        and stored.sha256 == conversion.sha256
        and np.array_equal(stored.indices, reference.indices)
    )


def _save(
    run: Run, cells: Sequence[_Open], reference: StageLogits, on: Place, say: Say
) -> dict[CellKey, ValidationRecord]:
    """Logits first: a record never tells of logits that are not there."""
    quantization = read_quantization(run)
    records = [_record(cell, reference, quantization, on) for cell in cells]
    for cell, record in zip(cells, records, strict=True):
        say(_line(record))
        if cell.outcome.status == "ok":
            logits = ArtifactLogits(_logits(cell, reference, quantization), reference.indices, cell.sha256)
            save_artifact_logits(run, cell.key, logits)
    save_cells(run, VALIDATION, ValidationRecord, records)
    return {record.key: record for record in records}


def _references(record: ConversionRecord, roundings: Sequence[str]) -> tuple[str, ...]:
    """Rounding models differ for half precision only."""
    known = registry.get(record.target).roundings
    if record.precision == "fp32":
        return tuple(known.values())[:1]
    return tuple(name for rounding, name in known.items() if not roundings or rounding in roundings)


def _open_all(
    stack: ExitStack, run: Run, wanted: Sequence[tuple[ConversionRecord, str, int]], at_once: int, on: Place
) -> list[_Open]:
    """Each in a worker of its own: one runtime that aborts takes no other with it."""
    with ThreadPoolExecutor(at_once) as pool:  # a worker starts by importing its SDK, for seconds
        return list(pool.map(lambda cell: _open(stack, run, on, *cell), wanted))


def _open(stack: ExitStack, run: Run, on: Place, conversion: ConversionRecord, runtime: str, threads: int) -> _Open:
    assert conversion.sha256 is not None  # it is ok
    key = cell_key(conversion, runtime, on.label)
    times = on.device.times and not key.simulated
    cell = _Open(key, conversion.sha256, boundary_of(run, conversion), times)
    try:
        worker = stack.enter_context(on.device.worker())
        cell.session = worker.open(conversion.target, artifact_path(run, conversion), runtime, threads)
        cell.load_ms = cell.session.load_ms if cell.times else None
    except TargetError as error:
        cell.outcome = Outcome.of(error)
    return cell


def _look(cells: Sequence[_Open], look: Callable[[CellKey, Session], None], at_once: int) -> None:
    live = [(cell.key, cell.session) for cell in cells if cell.session is not None]
    with progress("looking into sessions", len(live), "sessions") as bar, ThreadPoolExecutor(at_once) as pool:
        for _ in pool.map(lambda cell: look(*cell), live):
            bar.advance()


def _infer(run: Run, cells: Sequence[_Open], reference: StageLogits, threads: int) -> None:
    """Each batch is read once and goes through every session: runtimes one by one, references `threads` at a time."""
    live = [c for c in cells if c.session]
    if not live:
        return
    images = scored_images(run, reference)
    total = len(images.indices) * len(live)
    with progress(f"validating {len(live)} sessions", total) as bar, ThreadPoolExecutor(threads) as pool:
        for batch in images.pixels(CHUNK):
            # The later a rounding model, the slower: the slowest begins first. Real runtimes work beside them.
            simulated = [cell for cell in reversed(live) if cell.key.simulated]
            computed = pool.map(_infer_batch, simulated, [batch] * len(simulated))
            for cell in live:
                if not cell.key.simulated:
                    _infer_batch(cell, batch)
                    bar.advance(len(batch))
            for _ in computed:
                bar.advance(len(batch))
    for cell in live:
        try:
            cell.range_events = None if cell.session is None else cell.session.range_events()
        except TargetError as error:
            cell.outcome = Outcome.of(error)


def _infer_batch(cell: _Open, pixels: np.ndarray) -> None:
    if cell.session is None:
        return
    batch = cell.boundary.feed(pixels)
    start = time.monotonic()
    try:
        if cell.times and not cell.rows:  # before a whole chunk of images lies in the worker's memory
            cell.peak_bytes = cell.session.peak_bytes(batch[:1])
        cell.rows.append(cell.boundary.scores(cell.session.infer(batch)))
    except TargetError as error:
        cell.outcome, cell.session = Outcome.of(error), None
    cell.seconds += time.monotonic() - start


def _logits(cell: _Open, reference: StageLogits, quantization: QuantizationFacts) -> np.ndarray:
    """[N, classes]; of a file that gives probabilities, aligned: docs/decisions/0016-image-in-label-out.md."""
    logits = np.concatenate(cell.rows)
    if cell.boundary.gives != "probabilities":
        return logits
    return aligned(logits, reference.stages["qdq" if quantization.made(cell.key.artifact) else "float"])


def _record(cell: _Open, reference: StageLogits, quantization: QuantizationFacts, on: Place) -> ValidationRecord:
    device = None if on.is_host else on.facts
    if cell.outcome.status != "ok":
        return ValidationRecord(cell.key, cell.outcome, None, None, None, None, device=device)
    logits = _logits(cell, reference, quantization)
    qdq = reference.stages["qdq"] if quantization.made(cell.key.artifact) else None
    return ValidationRecord(
        key=cell.key,
        outcome=OK,
        accuracy=accuracy(logits, reference.labels),
        drift_float=drift(reference.stages["float"], logits),
        drift_qdq=None if qdq is None else drift(qdq, logits),
        seconds=cell.seconds,
        range_events=cell.range_events,
        device=device,
        load_ms=cell.load_ms,
        peak_bytes=cell.peak_bytes,
    )


def _line(record: ValidationRecord) -> str:
    what = record.key.label
    if record.accuracy is None:
        return f"{what}: {record.outcome.status}: {record.outcome.reason}"
    parts = [f"top-1 {record.accuracy.top1_percent:.2f} % (n={record.accuracy.n})"]
    if record.drift_float:
        parts.append(f"{record.drift_float.agreement_percent:.2f} % agree with float")
    if record.drift_qdq:
        parts.append(f"{record.drift_qdq.agreement_percent:.2f} % with the QDQ reference")
    if record.peak_bytes is not None:
        parts.append(f"peak memory {record.peak_bytes / 1e6:.1f} MB")
    if record.load_ms is not None:
        parts.append(f"loaded in {record.load_ms:.1f} ms")
    broken = [e for e in record.range_events or () if e.kind in ("nan", "overflowed")]
    if broken:
        parts.append(f"{broken[0].count} numbers {broken[0].kind} in {broken[0].operator} ({broken[0].op_type})")
    return f"{what}: {', '.join(parts)}"
