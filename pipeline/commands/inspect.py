"""`inspect`: what converted files hold, and what is known to go wrong with them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.commands.from_plans import from_plans
from pipeline.commands.options import RunChoice
from pipeline.errors import UsageError
from pipeline.records.keys import raise_if_failed
from targets.codec import to_dict

if TYPE_CHECKING:
    from pipeline.stages.inspection import Inspected


@from_plans
def inspect(
    *,
    path: Annotated[
        Path | None, typer.Argument(help="A .pte, .mlpackage or .tflite file; default: all artifacts of a run.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="JSON on stdout instead of tables.")] = False,
    where: RunChoice,
) -> None:
    from pipeline.stages.inspection import inspect_file, inspect_run

    if path is not None and where.run is not None:
        raise UsageError(f"both the file {path} and --run {where.run} were given: give one of them")
    found = inspect_run(where.find()) if path is None else inspect_file(path)
    (print_json if json else show)(found)
    raise_if_failed("be inspected", ((file.name, file.outcome) for file in found))


def show(files: Sequence[Inspected]) -> None:
    """A table for each file; a file that could not be read has one line with the reason."""
    from pipeline.report.tables.artifacts import file_facts
    from pipeline.report.tables.table import print_tables

    print_tables(
        f"\n{file.name}: {file.outcome.status}: {file.outcome.reason}"
        if file.facts is None
        else file_facts(f"{file.name} ({file.target})", file.facts)
        for file in files
    )


def print_json(files: Sequence[Inspected]) -> None:
    """{"artifacts": [{name, target, outcome, facts}]}; facts are null where the outcome is not ok."""
    print(json.dumps({"artifacts": [to_dict(file) for file in files]}, indent=2))
