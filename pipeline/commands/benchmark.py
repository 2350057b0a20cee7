"""`benchmark`: a run's artifacts in, latency samples interleaved with MobileNetV2's out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.device_options import (
    PYTHON,
    AnyCondition,
    BenchmarkModel,
    CoolDown,
    Cpus,
    DeviceAddress,
    DeviceTimeout,
    ExecutorRunner,
    Identity,
    KnownHosts,
    MaxTemperature,
    RemotePython,
    Resume,
    address_of,
    options_of,
    place_of,
)
from pipeline.commands.options import (
    RUNS,
    BackendName,
    ComputeUnits,
    RunDir,
    RunsDir,
    TargetName,
    compute_units_of,
    say,
    targets_of,
)
from pipeline.commands.summary import raise_if_failed
from pipeline.errors import UsageError
from pipeline.run.folder import find_run


def benchmark(
    target: TargetName = None,
    backend: BackendName = None,
    compute_units: ComputeUnits = "all",
    compute_plan: Annotated[
        bool,
        typer.Option("--compute-plan", help="Also which unit of a Mac Core ML means to run each operator on."),
    ] = False,
    threads: Annotated[int, typer.Option(help="Threads of the runtime.")] = 1,
    rounds: Annotated[int, typer.Option(help="Rounds in which model and control take turns.")] = 40,
    samples: Annotated[int, typer.Option(help="Inferences of each in a round.")] = 4,
    warmup: Annotated[int, typer.Option(help="Inferences before, kept apart.")] = 5,
    processes: Annotated[
        int | None,
        typer.Option(help="Fresh processes that the rounds are spread over.  \\[default: 5, or fewer if they must]"),
    ] = None,
    control: Annotated[
        Path | None,
        typer.Option(
            help="Run of mobilenet_v2 to time against.  \\[default: the newest on the same images, else made]"
        ),
    ] = None,
    device: DeviceAddress = "host",
    device_timeout: DeviceTimeout = None,
    cpus: Cpus = "",
    benchmark_model: BenchmarkModel = None,
    executor_runner: ExecutorRunner = None,
    known_hosts: KnownHosts = None,
    identity: Identity = None,
    remote_python: RemotePython = PYTHON,
    max_temperature: MaxTemperature = None,
    cool_down: CoolDown = 300.0,
    any_condition: AnyCondition = False,
    resume: Resume = False,
    run: RunDir = None,
    runs_dir: RunsDir = RUNS,
) -> None:
    """Time every artifact on a device against MobileNetV2 in the same runtime and precision, round by round."""
    targets = targets_of(target, backend)
    address = address_of(device)
    options = options_of(
        address, device_timeout, cpus, benchmark_model, executor_runner, known_hosts, identity, remote_python
    )
    if compute_plan and address.kind != "host":
        raise UsageError(f"--compute-plan is for this host, not for --device {device}: run it on the Mac itself")
    units = compute_units_of(compute_units, targets)
    if compute_plan and "coreml" not in targets:
        raise UsageError(f"--compute-plan is for --target coreml, not for {', '.join(targets)}: leave it out")
    from pipeline.report.tables.artifacts import plan_tables
    from pipeline.report.tables.table import print_tables
    from pipeline.stages.benchmark import benchmark_run
    from pipeline.stages.compute_plan import plan_run
    from pipeline.stages.control import ensure_control
    from pipeline.stages.instructions import count_run
    from pipeline.stages.timing import TimingPlan, spread

    if processes is None:
        processes = spread(rounds)
    plan = TimingPlan(threads=threads, warmup=warmup, rounds=rounds, samples=samples, processes=processes)
    found = find_run(runs_dir, run)
    with place_of(address, options, max_temperature, cool_down, any_condition) as on:
        beside = ensure_control(runs_dir, found, control, targets, say)
        records = benchmark_run(found, beside, targets, plan, say, units, on, resume)
        counts = () if on.device.times else count_run(found, targets, on, say, resume)
    plans = plan_run(found, units, say) if compute_plan else ()
    print_tables(table for record in plans for table in plan_tables(record))
    outcomes = [*((r.key, r.outcome) for r in records), *((r.key, r.outcome) for r in plans)]
    outcomes += [(r.key, r.outcome) for r in counts]
    raise_if_failed("run", ((key.label, outcome) for key, outcome in outcomes))
