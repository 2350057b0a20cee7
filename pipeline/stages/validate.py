"""Validation of a run's artifacts: files and the validation images in, one ValidationRecord a runtime out.

Every artifact runs in its real runtime, in a worker process, on the images whose torch logits are in the checkpoint,
in the same order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np

from pipeline.config import RunConfig
from pipeline.errors import RunError, UsageError
from pipeline.metrics.accuracy import accuracy
from pipeline.metrics.drift import drift
from pipeline.progress import progress
from pipeline.qat import checkpoint as files
from pipeline.qat.checkpoint import StageLogits
from pipeline.reports.codec import from_dict, to_dict
from pipeline.reports.records import OK, CellKey, ConversionRecord, Outcome, ValidationRecord
from pipeline.rundir import Run, write_json
from pipeline.stages.artifacts import artifact_path, load_conversions
from targets import registry
from targets.devices.host import HostWorker
from targets.types import Session, TargetError

VALIDATION = "validation.json"
CHUNK = 16  # images a request: small enough for a smooth bar, large enough to hide the pipe


@dataclass
class _Open:
    """One artifact in one runtime while images go through it."""

    key: CellKey
    outcome: Outcome = OK
    session: Session | None = None
    rows: list[np.ndarray] = field(default_factory=list)
    seconds: float = 0.0


def cell_key(record: ConversionRecord, runtime: str) -> CellKey:
    """The cell of an artifact in a runtime on this host."""
    return CellKey(record.model, record.target, runtime, record.precision, record.source, "host")


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


def validate_run(
    run: Run, targets: Sequence[str], limit: int | None, threads: int, say: Callable[[str], None]
) -> tuple[ValidationRecord, ...]:
    """Score every artifact of `targets` and write validation.json (cells of other targets are kept).

    Raises:
        UsageError: nothing was converted.
        RunError: the images are not those of the checkpoint.
    """
    conversions = chosen(run, targets, "validate")
    reference = load_logits_subset(run, limit)
    with ExitStack() as stack:
        cells = [_open(stack, run, c, runtime, threads) for c in conversions for runtime in _runtimes(c)]
        _infer(run, cells, reference)
    records = tuple(_record(cell, reference) for cell in cells)
    for record in records:
        say(_line(record))
    _save(run, records)
    return records


def load_validation(run: Run) -> tuple[ValidationRecord, ...]:
    """Records of earlier validations; empty when there were none."""
    if not run.has(VALIDATION):
        return ()
    return tuple(from_dict(ValidationRecord, r, VALIDATION) for r in run.read_json(VALIDATION))


def load_logits_subset(run: Run, limit: int | None) -> StageLogits:
    """The torch stages' logits, of `limit` images evenly spread over those scored."""
    stored = files.load_logits(run)
    if limit is None or limit >= len(stored.labels):
        return stored
    keep = np.linspace(0, len(stored.labels) - 1, limit).round().astype(int)
    return StageLogits(
        stored.labels[keep], stored.indices[keep], stored.digest, {k: v[keep] for k, v in stored.stages.items()}
    )


def _runtimes(record: ConversionRecord) -> tuple[str, ...]:
    return registry.get(record.target).runtimes


def _open(stack: ExitStack, run: Run, conversion: ConversionRecord, runtime: str, threads: int) -> _Open:
    """A session in a worker of its own: one runtime that aborts takes no other with it."""
    cell = _Open(cell_key(conversion, runtime))
    try:
        worker = stack.enter_context(HostWorker())
        cell.session = worker.open(conversion.target, artifact_path(run, conversion), runtime, threads)
    except TargetError as error:
        cell.outcome = Outcome.of(error)
    return cell


def _infer(run: Run, cells: Sequence[_Open], reference: StageLogits) -> None:
    """Each batch of images is read once and goes through every session."""
    from calibration.loader import eval_batches
    from pipeline.qat.subject import load_data, transform_of

    live = [c for c in cells if c.session]
    if not live:
        return
    config = RunConfig.from_dict(run.read_json(files.CONFIG))
    data = load_data(config.data, config.skip_bad, val_only=True)
    transform = transform_of(run.read_json(files.SUBJECT)["model_config"])
    digest = f"{data.val.digest()}-{transform.digest()}"
    if digest != reference.digest:
        raise RunError(
            f"the validation images of {config.data} are not those that run {run.id} scored in float "
            f"(digest {digest[:12]}, then {reference.digest[:12]}): the two are not comparable; quantize again"
        )
    indices = [int(i) for i in reference.indices]
    with progress(f"validating {len(live)} artifacts", len(indices) * len(live)) as bar:
        for images, _, _ in eval_batches(data.val, transform, CHUNK, indices, config.workers):
            batch = images.numpy()
            for cell in live:
                if cell.session is None:
                    continue
                start = time.monotonic()
                try:
                    cell.rows.append(cell.session.infer(batch))
                except TargetError as error:
                    cell.outcome, cell.session = Outcome.of(error), None
                cell.seconds += time.monotonic() - start
                bar.advance(len(batch))


def _record(cell: _Open, reference: StageLogits) -> ValidationRecord:
    if cell.outcome.status != "ok":
        return ValidationRecord(cell.key, cell.outcome, None, None, None, None)
    logits = np.concatenate(cell.rows)
    qdq = reference.stages["qdq"] if cell.key.source == "qat" else None
    return ValidationRecord(
        key=cell.key,
        outcome=OK,
        accuracy=accuracy(logits, reference.labels),
        drift_float=drift(reference.stages["float"], logits),
        drift_qdq=None if qdq is None else drift(qdq, logits),
        seconds=cell.seconds,
    )


def _save(run: Run, records: Sequence[ValidationRecord]) -> None:
    fresh = {r.key for r in records}
    kept = [r for r in load_validation(run) if r.key not in fresh]
    write_json(run.path / VALIDATION, [to_dict(r) for r in [*kept, *records]])
    run.record(VALIDATION)


def _line(record: ValidationRecord) -> str:
    key = record.key
    what = f"{key.target} {key.runtime} {key.precision}{' ptq' if key.source == 'ptq' else ''}"
    if record.accuracy is None:
        return f"{what}: {record.outcome.status}: {record.outcome.reason}"
    parts = [f"top-1 {record.accuracy.top1_percent:.2f} % (n={record.accuracy.n})"]
    if record.drift_float:
        parts.append(f"{record.drift_float.agreement_percent:.2f} % agree with float")
    if record.drift_qdq:
        parts.append(f"{record.drift_qdq.agreement_percent:.2f} % with the QDQ reference")
    return f"{what}: {', '.join(parts)}"
