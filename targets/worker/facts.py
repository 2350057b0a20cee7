"""What a device is and what state it is in: plain values, read on the device and carried to this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from targets.types import Capability

Screen = Literal["on", "off", "locked"]
#: In the order of Android's PowerManager.THERMAL_STATUS_*, 0 to 6.
ThermalStatus = Literal["none", "light", "moderate", "severe", "critical", "emergency", "shutdown"]
THERMAL_STATUSES: tuple[ThermalStatus, ...] = get_args(ThermalStatus)

UNKNOWN = "unknown"


@dataclass(frozen=True)
class DeviceFacts:
    """A device's identity. No serial number, no host or user name: those are in its address, which the user typed.

    Attributes:
        model: as sold or as the board names itself ("Pixel 8", "Raspberry Pi 5 Model B Rev 1.0"), else "unknown".
        chip: the processor or system on a chip.
        system: operating system with its version, and the machine type ("Android 15 (API 35) aarch64").
        cores: None where the device does not tell.
        runtimes: "tflite litert" -> whether this device can run files in it, and why not.
        versions: of what decides a result there: runtimes, Python, the tools that were pushed.
        vector_extensions: instruction sets that decide how fast products are, named as in targets.worker.readings.
        emulated: its instructions are emulated: figures are about numerics, never about time.
    """

    model: str
    chip: str
    system: str
    cores: int | None
    runtimes: Mapping[str, Capability] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    vector_extensions: tuple[str, ...] = ()
    emulated: bool = False


@dataclass(frozen=True)
class Conditions:
    """The state of a device at one moment; None is what it does not tell, never a pass.

    Attributes:
        temperature_c: the hottest of battery, skin and processor sensors that can be read, in degrees Celsius.
        thermal_status: what the system itself says, in Android's words; a Mac's and a board's own are brought to these.
        battery_percent, charging: of a device with a battery.
        low_power: whether a power saving mode is on.
        screen: "locked" is on or off behind a lock screen.
        governors: cpufreq governor of each core.
        frequencies_khz: present frequency of each core.
        load_1min: average number of running processes in the last minute.
    """

    temperature_c: float | None = None
    thermal_status: ThermalStatus | None = None
    battery_percent: float | None = None
    charging: bool | None = None
    low_power: bool | None = None
    screen: Screen | None = None
    governors: tuple[str, ...] = ()
    frequencies_khz: tuple[int, ...] = ()
    load_1min: float | None = None
