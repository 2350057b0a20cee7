"""What is stored of accuracy: of the torch stages, and of each file in a runtime on the validation images."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipeline.metrics.accuracy import Accuracy
from pipeline.metrics.drift import Drift
from pipeline.records.keys import CellKey, Outcome, StageName, check_seconds
from targets.types import RangeEvent
from targets.worker.facts import DeviceFacts


@dataclass(frozen=True)
class StageRecord:
    """Accuracy of one stage in PyTorch; `drift` is against the float stage, None for that stage itself."""

    stage: StageName
    accuracy: Accuracy
    drift: Drift | None

    def __post_init__(self) -> None:
        if self.stage == "float" and self.drift is not None:
            raise ValueError("the float stage is what drift is measured against, it has none itself")
        _check_same_n(self.accuracy, self.drift)


@dataclass(frozen=True)
class ValidationRecord:
    """One artifact in one runtime on the validation images; drift against the float and against the QDQ stage.

    Attributes:
        range_events: which operators left the range of their number format, in the order of the program; None where
            the runtime does not tell.
        device: what the device of `key` is; None for the host.
        load_ms: of opening the file in a fresh process; None where it was not measured, as for a simulation.
        peak_bytes: targets.types.Session.peak_bytes in that process; likewise.
    """

    key: CellKey
    outcome: Outcome
    accuracy: Accuracy | None
    drift_float: Drift | None
    drift_qdq: Drift | None
    seconds: float | None
    range_events: tuple[RangeEvent, ...] | None = None
    device: DeviceFacts | None = None
    load_ms: float | None = None
    peak_bytes: int | None = None

    def __post_init__(self) -> None:
        check_seconds(self.seconds)
        if (self.outcome.status == "ok") != (self.accuracy is not None):
            raise ValueError(f"a validation that is {self.outcome.status} with accuracy {self.accuracy}")
        if self.load_ms is not None and not (math.isfinite(self.load_ms) and self.load_ms > 0):
            raise ValueError(f"load_ms is {self.load_ms}")
        if self.peak_bytes is not None and self.peak_bytes < 1:
            raise ValueError(f"a peak of {self.peak_bytes} bytes: what was not measured is None")
        if self.accuracy is None and (self.drift_float or self.drift_qdq):
            raise ValueError("drift without accuracy: both come from the same logits")
        _check_same_n(self.accuracy, self.drift_float, self.drift_qdq)


def _check_same_n(accuracy: Accuracy | None, *drifts: Drift | None) -> None:
    counts = {r.n for r in (accuracy, *drifts) if r is not None}
    if len(counts) > 1:
        raise ValueError(f"accuracy and drift over different numbers of images: {sorted(counts)}")
