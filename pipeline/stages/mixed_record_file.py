"""A run folder in, the record of its mixed precision out, without torch."""

from __future__ import annotations

from pipeline.reports.codec import from_dict
from pipeline.reports.mixed_record import MixedRecord
from pipeline.rundir import Run

MIXED = "mixed.json"


def load_mixed(run: Run) -> MixedRecord | None:
    """None for a run that no float layers were asked for in.

    Raises:
        RunError: the file changed or is damaged.
    """
    return from_dict(MixedRecord, run.read_json(MIXED), MIXED) if run.has(MIXED) else None
