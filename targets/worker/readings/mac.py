"""Facts and conditions of a Mac, read from what sysctl, sw_vers, pmset and notifyutil print.

Written after the manual pages of these programs and outputs in public sources; never run on a Mac by the authors.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess

from targets.worker.facts import UNKNOWN, Conditions, DeviceFacts, ThermalStatus

# sysctl's name of an instruction set -> as targets.worker.readings.linux names it.
_EXTENSIONS = {
    "hw.optional.AdvSIMD": "asimd",
    "hw.optional.arm.FEAT_DotProd": "asimddp",
    "hw.optional.arm.FEAT_I8MM": "i8mm",
    "hw.optional.avx2_0": "avx2",
    "hw.optional.avx512f": "avx512f",
}
# The thermal pressure level as OSThermalNotification.h counts it on macOS, from nominal to sleeping.
_PRESSURES: tuple[ThermalStatus, ...] = ("none", "moderate", "severe", "critical", "emergency")
_PRESSURE = "com.apple.system.thermalpressurelevel"


def facts() -> DeviceFacts:
    """Of the machine this runs on, but for its runtimes."""
    values = parse_sysctl(_output("sysctl", "hw.model", "machdep.cpu.brand_string", *_EXTENSIONS))
    return DeviceFacts(
        model=values.get("hw.model", UNKNOWN),
        chip=values.get("machdep.cpu.brand_string", UNKNOWN),
        system=system(_output("sw_vers")),
        cores=os.cpu_count(),
        vector_extensions=tuple(name for key, name in _EXTENSIONS.items() if values.get(key) == "1"),
    )


def conditions() -> Conditions:
    percent, charging = battery(_output("pmset", "-g", "batt"))
    return Conditions(
        thermal_status=thermal_status(_output("notifyutil", "-g", _PRESSURE), _output("pmset", "-g", "therm")),
        battery_percent=percent,
        charging=charging,
        low_power=low_power(_output("pmset", "-g")),
        load_1min=os.getloadavg()[0],
    )


def parse_sysctl(text: str) -> dict[str, str]:
    """Lines "name: value"; what a Mac does not have is told on standard error, and is not there."""
    return {name: value.strip() for line in text.splitlines() for name, colon, value in [line.partition(": ")] if colon}


def system(sw_vers: str) -> str:
    """ "macOS 14.2.1 (23C71), Darwin 23.2.0 arm64"."""
    values = {name: value.strip() for line in sw_vers.splitlines() for name, _, value in [line.partition(":")]}
    kernel = f"{platform.system()} {platform.release()} {platform.machine()}"
    if "ProductVersion" not in values:
        return kernel
    name, version = values.get("ProductName", "macOS"), values["ProductVersion"]
    return f"{name} {version} ({values.get('BuildVersion', UNKNOWN)}), {kernel}"


def battery(pmset_batt: str) -> tuple[float | None, bool | None]:
    """Percent, and whether it is being charged; None for a Mac without a battery."""
    found = re.search(r"-InternalBattery.*?\t(\d{1,3})%; ([^;]+);", pmset_batt)
    if not found:
        return None, None
    return float(found[1]), found[2].strip() in ("charging", "finishing charge")


def low_power(pmset_g: str) -> bool | None:
    """`lowpowermode` or, from macOS 12 on of some Macs, `powermode` (1: low, 2: high) among the settings in use."""
    found = re.search(r"^\s*(?:lowpowermode|powermode)\s+(\d)", pmset_g, re.MULTILINE)
    return found[1] == "1" if found else None


def thermal_status(notifyutil: str, pmset_therm: str) -> ThermalStatus | None:
    """The thermal pressure; on a Mac that does not publish it, what pmset says of the processor's speed.

    That no warning was recorded is what Apple's own chips always say, so it tells nothing.
    """
    found = re.search(rf"{re.escape(_PRESSURE)} (\d+)", notifyutil)
    if found:
        level = int(found[1])
        return _PRESSURES[level] if level < len(_PRESSURES) else None
    found = re.search(r"CPU_Speed_Limit\s*=\s*(\d{1,3})", pmset_therm)
    if not found:
        return None
    return "none" if int(found[1]) >= 100 else "moderate"


def _output(*command: str) -> str:
    """Empty where the program is missing or hangs."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
