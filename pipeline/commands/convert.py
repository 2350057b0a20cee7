"""`convert`: a run's one checkpoint in, an artifact for each target and precision out."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.commands.options import (
    RUNS,
    PrecisionName,
    RunDir,
    RunsDir,
    TargetName,
    precisions_of,
    say,
    targets_of,
)  # fmt: skip
from pipeline.commands.summary import raise_if_failed
from pipeline.rundir import find_run


def convert(
    target: TargetName = None,
    precision: PrecisionName = None,
    ptq: Annotated[
        bool, typer.Option("--ptq", help="int8 by calibrating the float model, without the trained scales.")
    ] = False,
    run: RunDir = None,
    runs_dir: RunsDir = RUNS,
) -> None:
    """Convert, read the file back, run it in a fresh process, and only then put it into the run folder."""
    targets, precisions = targets_of(target), precisions_of(precision)
    found = find_run(runs_dir, run)
    from pipeline.stages.convert import convert_cells, plan_cells

    records = convert_cells(found, plan_cells(targets, precisions, ptq, say), say)
    for record in records:
        if record.path is not None:
            print(found.path / record.path)
    raise_if_failed("convert", ((f"{r.target} {r.precision}", r.outcome) for r in records))
