"""A run in, the lines that end a command on stdout: what it reached and where it lies."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.errors import BelowBarError, CellsFailedError
from pipeline.records.cells import Outcome, ValidationRecord
from pipeline.run.folder import Run

STAGE_NAMES = {"float": "float", "fake_quant": "fake quantization", "qdq": "QDQ program"}


def print_run(run: Run) -> None:
    """Top-1 of the torch stages, the folder and the next step."""
    from pipeline.metrics.accuracy import accuracy
    from pipeline.run.checkpoint import load_logits

    logits = load_logits(run)
    for stage, values in logits.stages.items():
        scored = accuracy(values, logits.labels)
        print(f"{STAGE_NAMES[stage]}: top-1 {scored.top1_percent:.2f} % ({scored.top1} of {scored.n})")
    print(f"checkpoint: {run.path}/checkpoint")
    print("next: python main.py convert --target all")


def print_mixed(run: Run) -> None:
    """The trials for --max-drop, if there were any."""
    from pipeline.report.tables.mixed import mixed_table
    from pipeline.report.tables.table import print_tables
    from pipeline.run.cells import load_mixed

    record = load_mixed(run)
    if record is not None:
        print_tables([mixed_table(run.model, record)])


def raise_if_failed(what: str, outcomes: Iterable[tuple[str, Outcome]]) -> None:
    """
    Raises:
        CellsFailedError: names each failed cell with its stage and cause. Unavailable cells are no failure.
    """
    failed = [f"{name}: {o.stage}: {o.reason}" for name, o in outcomes if o.status == "failed"]
    if failed:
        raise CellsFailedError(f"{len(failed)} cells failed to {what}:\n  " + "\n  ".join(failed))


def raise_if_below(bar: float, records: Iterable[ValidationRecord]) -> None:
    """Artifacts of the trained checkpoint are held against its QDQ program, others against the float model.

    Raises:
        BelowBarError: names each artifact with less than `bar` percent agreement; also where none was measured.
    """
    measured = [(r.key, drift) for r in records if (drift := r.drift_qdq or r.drift_float)]
    if not measured:
        raise BelowBarError(f"no artifact was measured on this machine: agreement of at least {bar:g} % is not shown")
    below = [(key, drift) for key, drift in measured if drift.agreement_percent < bar]
    if below:
        lines = (f"{key.label}: {drift.agreement_percent:.2f} % (n={drift.n})" for key, drift in below)
        raise BelowBarError(
            f"{len(below)} of {len(measured)} artifacts agree on less than {bar:g} % of the images:\n  "
            + "\n  ".join(lines)
        )
