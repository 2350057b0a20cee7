"""Which hardware a framework plans to run each operation of a file on, at what estimated cost."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    pass


Unit = Literal["cpu", "gpu", "neural engine"]
UNITS: tuple[Unit, ...] = get_args(Unit)
#: For an operation whose unit the framework does not tell.
NOT_TOLD = "not told"


@dataclass(frozen=True)
class PlannedOperation:
    """One operation of the program.

    Attributes:
        type: as the framework names it, with or without the version of its operator set ("ios17.conv").
        name: of its first output; empty where it has none.
        preferred: the unit that the framework means to run it on; None where it does not tell.
        supported: units that could run it; empty where it does not tell.
        cost: share of the whole program's estimated work, 0 to 1; None where it does not tell.
    """

    type: str
    name: str
    preferred: Unit | None
    supported: tuple[Unit, ...]
    cost: float | None

    def __post_init__(self) -> None:
        for unit in (*self.supported, *((self.preferred,) if self.preferred else ())):
            if unit not in UNITS:
                raise ValueError(f"{self.name}: unit {unit!r} is not one of {', '.join(UNITS)}")
        if self.cost is not None and not (math.isfinite(self.cost) and 0 <= self.cost <= 1):
            raise ValueError(f"{self.name}: cost {self.cost} is no share from 0 to 1")


@dataclass(frozen=True)
class ComputePlan:
    """The plan of one package on one machine.

    Attributes:
        units: the choice that it was loaded with (targets.coreml.units).
        load_ms: milliseconds that compiling and loading the package took before, by the wall clock. Core ML keeps what
            it compiled: the first load on a machine is the slow one.
        operations: of the main function in order, nested blocks included, constants left out.
    """

    units: str
    load_ms: float
    operations: tuple[PlannedOperation, ...]

    def __post_init__(self) -> None:
        if not (math.isfinite(self.load_ms) and self.load_ms > 0):
            raise ValueError(f"load_ms is {self.load_ms}")
        if not self.operations:
            raise ValueError("a compute plan without operations")

    def operations_by_unit(self) -> dict[str, int]:
        """How many operations each unit is preferred for, in the order of `UNITS`, then those not told."""
        counts = Counter(operation.preferred or NOT_TOLD for operation in self.operations)
        return {unit: counts[unit] for unit in (*UNITS, NOT_TOLD) if counts[unit]}

    def cost_by_unit(self) -> dict[str, float | None]:
        """Share of the estimated work on each unit of `operations_by_unit`; None where no operation tells its cost."""
        shares: dict[str, float | None] = {}
        for unit in self.operations_by_unit():
            told = [o.cost for o in self.operations if (o.preferred or NOT_TOLD) == unit and o.cost is not None]
            shares[unit] = math.fsum(told) if told else None
        return shares
