"""`inspect`: what converted files hold, and what is known to go wrong with them; each is read in a worker process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.from_plans import from_plans
from pipeline.commands.options import RunChoice, raise_if_failed
from pipeline.errors import UsageError
from pipeline.records.conversion import FactsRecord
from pipeline.records.keys import OK, Outcome
from pipeline.run.cells import artifact_path, load_conversions
from pipeline.run.folder import Run
from targets import registry
from targets.codec import to_dict
from targets.types import TargetError
from targets.worker.host import HostWorker


@from_plans
def inspect(
    *,
    path: Annotated[
        Path | None, typer.Argument(help="A .pte, .mlpackage or .tflite file; default: all artifacts of a run.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="JSON on stdout instead of tables.")] = False,
    where: RunChoice,
) -> None:
    """Operators and weights by dtype, and cautions, read from the files; exit code 6 if one cannot be read."""
    if path is not None and where.run is not None:
        raise UsageError(f"both the file {path} and --run {where.run} were given: give one of them")
    found = inspect_run(where.find()) if path is None else inspect_file(path)
    (print_json if json else show)(found)
    raise_if_failed("be inspected", ((file.name, file.outcome) for file in found))


def inspect_file(path: Path) -> tuple[Inspected, ...]:
    """The facts of one file; its suffix says which targets' it can be, and the first that can read it is taken.

    Raises:
        UsageError: there is no such file, or no target writes such files.
    """
    suffixes = {name: registry.get(name).suffix for name in registry.variants()}
    targets = [name for name, suffix in suffixes.items() if suffix == path.suffix.lower()]
    if not targets:
        known = ", ".join(dict.fromkeys(suffixes.values()))
        raise UsageError(f"{path} has the suffix {path.suffix!r}, which no target writes: known are {known}")
    if not path.exists():
        raise UsageError(f"{path} does not exist: give the path of a converted file, or --run for those of a run")
    tried: list[Inspected] = []
    for target in targets:
        tried.append(_inspected(str(path), target, path))
        if tried[-1].facts is not None:
            return (tried[-1],)
    return (tried[0],)


def inspect_run(run: Run) -> tuple[Inspected, ...]:
    """The facts of every published artifact of a run, read anew.

    Raises:
        UsageError: the run has none.
        RunError: one of them changed after it was written.
    """
    records = [record for record in load_conversions(run) if record.path is not None]
    if not records:
        raise UsageError(f"run {run.id} has no artifacts: `python main.py convert --run {run.id}` makes them")
    return tuple(_inspected(str(record.path), record.target, artifact_path(run, record)) for record in records)


def _inspected(name: str, target: str, path: Path) -> Inspected:
    """In a worker of its own: a damaged file can take its reader down with it."""
    try:
        with HostWorker() as worker:
            return Inspected(name, target, OK, FactsRecord.of(worker.inspect(target, path)))
    except TargetError as error:
        return Inspected(name, target, Outcome.of(error), None)


@dataclass(frozen=True)
class Inspected:
    """One file.

    Attributes:
        name: for the reader: the path inside of its run, or as it was given.
        facts: None where the outcome is not ok.
    """

    name: str
    target: str
    outcome: Outcome
    facts: FactsRecord | None


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
