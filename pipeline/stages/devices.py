"""Addresses in, what each device is and what state it is in out; one that does not answer stops nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from targets.devices import registry
from targets.devices.address import Address
from targets.devices.device import DeviceOptions
from targets.types import TargetError
from targets.worker.facts import Conditions, DeviceFacts


@dataclass(frozen=True)
class Seen:
    """One device. Either `problem` says why it cannot be used and what to do, or facts and conditions are known."""

    address: Address
    facts: DeviceFacts | None
    conditions: Conditions | None
    problem: str

    def __post_init__(self) -> None:
        if (self.facts is None) != bool(self.problem):
            raise ValueError(f"{self.address.label}: facts {self.facts} beside the problem {self.problem!r}")


def look_at(named: Sequence[Address], options: DeviceOptions, say: Callable[[str], None]) -> tuple[Seen, ...]:
    """The devices at `named` addresses; without any, all that can be found."""
    found = [registry.Found(address) for address in named] if named else registry.found(options)
    return tuple(_look(one, options, say) for one in found)


def _look(one: registry.Found, options: DeviceOptions, say: Callable[[str], None]) -> Seen:
    if one.problem:
        return Seen(one.address, None, None, one.problem)
    try:
        device = registry.get(one.address, options, say)
        try:
            return Seen(one.address, device.facts(), device.conditions(), "")
        finally:
            device.close()
    except TargetError as error:
        return Seen(one.address, None, None, error.cause)
