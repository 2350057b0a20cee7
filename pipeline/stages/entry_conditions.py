"""What state a device has to be in before it is timed: a device in, its conditions out once they are met."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from targets.devices.address import Kind
from targets.devices.device import Device
from targets.types import TargetError
from targets.worker.facts import THERMAL_STATUSES, Conditions

POLL_S = 5.0
LOWEST_BATTERY_PERCENT = 20.0  # many phones lower their clock below it, power saving mode or not
#: Status from which a system lowers clocks: Android calls "light" a limit that the user does not notice.
HOTTEST_STATUS = "light"
#: Of the hottest sensor that can be read; a phone's are those of its battery and skin, a board's that of its processor.
TEMPERATURE_C: dict[Kind, float] = {"adb": 42.0, "ssh": 65.0}


@dataclass(frozen=True)
class EntryLimits:
    """Attributes:
    temperature_c: hotter than this waits; None: any.
    wait_s: how long a device may take to cool down.
    enforced: False: conditions are recorded, and nothing is refused.
    """

    temperature_c: float | None
    wait_s: float = 300.0
    enforced: bool = True


def limits_of(kind: Kind, temperature_c: float | None, wait_s: float, enforced: bool) -> EntryLimits:
    """Those that the user asked for, else of the kind of device; this host and emulated ones are only recorded."""
    return EntryLimits(
        temperature_c=TEMPERATURE_C.get(kind) if temperature_c is None else temperature_c,
        wait_s=wait_s,
        enforced=enforced and kind in TEMPERATURE_C,
    )


def enter(
    device: Device,
    limits: EntryLimits,
    say: Callable[[str], None],
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
    while hot := too_hot(found, limits):
        if reason := unfit(found):
            raise TargetError("device", f"{device.address.label}: {reason}")
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
    if reason := unfit(found):
        raise TargetError("device", f"{device.address.label}: {reason}")
    return found


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
