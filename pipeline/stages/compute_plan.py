"""Compute plans on this host: a run's Core ML packages in, one PlanRecord each and compute-plan.json out."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.records.cells import OK, ConversionRecord, Outcome, PlanRecord
from pipeline.run.cells import artifact_path, cell_key, chosen, load_cells, save_cells
from pipeline.run.folder import Run
from targets import registry
from targets.coreml.compute_plan import plan_of
from targets.types import TargetError

PLAN = "compute-plan.json"
TARGET = "coreml"


def plan_run(run: Run, compute_units: str, say: Callable[[str], None]) -> tuple[PlanRecord, ...]:
    """Plan every package of the run and write compute-plan.json (plans for other compute units are kept).

    Raises:
        UsageError: the run has no package.
    """
    records = tuple(_plan(run, conversion, compute_units) for conversion in chosen(run, [TARGET], "plan"))
    for record in records:
        say(_line(record))
    save_cells(run, PLAN, PlanRecord, records)
    return records


def load_plans(run: Run) -> tuple[PlanRecord, ...]:
    """Records of earlier plans; empty when there were none."""
    return load_cells(run, PLAN, PlanRecord)


def _plan(run: Run, conversion: ConversionRecord, compute_units: str) -> PlanRecord:
    (runtime,) = registry.runtimes(TARGET, compute_units)
    key = cell_key(conversion, runtime)
    try:
        return PlanRecord(key, OK, plan_of(artifact_path(run, conversion), compute_units))
    except TargetError as error:
        return PlanRecord(key, Outcome.of(error), None)


def _line(record: PlanRecord) -> str:
    what = f"compute plan of {record.key.label}"
    if record.plan is None:
        return f"{what}: {record.outcome.status}: {record.outcome.reason}"
    units = ", ".join(f"{count} on {unit}" for unit, count in record.plan.operations_by_unit().items())
    return f"{what}: {units}; compiled and loaded in {record.plan.load_ms:.0f} ms"
