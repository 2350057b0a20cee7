"""Read what files hold, each in a worker process of its own: a damaged file can take its reader down with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.records.keys import OK, Outcome
from pipeline.run.cells import artifact_path, load_conversions
from pipeline.run.folder import Run
from targets import registry
from targets.types import FactsRecord, TargetError
from targets.worker.host import HostWorker


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
            return Inspected(name, target, OK, worker.inspect(target, path).stored)
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
