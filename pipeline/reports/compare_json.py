"""A comparison of two runs in, the text of its JSON out: the record, and what follows from its counts beside them."""

from __future__ import annotations

import json
from typing import Any

from pipeline.metrics.accuracy import CONFIDENCE, Accuracy, wilson_percent
from pipeline.reports.codec import to_dict
from pipeline.reports.compare_record import Comparison, PairedImages

SCHEMA_VERSION = 1


def render(comparison: Comparison) -> str:
    """Intervals have 95% confidence; drops are in percentage points from A to B."""
    data = to_dict(comparison)
    for kept, record in [*_zip(data["stages"], comparison.stages), *_zip(data["cells"], comparison.cells)]:
        if record.paired is not None:
            kept["paired"]["statistics"] = _statistics(record.paired)
        for side in ("a", "b"):
            half = getattr(record, side)
            accuracy = half if isinstance(half, Accuracy) or half is None else half.accuracy
            if accuracy is not None:
                counts = kept[side] if half is accuracy else kept[side]["accuracy"]
                counts["top1_percent"] = accuracy.top1_percent
                counts["top1_interval_percent"] = list(wilson_percent(accuracy.top1, accuracy.n))
    return json.dumps({"schema_version": SCHEMA_VERSION, "confidence": CONFIDENCE, **data}, indent=2) + "\n"


def _zip(kept: list[dict[str, Any]], records: tuple[Any, ...]) -> list[tuple[dict[str, Any], Any]]:
    return list(zip(kept, records, strict=True))


def _statistics(paired: PairedImages) -> dict[str, object]:
    change = paired.change
    return {
        "drop_pp": change.drop_pp,
        "drop_interval_pp": list(change.interval_pp()),
        "mcnemar_p": change.p_value,
        "smallest_detectable_drop_pp": change.detectable_pp(),
        "same_class_percent": paired.same_class.percent,
    }
