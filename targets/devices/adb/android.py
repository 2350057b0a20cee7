"""Read facts and conditions of a phone from what Android's own programs print; what they do not say is None.

getprop, dumpsys and settings have no documented format. Lines are looked for by their key, never by their place; a
version that prints something else yields None, not a guess.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from targets.worker.facts import THERMAL_STATUSES, UNKNOWN, Conditions, Screen, ThermalStatus

#: One script asks for everything; each part begins with a line of this and its name.
PART = "==edge-t2t=="
FACTS = {
    "getprop": "getprop",
    "cpuinfo": "cat /proc/cpuinfo",
    "cores": "ls -d /sys/devices/system/cpu/cpu[0-9]*",
    "uname": "uname -sm",
}
CONDITIONS = {
    "battery": "dumpsys battery",
    "thermal": "dumpsys thermalservice",
    "power": "dumpsys power",
    "trust": "dumpsys trust",
    "low_power": "settings get global low_power",
    "governors": "cat /sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor",
    "frequencies": "cat /sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq",
    "loadavg": "cat /proc/loadavg",
}
#: Arm's names of what decides int8 products, as /proc/cpuinfo has them.
_EXTENSIONS = ("asimd", "asimddp", "i8mm", "sve", "avx2", "avx512f", "avx_vnni", "avx512_vnni")


def script_of(commands: Mapping[str, str]) -> str:
    """All of `commands`, each behind a line with its name; one that is missing there prints nothing."""
    return "\n".join(f"echo '{PART} {name}'; {command} 2>/dev/null; echo" for name, command in commands.items())


def parts_of(output: str) -> dict[str, str]:
    """The output of each command by its name."""
    found: dict[str, str] = {}
    for part in f"\n{output}".split(f"\n{PART} ")[1:]:
        name, _, text = part.partition("\n")
        found[name.strip()] = text.strip("\n")
    return found


def properties(text: str) -> dict[str, str]:
    """`[ro.product.model]: [Pixel 8]`, line by line."""
    return {m[1]: m[2] for m in re.finditer(r"^\[([^\]]+)\]: \[(.*)\]$", text, re.MULTILINE)}


def model_of(props: Mapping[str, str]) -> str:
    maker, model = props.get("ro.product.manufacturer", ""), props.get("ro.product.model", "")
    if not model:
        return maker or UNKNOWN
    return model if not maker or model.lower().startswith(maker.lower()) else f"{maker} {model}"


def chip_of(props: Mapping[str, str], cpuinfo: str) -> str:
    """The system on a chip (Android 12 and later tell), else the board, else what the kernel calls its hardware."""
    soc = " ".join(filter(None, (props.get("ro.soc.manufacturer"), props.get("ro.soc.model"))))
    hardware = re.search(r"^Hardware\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    named = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    for found in (soc, hardware and hardware[1], props.get("ro.board.platform"), named and named[1]):
        if found and found.strip():
            return found.strip()
    return UNKNOWN


def system_of(props: Mapping[str, str], uname: str) -> str:
    version, sdk = props.get("ro.build.version.release"), props.get("ro.build.version.sdk")
    kernel, _, machine = uname.strip().partition(" ")
    name = f"Android {version}" if version else (kernel or UNKNOWN)
    return " ".join(filter(None, (name, f"(API {sdk})" if sdk else "", machine)))


def abis_of(props: Mapping[str, str]) -> tuple[str, ...]:
    """ABIs that the system runs, the best one first."""
    listed = props.get("ro.product.cpu.abilist") or props.get("ro.product.cpu.abi", "")
    return tuple(abi.strip() for abi in listed.split(",") if abi.strip())


def extensions_of(cpuinfo: str) -> tuple[str, ...]:
    flags: set[str] = set()
    for line in re.findall(r"^(?:Features|flags)\s*:\s*(.*)$", cpuinfo, re.MULTILINE):
        flags |= set(line.split())
    return tuple(name for name in _EXTENSIONS if name in flags)


def cores_of(listing: str) -> int | None:
    return len(set(re.findall(r"/cpu(\d+)\b", listing))) or None


def conditions_of(parts: Mapping[str, str]) -> Conditions:
    """The parts of CONDITIONS' script."""
    battery = parts.get("battery", "")
    status = _thermal_status(parts.get("thermal", ""))
    load = re.match(r"\s*(\d+\.\d+) ", parts.get("loadavg", ""))
    low_power = parts.get("low_power", "").strip()
    return Conditions(
        temperature_c=_hottest(battery, parts.get("thermal", "")),
        thermal_status=status,
        battery_percent=_battery_percent(battery),
        # BatteryManager.BATTERY_STATUS_*: 2 charging, 3 discharging, 4 not charging, 5 full.
        charging={"2": True, "3": False, "4": False, "5": True}.get(_key(battery, "status") or ""),
        low_power={"1": True, "0": False, "null": False}.get(low_power),  # null: never set, so off
        screen=_screen(parts.get("power", ""), parts.get("trust", "")),
        governors=tuple(parts.get("governors", "").split()),
        frequencies_khz=tuple(int(word) for word in parts.get("frequencies", "").split() if word.isdecimal()),
        load_1min=float(load[1]) if load else None,
    )


def _key(text: str, name: str) -> str | None:
    found = re.search(rf"^\s*{re.escape(name)}\s*[:=]\s*(.+?)\s*$", text, re.MULTILINE)
    return found[1] if found else None


def _battery_percent(battery: str) -> float | None:
    level, scale = _key(battery, "level"), _key(battery, "scale")
    try:
        percent = 100 * float(level or "") / float(scale or "100")
    except (ValueError, ZeroDivisionError):
        return None
    return percent if 0 <= percent <= 100 else None


def _thermal_status(thermal: str) -> ThermalStatus | None:
    """PowerManager.THERMAL_STATUS_*, as `Thermal Status: 0`."""
    found = _key(thermal, "Thermal Status")
    if found is None or not found.isdecimal() or int(found) >= len(THERMAL_STATUSES):
        return None
    return THERMAL_STATUSES[int(found)]


def _hottest(battery: str, thermal: str) -> float | None:
    """Of battery (tenths of a degree) and of what the thermal HAL tells now of battery and skin.

    Its processor sensors swing by tens of degrees within a second, so they say nothing of how a phone is before a
    benchmark. mType of android.os.Temperature: 2 battery, 3 skin; phones that count from 1 are read by the sensor's
    name.
    """
    found = []
    tenths = _key(battery, "temperature")
    if tenths is not None and re.fullmatch(r"-?\d+", tenths):
        found.append(int(tenths) / 10)
    current = thermal.partition("Current temperatures from HAL")[2].partition("Current cooling devices")[0]
    for value, kind, name in re.findall(r"mValue=(-?[\d.]+(?:E-?\d+)?), mType=(\d+), mName=([^,}]*)", current):
        if kind in ("2", "3") or re.search("skin|batt", name, re.IGNORECASE):
            found.append(float(value))
    plausible = [celsius for celsius in found if -40 < celsius < 120]
    return max(plausible) if plausible else None


def _screen(power: str, trust: str) -> Screen | None:
    """mWakefulness of the power manager; deviceLocked of the trust manager, for the user that is in front."""
    front = re.search(r"^.*\(current\).*$", trust, re.MULTILINE)
    locked = re.search(r"\bdeviceLocked=(1|true|0|false)\b", front[0] if front else trust)
    if locked and locked[1] in ("1", "true"):
        return "locked"
    wakefulness = _key(power, "mWakefulness")
    if wakefulness is None:
        return None
    return "on" if wakefulness == "Awake" else "off"
