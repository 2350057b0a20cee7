"""`inspect`: show what converted files hold, and what is known to go wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.options import RUNS, RunDir, RunsDir
from pipeline.errors import UsageError


def inspect(
    path: Annotated[
        Path | None, typer.Argument(help="A .pte, .mlpackage or .tflite file; default: all artifacts of a run.")
    ] = None,
    run: RunDir = None,
    json: Annotated[bool, typer.Option("--json", help="JSON on stdout instead of tables.")] = False,
    runs_dir: RunsDir = RUNS,
) -> None:
    """Operators and weights by dtype, and cautions, read from the files; exit code 6 if one cannot be read."""
    if path is not None and run is not None:
        raise UsageError(f"both the file {path} and --run {run} were given: give one of them")
    from pipeline.commands.summary import raise_if_failed
    from pipeline.run.folder import find_run
    from pipeline.stages import inspection as inspected
    from pipeline.stages.inspection import inspect_file, inspect_run

    found = inspect_run(find_run(runs_dir, run)) if path is None else inspect_file(path)
    (inspected.print_json if json else inspected.show)(found)
    raise_if_failed("be inspected", ((file.name, file.outcome) for file in found))
