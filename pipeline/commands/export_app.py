"""`export-app`: a run's files in, a folder out that an app can use as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.from_plans import from_plans
from pipeline.commands.options import PrecisionName, RunsFolder, TargetChoice, precisions_of, say
from pipeline.errors import UsageError
from pipeline.run.folder import find_run


@from_plans
def export_app(
    *,
    run: Annotated[
        Path | None, typer.Argument(metavar="RUN", help="A run folder or its name.  \\[default: the latest run]")
    ] = None,
    choice: TargetChoice,
    precision: PrecisionName = None,
    license: Annotated[str, typer.Option(help="Of the model, for its card: a name or a text.")] = "",
    runs: RunsFolder,
) -> None:
    targets, precisions = choice.names(), precisions_of(precision)
    if len(precisions) != 1:
        raise UsageError(f"--precision {', '.join(precisions)}: an app gets one file for each target, give one")
    from pipeline.stages.export_app import export_app as export

    print(export(find_run(runs.runs_dir, run), runs.runs_dir, targets, precisions[0], license, say))
