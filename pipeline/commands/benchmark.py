"""`benchmark`: latency of a run's artifacts, measured in turns with their float files and MobileNetV2's."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.commands.device_options import TimedDevice
from pipeline.commands.from_plans import Given, from_plans
from pipeline.commands.options import ComputeUnits, RunChoice, TargetChoice, compute_units_of, say
from pipeline.config import TimingPlan, spread
from pipeline.errors import UsageError
from pipeline.records.keys import raise_if_failed
from targets import registry


@from_plans
def benchmark(
    *,
    choice: TargetChoice,
    compute_units: ComputeUnits = registry.ALL_UNITS,
    compute_plan: Annotated[
        bool,
        typer.Option("--compute-plan", help="Also show on which unit of a Mac Core ML plans to run each operator."),
    ] = False,
    timing: Given[TimingPlan],
    against: Annotated[
        list[str] | None,
        typer.Option(
            help="float (the same model in float32), mobilenet_v2 (its newest run on the same images, else made), "
            "another run, or none (repeatable).  \\[default: float and mobilenet_v2]"
        ),
    ] = None,
    device: TimedDevice,
    where: RunChoice,
) -> None:
    targets = choice.names()
    from pipeline.stages.cost import plan_run, planning

    if compute_plan and device.address.kind != "host":
        raise UsageError(f"--compute-plan is for this host, not for --on {device.on}: run it on the Mac itself")
    chosen_units = compute_units_of(compute_units, targets)
    if compute_plan and not set(planning()) & set(targets):
        raise UsageError(
            f"--compute-plan is for --target {', '.join(planning())}, not for {', '.join(targets)}: leave it out"
        )
    from pipeline.report.collect import first_table
    from pipeline.report.tables.artifacts import plan_tables
    from pipeline.report.tables.table import print_tables
    from pipeline.stages.against import against_of, prepare
    from pipeline.stages.benchmark import benchmark_run
    from pipeline.stages.cost import count_run

    named = "processes" in timing.named
    plan = timing.make() if named else timing.make(processes=spread(timing.values["rounds"]))
    beside = against_of(against)
    found = where.find()
    with device.place() as on:
        other = prepare(where.runs_dir, found, beside, targets, chosen_units, on, say)
        records = benchmark_run(
            found, other, targets, plan, say, chosen_units, on, device.resume, floating=beside.floating
        )
        counts = () if on.device.times else count_run(found, targets, on, say, device.resume)
    plans = plan_run(found, chosen_units, say) if compute_plan else ()
    print_tables([*first_table(found), *(table for record in plans for table in plan_tables(record))])
    outcomes = [*((r.key, r.outcome) for r in records), *((r.key, r.outcome) for r in plans)]
    outcomes += [(r.key, r.outcome) for r in counts]
    raise_if_failed("run", ((key.label, outcome) for key, outcome in outcomes))
