"""The device that a stage works on, with what was asked of it: workers, conditions to enter by, and its identity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from pipeline.errors import UsageError
from pipeline.records.cells import HOST, ConversionRecord
from pipeline.run import provenance
from pipeline.stages.entry_conditions import EntryLimits, enter, limits_of
from targets.devices import registry
from targets.devices.address import Address
from targets.devices.device import Device, DeviceOptions, DeviceWorker
from targets.worker.client import TIMEOUT_S
from targets.worker.facts import Conditions, DeviceFacts


@dataclass(frozen=True)
class Place:
    """A device while a stage works on it; a context manager that lets go of it.

    Attributes:
        cpus: cores that inferences are bound to; empty: not bound.
        limits: of the conditions to time under.
    """

    device: Device
    cpus: tuple[int, ...]
    limits: EntryLimits
    say: Callable[[str], None]

    @classmethod
    def host(cls) -> Place:
        """This machine as it is."""
        return cls.at(Address("host"), DeviceOptions(timeout_s=TIMEOUT_S), lambda line: None)

    @classmethod
    def at(
        cls,
        address: Address,
        options: DeviceOptions,
        say: Callable[[str], None],
        temperature_c: float | None = None,
        wait_s: float = EntryLimits.wait_s,
        enforced: bool = True,
    ) -> Place:
        """The device at an address, not reached for yet; the conditions as of entry_conditions.limits_of.

        Raises:
            TargetError: stage "device", this machine or the kind of device cannot do what was asked for.
        """
        limits = limits_of(address.kind, temperature_c, wait_s, enforced)
        return cls(registry.get(address, options, say), options.cpus, limits, say)

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *error: object) -> None:
        self.device.close()

    @property
    def label(self) -> str:
        """The `device` of every cell here."""
        return self.device.address.label

    @property
    def is_host(self) -> bool:
        return self.label == HOST

    @cached_property
    def facts(self) -> DeviceFacts:
        """Read once.

        Raises:
            TargetError: stage "device".
        """
        return self.device.facts()

    @cached_property
    def machine(self) -> dict[str, str]:
        """What latencies may only be compared under: the `host` of their records."""
        if self.is_host:
            return provenance.host()
        return {
            "system": self.facts.system,
            "processor": f"{self.facts.model}, {self.facts.chip}",
            "vector_extensions": " ".join(self.facts.vector_extensions) or "unknown",
            "cores": "unknown" if self.facts.cores is None else str(self.facts.cores),
        }

    def reach(self, say: Callable[[str], None]) -> None:
        """Say what another device is, so that one that cannot be reached is told before long work.

        Raises:
            TargetError: stage "device".
        """
        if not self.is_host:
            say(f"{self.label}: {self.machine['processor']}, {self.machine['system']}")

    def runtimes(
        self, conversions: Sequence[ConversionRecord], compute_units: str
    ) -> list[tuple[ConversionRecord, str]]:
        """Each file with each runtime that may run it here; a target without any is left out, and told.

        Raises:
            UsageError: all of them are.
        """
        found = [(c, runtime) for c in conversions for runtime in self.device.runtimes(c.target, compute_units)]
        without = list(dict.fromkeys(c.target for c in conversions if c.target not in {f.target for f, _ in found}))
        if conversions and not found:
            raise UsageError(
                f"files for {', '.join(without)} run in no runtime on {self.label}: give another --target or --on"
            )
        for target in without:
            self.say(f"{target}: left out, its files run in no runtime on {self.label}")
        return found

    def worker(self) -> DeviceWorker:
        return self.device.worker()

    def enter(self) -> Conditions:
        """
        Raises:
            TargetError: stage "device".
        """
        return enter(self.device, self.limits, self.say)
