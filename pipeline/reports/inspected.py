"""Inspected files in, tables on the terminal or JSON on stdout out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.reports.codec import to_dict
from pipeline.reports.records import FactsRecord, Outcome


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

    def __post_init__(self) -> None:
        if (self.outcome.status == "ok") != (self.facts is not None):
            raise ValueError(f"{self.name}: an inspection that is {self.outcome.status} with facts {self.facts}")


def show(files: Sequence[Inspected]) -> None:
    """A table for each file; a file that could not be read has one line with the reason."""
    from rich.console import Console

    from pipeline.reports.artifact_table import file_facts
    from pipeline.reports.terminal import table_renderable

    console = Console()
    for file in files:
        if file.facts is None:
            console.print(f"\n{file.name}: {file.outcome.status}: {file.outcome.reason}", markup=False)
        else:
            console.print(table_renderable(file_facts(f"{file.name} ({file.target})", file.facts)))


def print_json(files: Sequence[Inspected]) -> None:
    """{"artifacts": [{name, target, outcome, facts}]}; facts are null where the outcome is not ok."""
    print(json.dumps({"artifacts": [to_dict(file) for file in files]}, indent=2))
