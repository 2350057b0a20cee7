"""Records of cells in a run's JSON file: a stage's new records in, the file with the other cells kept out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from pipeline.reports.codec import from_dict, to_dict
from pipeline.reports.records import CellKey
from pipeline.rundir import Run, write_json

#: Files of cells in a run folder.
VALIDATION = "validation.json"
LATENCY = "latency.json"
INSTRUCTIONS = "instructions.json"


class OfCell(Protocol):
    """A record of one cell."""

    @property
    def key(self) -> CellKey: ...


Record = TypeVar("Record", bound=OfCell)


def load_cells(run: Run, name: str, cls: type[Record]) -> tuple[Record, ...]:
    """The records in the file `name`; empty when there is none."""
    entries: list[Any] = run.read_json(name) if run.has(name) else []
    return tuple(from_dict(cls, entry, name) for entry in entries)


def save_cells(run: Run, name: str, cls: type[Record], records: Sequence[Record]) -> None:
    """Write `records` in place of those of the same cells, and list the file in the manifest."""
    fresh = {record.key for record in records}
    kept = [record for record in load_cells(run, name, cls) if record.key not in fresh]
    write_json(run.path / name, [to_dict(record) for record in [*kept, *records]])
    run.record(name)
