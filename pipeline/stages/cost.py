"""What files cost without timing them: instructions on an emulated processor, and the compute plans of Core ML."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.errors import UsageError
from pipeline.progress import Say, progress
from pipeline.records.conversion import ConversionRecord
from pipeline.records.keys import OK, Outcome
from pipeline.records.latency import InstructionRecord, PlanRecord
from pipeline.run.cells import artifact_path, cell_key, chosen, load_instructions, save_cells
from pipeline.run.folder import Run
from pipeline.run.layout import COMPUTE_PLAN, INSTRUCTIONS
from pipeline.stages.devices import Place
from pipeline.stages.timing import noise
from targets import registry
from targets.devices.device import CountsInstructions
from targets.types import TargetError
from targets.worker.host import HostWorker


def count_run(
    run: Run, targets: Sequence[str], on: Place, say: Say, resume: bool = False, seed: int = 0
) -> tuple[InstructionRecord, ...]:
    """Count every artifact of `targets` in every runtime there and write instructions.json (other cells are kept).

    Args:
        resume: leave out files that were counted before.

    Raises:
        UsageError: nothing was converted, or the device counts nothing.
    """
    device = on.device
    if not isinstance(device, CountsInstructions):
        raise UsageError(f"{on.label} counts no instructions: give --on qemu-arm64")
    cells = on.runtimes(chosen(run, targets, "count the instructions of"), registry.ALL_UNITS)
    before = {record.key: record for record in load_instructions(run)} if resume else {}
    records = []
    with progress(f"counting instructions on {on.label}", len(cells), "files") as bar:
        for conversion, runtime in cells:
            assert conversion.sha256 is not None  # it is ok
            key = cell_key(conversion, runtime, on.label)
            known = before.get(key)
            if known is None or known.sha256 != conversion.sha256 or known.count is None:
                image = noise(run, conversion, 1, seed)
                path = artifact_path(run, conversion)
                try:
                    count = device.count_instructions(conversion.target, path, runtime, image)
                    known = InstructionRecord(key, OK, conversion.sha256, count)
                    say(f"{key.label}: {count.per_inference / 1e6:,.2f} million instructions ({count.counted_by})")
                except TargetError as error:
                    known = InstructionRecord(key, Outcome.of(error), conversion.sha256, None)
                    say(f"{key.label}: {known.outcome.status}: {known.outcome.reason}")
                save_cells(run, INSTRUCTIONS, InstructionRecord, [known])
            records.append(known)
            bar.advance()
    return tuple(records)


def planning() -> tuple[str, ...]:
    """The targets whose frameworks can be asked."""
    return tuple(target.name for target in registry.everyone() if target.plan is not None)


def plan_run(run: Run, compute_units: str, say: Say) -> tuple[PlanRecord, ...]:
    """Plan every file of targets that have plans, and write compute-plan.json (other compute units are kept).

    Raises:
        UsageError: the run has no such file.
    """
    records = tuple(_plan(run, conversion, compute_units) for conversion in chosen(run, planning(), "plan"))
    for record in records:
        say(_line(record))
    save_cells(run, COMPUTE_PLAN, PlanRecord, records)
    return records


def _plan(run: Run, conversion: ConversionRecord, compute_units: str) -> PlanRecord:
    (runtime,) = registry.runtimes(conversion.target, compute_units)
    key = cell_key(conversion, runtime)
    try:
        with HostWorker() as worker:  # a framework that aborts ends this file's plan alone
            return PlanRecord(key, OK, worker.plan(conversion.target, artifact_path(run, conversion), compute_units))
    except TargetError as error:
        return PlanRecord(key, Outcome.of(error), None)


def _line(record: PlanRecord) -> str:
    what = f"compute plan of {record.key.label}"
    if record.plan is None:
        return f"{what}: {record.outcome.status}: {record.outcome.reason}"
    units = ", ".join(f"{count} on {unit}" for unit, count in record.plan.operations_by_unit().items())
    return f"{what}: {units}; compiled and loaded in {record.plan.load_ms:.0f} ms"
