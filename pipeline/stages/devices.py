"""The device that a stage works on: what it is, its workers, and the conditions that it is timed under."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from pipeline.errors import UsageError
from pipeline.progress import Say
from pipeline.records.conversion import ConversionRecord
from pipeline.records.keys import HOST
from pipeline.run import provenance
from targets.devices.address import Address, Kind
from targets.devices.device import Device, DeviceOptions, Found, device_at, devices_found
from targets.types import TargetError
from targets.worker.client import TIMEOUT_S
from targets.worker.facts import THERMAL_STATUSES, Conditions, DeviceFacts

POLL_S = 5.0
LOWEST_BATTERY_PERCENT = 20.0  # many phones lower their clock below it, power saving mode or not
#: Status from which a system lowers clocks: Android calls "light" a limit that the user does not notice.
HOTTEST_STATUS = "light"
#: Of the hottest sensor that can be read; a phone's are those of its battery and skin, a board's that of its processor.
TEMPERATURE_C: dict[Kind, float] = {"adb": 42.0, "ssh": 65.0}


@dataclass(frozen=True)
class EntryLimits:
    """What state a device has to be in before it is timed.

    Attributes:
        temperature_c: hotter than this waits; None: any.
        wait_s: how long a device may take to cool down.
        enforced: False: conditions are recorded, and nothing is refused.
    """

    temperature_c: float | None
    wait_s: float = 300.0
    enforced: bool = True


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
    say: Say

    @classmethod
    def host(cls) -> Place:
        """This machine as it is."""
        return cls.at(Address("host"), DeviceOptions(timeout_s=TIMEOUT_S), lambda line: None, limits_of("host"))

    @classmethod
    def at(cls, address: Address, options: DeviceOptions, say: Say, limits: EntryLimits) -> Place:
        """The device at an address, not reached for yet.

        Raises:
            TargetError: stage "device", this machine or the kind of device cannot do what was asked for.
        """
        return cls(device_at(address, options, say), options.cpus, limits, say)

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

    def reach(self, say: Say) -> None:
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

    def enter(self) -> Conditions:
        """
        Raises:
            TargetError: stage "device".
        """
        return enter(self.device, self.limits, self.say)


def limits_of(
    kind: Kind, temperature_c: float | None = None, wait_s: float = EntryLimits.wait_s, enforced: bool = True
) -> EntryLimits:
    """Those that the user asked for, else of the kind of device; this host and emulated ones are only recorded."""
    return EntryLimits(
        temperature_c=TEMPERATURE_C.get(kind) if temperature_c is None else temperature_c,
        wait_s=wait_s,
        enforced=enforced and kind in TEMPERATURE_C,
    )


def enter(
    device: Device,
    limits: EntryLimits,
    say: Say,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Conditions:
    """The conditions once nothing speaks against timing; waits for a hot device, and for nothing else.

    Raises:
        TargetError: stage "device", a condition that waiting does not mend, or it is still hot after `limits.wait_s`.
    """
    found = device.conditions()
    if not limits.enforced:
        return found
    start = clock()
    while True:
        if reason := unfit(found):
            raise TargetError("device", f"{device.address.label}: {reason}")
        if not (hot := too_hot(found, limits)):
            return found
        waited = clock() - start
        if waited >= limits.wait_s:
            raise TargetError(
                "device",
                f"{device.address.label}: {hot} after {waited:.0f} s of waiting: let it cool down, give --cool-down a "
                "longer time, or --any-condition to time it as it is",
            )
        say(f"{device.address.label}: {hot}: waiting for it to cool down ({waited:.0f} of {limits.wait_s:.0f} s)")
        sleep(min(POLL_S, max(limits.wait_s - waited, 0.0)))
        found = device.conditions()


def too_hot(conditions: Conditions, limits: EntryLimits) -> str:
    """Why it is, or nothing; a temperature that is not told is not too hot."""
    status, temperature_c = conditions.thermal_status, conditions.temperature_c
    if status is not None and THERMAL_STATUSES.index(status) > THERMAL_STATUSES.index(HOTTEST_STATUS):
        return f"its thermal status is {status}"
    if temperature_c is not None and limits.temperature_c is not None and temperature_c > limits.temperature_c:
        return f"it has {temperature_c:.1f} degrees Celsius, more than {limits.temperature_c:.1f}"
    return ""


def unfit(conditions: Conditions) -> str:
    """What else speaks against timing, with what to do, or nothing."""
    anyway = "or give --any-condition to time it as it is"
    if conditions.screen == "off":
        return f"its screen is off, where systems lower the clock: switch it on and keep it on while charging, {anyway}"
    if conditions.screen == "locked":
        return f"its screen is locked: unlock it, {anyway}"
    if conditions.low_power:
        return f"its power saving mode is on: switch it off, {anyway}"
    battery = conditions.battery_percent
    if battery is not None and battery < LOWEST_BATTERY_PERCENT:
        return f"its battery has {battery:.0f} %, less than {LOWEST_BATTERY_PERCENT:.0f} %: charge it, {anyway}"
    return ""


@dataclass(frozen=True)
class Seen:
    """One device. Either `problem` says why it cannot be used and what to do, or facts and conditions are known."""

    address: Address
    facts: DeviceFacts | None
    conditions: Conditions | None
    problem: str


def look_at(named: Sequence[Address], options: DeviceOptions, say: Say) -> tuple[Seen, ...]:
    """The devices at `named` addresses; without any, all that can be found."""
    found = [Found(address) for address in named] if named else devices_found(options)
    return tuple(_look(one, options, say) for one in found)


def _look(one: Found, options: DeviceOptions, say: Say) -> Seen:
    if one.problem:
        return Seen(one.address, None, None, one.problem)
    try:
        device = device_at(one.address, options, say)
        try:
            return Seen(one.address, device.facts(), device.conditions(), "")
        finally:
            device.close()
    except TargetError as error:
        return Seen(one.address, None, None, error.cause)
