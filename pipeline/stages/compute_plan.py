"""Compute plans on this host: which hardware each operation of a file is meant to run on, where a framework tells."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.records.cells import OK, ConversionRecord, Outcome, PlanRecord
from pipeline.run.cells import artifact_path, cell_key, chosen, save_cells
from pipeline.run.folder import Run
from targets import registry
from targets.types import TargetError

PLAN = "compute-plan.json"


def planning() -> tuple[str, ...]:
    """The targets whose frameworks can be asked."""
    return tuple(target.name for target in registry.everyone() if target.plan is not None)


def plan_run(run: Run, compute_units: str, say: Callable[[str], None]) -> tuple[PlanRecord, ...]:
    """Plan every file of targets that have plans, and write compute-plan.json (other compute units are kept).

    Raises:
        UsageError: the run has no such file.
    """
    records = tuple(_plan(run, conversion, compute_units) for conversion in chosen(run, planning(), "plan"))
    for record in records:
        say(_line(record))
    save_cells(run, PLAN, PlanRecord, records)
    return records


def _plan(run: Run, conversion: ConversionRecord, compute_units: str) -> PlanRecord:
    (runtime,) = registry.runtimes(conversion.target, compute_units)
    key, plan = cell_key(conversion, runtime), registry.get(conversion.target).plan
    assert plan is not None  # of planning()
    try:
        return PlanRecord(key, OK, plan(artifact_path(run, conversion), compute_units))
    except TargetError as error:
        return PlanRecord(key, Outcome.of(error), None)


def _line(record: PlanRecord) -> str:
    what = f"compute plan of {record.key.label}"
    if record.plan is None:
        return f"{what}: {record.outcome.status}: {record.outcome.reason}"
    units = ", ".join(f"{count} on {unit}" for unit, count in record.plan.operations_by_unit().items())
    return f"{what}: {units}; compiled and loaded in {record.plan.load_ms:.0f} ms"
