"""Instructions of one inference of one file on an emulated processor, or why they were not counted: frozen."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.reports.records import CellKey, Outcome, check_sha256
from targets.devices.device import InstructionCount


@dataclass(frozen=True)
class InstructionRecord:
    """`count` is None where nothing was counted; the outcome then says why. `sha256` is of the file."""

    key: CellKey
    outcome: Outcome
    sha256: str
    count: InstructionCount | None

    def __post_init__(self) -> None:
        check_sha256(self.sha256)
        if (self.outcome.status == "ok") != (self.count is not None):
            raise ValueError(f"a count that is {self.outcome.status}: {self.count}")
        if self.key.simulated:
            raise ValueError(f"{self.key.label}: a simulation executes nothing of a device")
