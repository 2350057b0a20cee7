"""The compute plan of one Core ML package, or why there is none: frozen; what cannot be is refused."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.reports.records import CellKey, Outcome
from targets.coreml.compute_plan import ComputePlan


@dataclass(frozen=True)
class PlanRecord:
    """`plan` is None where none could be read; the outcome then says why."""

    key: CellKey
    outcome: Outcome
    plan: ComputePlan | None

    def __post_init__(self) -> None:
        if (self.outcome.status == "ok") != (self.plan is not None):
            raise ValueError(
                f"a compute plan that is {self.outcome.status} {'with' if self.plan else 'without'} a plan"
            )
