"""The control of latency figures: a run of MobileNetV2 on the same images."""

from __future__ import annotations

from pathlib import Path

from pipeline.run import layout
from pipeline.run.facts import read_subject
from pipeline.run.folder import Run, list_runs

CONTROL_MODEL = "mobilenet_v2"
#: Fact in the manifest of a control that was made here for its latency only: its accuracy means nothing.
LATENCY_ONLY = "latency_only"


def existing_control(root: Path, run: Run) -> Run | None:
    """The newest finished MobileNetV2 run on the same images and input size, trained ones before latency-only ones."""
    wanted = _conditions(run)
    fitting = [
        r for r in list_runs(root) if r.model == CONTROL_MODEL and r.status == "finished" and _conditions(r) == wanted
    ]
    fitting.sort(key=lambda r: (not r.manifest.get(LATENCY_ONLY, False), r.id))
    return fitting[-1] if fitting else None


def _conditions(run: Run) -> tuple[str, tuple[int, ...]] | None:
    """Digest of the validation images and the size at which the model sees them; None if the run has none yet."""
    if not run.has(layout.SUBJECT):
        return None
    subject = read_subject(run)
    return subject.data.val_digest, subject.model_config.input_size
