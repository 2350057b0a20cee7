"""`validate`: a run's artifacts in, their accuracy and drift on the validation images out."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.commands.device_options import (
    PYTHON,
    BenchmarkModel,
    Cpus,
    DeviceAddress,
    DeviceTimeout,
    ExecutorRunner,
    Identity,
    KnownHosts,
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
from pipeline.commands.summary import raise_if_below, raise_if_failed
from pipeline.errors import UsageError, suggest
from pipeline.run.folder import find_run
from targets import registry


def validate(
    target: TargetName = None,
    backend: BackendName = None,
    compute_units: ComputeUnits = "all",
    limit: Annotated[int | None, typer.Option(help="Images, evenly spread.  \\[default: all that were scored]")] = None,
    threads: Annotated[int, typer.Option(help="Threads of the runtime.")] = 2,
    min_agreement: Annotated[
        float | None,
        typer.Option(help="Percent of images; exit with 8 if an artifact agrees with its PyTorch reference on fewer."),
    ] = None,
    simulate: Annotated[
        bool, typer.Option(help="Compute Core ML packages by the MIL reference too; labelled as simulated.")
    ] = True,
    rounding: Annotated[
        list[str] | None,
        typer.Option(
            help="Rounding of the MIL reference: fp32, fp16 or fp16-accumulate; may be repeated.  \\[default: all]"
        ),
    ] = None,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Then tell which stage, and which layers, the loss is in (waterfall.json)."),
    ] = False,
    explain_images: Annotated[int, typer.Option(help="Images that --explain looks into the layers with.")] = 16,
    device: DeviceAddress = "host",
    device_timeout: DeviceTimeout = None,
    cpus: Cpus = "",
    benchmark_model: BenchmarkModel = None,
    executor_runner: ExecutorRunner = None,
    known_hosts: KnownHosts = None,
    identity: Identity = None,
    remote_python: RemotePython = PYTHON,
    resume: Resume = False,
    run: RunDir = None,
    runs_dir: RunsDir = RUNS,
) -> None:
    """Run every artifact in its real runtime, on this host or a device, on the images that scored the checkpoint."""
    targets = targets_of(target, backend)
    address = address_of(device)
    options = options_of(
        address, device_timeout, cpus, benchmark_model, executor_runner, known_hosts, identity, remote_python
    )
    if explain and address.kind != "host":
        raise UsageError(f"--explain looks into files on this host, not on --device {device}: leave one of them out")
    units = compute_units_of(compute_units, targets)
    if limit is not None and limit < 1:
        raise UsageError(f"--limit is {limit}: give at least 1")
    if threads < 1:
        raise UsageError(f"--threads is {threads}: give at least 1")
    if min_agreement is not None and not 0 <= min_agreement <= 100:
        raise UsageError(f"--min-agreement is {min_agreement}: give a percentage from 0 to 100")
    if explain_images < 1:
        raise UsageError(f"--explain-images is {explain_images}: give at least 1")
    roundings = _roundings(rounding)
    found = find_run(runs_dir, run)
    from pipeline.stages.validate import validate_run

    explainer = None
    if explain:
        from pipeline.report.tables.waterfall import show_waterfall
        from pipeline.stages.explain import Explainer

        explainer = Explainer(found, limit, explain_images)
    look = None if explainer is None else explainer.look
    with place_of(address, options, None, 0.0, True) as on:
        records = validate_run(found, targets, limit, threads, say, units, simulate, roundings, look, on, resume)
    if explainer is not None:
        show_waterfall(explainer.finish(say))
    raise_if_failed("run", ((r.key.label, r.outcome) for r in records))
    if min_agreement is not None:
        raise_if_below(min_agreement, records)


def _roundings(names: list[str] | None) -> tuple[str, ...]:
    """
    Raises:
        UsageError: an unknown rounding model.
    """
    known = [rounding for target in registry.everyone() for rounding in target.roundings]
    for name in names or ():
        if name not in known:
            raise UsageError(f"--rounding {name!r} is not one of {', '.join(known)}.{suggest(name, known)}")
    return tuple(names or ())
