"""A run in, the lines that end a command on stdout: what it reached and where it lies."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.errors import CellsFailedError
from pipeline.reports.records import Outcome
from pipeline.rundir import Run

STAGE_NAMES = {"float": "float", "fake_quant": "fake quantization", "qdq": "QDQ program"}


def print_run(run: Run) -> None:
    """Top-1 of the torch stages, the folder and the next step."""
    from pipeline.metrics.accuracy import accuracy
    from pipeline.qat.checkpoint import load_logits

    logits = load_logits(run)
    for stage, values in logits.stages.items():
        scored = accuracy(values, logits.labels)
        print(f"{STAGE_NAMES[stage]}: top-1 {scored.top1_percent:.2f} % ({scored.top1} of {scored.n})")
    print(f"checkpoint: {run.path}/checkpoint")
    print("next: python main.py convert --target all")


def raise_if_failed(what: str, outcomes: Iterable[tuple[str, Outcome]]) -> None:
    """
    Raises:
        CellsFailedError: names each failed cell with its stage and cause. Unavailable cells are no failure.
    """
    failed = [f"{name}: {o.stage}: {o.reason}" for name, o in outcomes if o.status == "failed"]
    if failed:
        raise CellsFailedError(f"{len(failed)} cells failed to {what}:\n  " + "\n  ".join(failed))
