"""`benchmark`: a run's artifacts in, latency samples interleaved with MobileNetV2's out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.options import RUNS, RunDir, RunsDir, TargetName, say, targets_of
from pipeline.commands.summary import raise_if_failed
from pipeline.rundir import find_run


def benchmark(
    target: TargetName = None,
    threads: Annotated[int, typer.Option(help="Threads of the runtime.")] = 1,
    rounds: Annotated[int, typer.Option(help="Rounds in which model and control take turns.")] = 10,
    samples: Annotated[int, typer.Option(help="Inferences of each in a round.")] = 5,
    warmup: Annotated[int, typer.Option(help="Inferences before, kept apart.")] = 5,
    control: Annotated[
        Path | None,
        typer.Option(help="Run of mobilenet_v2 to time against.  [default: the newest on the same images, else made]"),
    ] = None,
    run: RunDir = None,
    runs_dir: RunsDir = RUNS,
) -> None:
    """Time every artifact on this host against MobileNetV2 in the same runtime and precision, round by round."""
    targets = targets_of(target)
    from pipeline.stages.benchmark import TimingPlan, benchmark_run
    from pipeline.stages.control import ensure_control

    plan = TimingPlan(threads=threads, warmup=warmup, rounds=rounds, samples=samples)
    found = find_run(runs_dir, run)
    records = benchmark_run(found, ensure_control(runs_dir, found, control, targets, say), targets, plan, say)
    raise_if_failed("run", ((f"{r.key.target} {r.key.runtime} {r.key.precision}", r.outcome) for r in records))
