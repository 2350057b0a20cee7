"""What is recorded of a run, as frozen dataclasses: raw counts and samples, in `report.json` (schema 1).

Percentages, medians and intervals are not stored: they are derived when a report is rendered.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.records.conversion import ConversionRecord
from pipeline.records.keys import check_sha256
from pipeline.records.latency import InstructionRecord, LatencyRecord
from pipeline.records.mixed import MixedRecord
from pipeline.records.validation import StageRecord, ValidationRecord
from pipeline.records.waterfall import WaterfallRecord
from targets.codec import to_dict

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class DataRecord:
    """The images: data set name, split sizes, and the digests that name exactly which images these were."""

    name: str
    n_train: int
    n_val: int
    train_digest: str | None
    val_digest: str

    def __post_init__(self) -> None:
        if self.n_train < 0 or self.n_val < 1:
            raise ValueError(f"{self.n_train} training and {self.n_val} validation images")


@dataclass(frozen=True)
class WeightsRecord:
    """Where the float weights came from ("demo", "pretrained", "none" or a file name), and the file's sha256."""

    source: str
    sha256: str | None

    def __post_init__(self) -> None:
        if self.sha256 is not None:
            check_sha256(self.sha256)


@dataclass(frozen=True)
class RunRecord:
    """Everything known of one run of one model. The free-form mappings hold plain JSON values.

    Attributes:
        preprocessing: how images are prepared, every value with its source, in one line.
    """

    run_id: str
    model: str
    created_utc: str
    num_classes: int
    parameters: int
    data: DataRecord
    weights: WeightsRecord
    scheme: Mapping[str, object]
    calibration: Mapping[str, object]
    training: Mapping[str, object]
    stages: tuple[StageRecord, ...]
    conversions: tuple[ConversionRecord, ...]
    validations: tuple[ValidationRecord, ...]
    latencies: tuple[LatencyRecord, ...]
    provenance: Mapping[str, object]
    waterfall: WaterfallRecord | None = None
    mixed: MixedRecord | None = None
    instructions: tuple[InstructionRecord, ...] = ()
    preprocessing: str = ""


@dataclass(frozen=True)
class Report:
    """The run that the report is about, and the runs that stand beside it (the control's)."""

    schema_version: int
    generated_utc: str
    runs: tuple[RunRecord, ...]


def report_to_json(report: Report) -> str:
    """The text of `report.json`."""
    return json.dumps(to_dict(report), indent=2, allow_nan=False) + "\n"
