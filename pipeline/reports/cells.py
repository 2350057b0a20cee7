"""A report in, its cells out: one for each model x target x runtime x precision x device, with what is known of it."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.reports.records import (
    HOST,
    SIMULATED,
    CellKey,
    ConversionRecord,
    LatencyRecord,
    Source,
    ValidationRecord,
)
from pipeline.reports.schema import Report, RunRecord
from targets.types import Precision


@dataclass(frozen=True)
class Cell:
    """Conversion, validation and latency of one artifact in one runtime; None where that step was not done.

    `runtime` and `device` are None for an artifact that no runtime was tried on. What the reference computed of an
    artifact is a cell of its own, with one record for each rounding model in `simulations` and nothing measured.
    """

    run_id: str
    model: str
    target: str
    precision: Precision
    source: Source
    runtime: str | None
    device: str | None
    conversion: ConversionRecord | None
    validation: ValidationRecord | None
    latency: LatencyRecord | None
    simulations: tuple[ValidationRecord, ...] = ()

    @property
    def variant(self) -> str:
        """Precision, and for int8 where the scales come from: "fp32", "int8 qat", "int8 ptq"."""
        return variant_name(self.precision, self.source)

    @property
    def key(self) -> CellKey | None:
        """What records of other runs call it by; None if no runtime was tried."""
        if self.runtime is None or self.device is None or self.simulations:
            return None
        return CellKey(self.model, self.target, self.runtime, self.precision, self.source, self.device)

    @property
    def place(self) -> str:
        """Target and runtime, named once where both have one name: "executorch", "tflite / litert on adb:0A1B"."""
        if self.simulations:
            return f"{self.target}, {SIMULATED}"
        where = "" if self.device in (None, HOST) else f" on {self.device}"
        if self.runtime is None or self.runtime == self.target:
            return self.target + where
        return f"{self.target} / {self.runtime}{where}"


def variant_name(precision: Precision, source: Source) -> str:
    """ "fp32", "int8 qat"."""
    return precision if source == "float" else f"{precision} {source}"


def cells(report: Report) -> tuple[Cell, ...]:
    """All cells, run by run; within a run in the order of its conversions, then by first appearance."""
    return tuple(cell for run in report.runs for cell in run_cells(run))


def run_cells(run: RunRecord) -> tuple[Cell, ...]:
    """The cells of one run."""
    validations = {record.key: record for record in run.validations}
    latencies = {record.key: record for record in run.latencies}
    keys: dict[tuple[str, Precision, Source], list[CellKey]] = {
        (c.target, c.precision, c.source): [] for c in run.conversions
    }
    measured = [key for key in dict.fromkeys([*validations, *latencies]) if not key.simulated]
    for tried_key in measured:
        keys.setdefault((tried_key.target, tried_key.precision, tried_key.source), []).append(tried_key)
    conversions = {(c.target, c.precision, c.source): c for c in run.conversions}
    found: list[Cell] = []
    for (target, precision, source), tried in keys.items():
        conversion = conversions.get((target, precision, source))
        each: list[CellKey | None] = [*tried] or [None]  # an artifact that was not tried anywhere is a cell too
        for key in each:
            found.append(
                Cell(
                    run_id=run.run_id,
                    model=run.model,
                    target=target,
                    precision=precision,
                    source=source,
                    runtime=key.runtime if key else None,
                    device=key.device if key else None,
                    conversion=conversion,
                    validation=validations.get(key) if key else None,
                    latency=latencies.get(key) if key else None,
                )
            )
        if simulations := _simulations(run, target, precision, source):
            found.append(
                Cell(
                    run.run_id,
                    run.model,
                    target,
                    precision,
                    source,
                    SIMULATED,
                    SIMULATED,
                    conversion,
                    None,
                    None,
                    simulations,
                )
            )
    return tuple(found)


def _simulations(run: RunRecord, target: str, precision: Precision, source: Source) -> tuple[ValidationRecord, ...]:
    return tuple(
        r
        for r in run.validations
        if r.key.simulated and (r.key.target, r.key.precision, r.key.source) == (target, precision, source)
    )


def control_model(report: Report) -> str | None:
    """The model that latencies are compared with; None if no latency has a control."""
    for run in report.runs:
        for record in run.latencies:
            if record.control is not None:
                return record.control.model
    return None


def control_title(report: Report) -> str:
    """Its name for a heading."""
    model = control_model(report)
    return {"mobilenet_v2": "MobileNetV2", None: "control"}.get(model, model or "control")
