"""Facts and conditions of a Linux machine, read from its /proc and /sys.

All functions take the folder that stands for `/`. What a file means is told by the kernel's Documentation/ABI/testing:
sysfs-class-thermal, sysfs-class-hwmon, sysfs-class-power, and admin-guide/pm/cpufreq.rst.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from targets.worker.facts import UNKNOWN, Conditions, DeviceFacts, ThermalStatus

#: Instructions that decide how fast float32 and int8 products are, as Linux names them on x86 and Arm.
VECTOR_EXTENSIONS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8", "asimd", "asimddp", "i8mm", "sve")

_DMI = ("sys_vendor", "product_name")
# What boards of nobody's own name say in their DMI tables.
_NO_NAMES = {"", "To Be Filled By O.E.M.", "System Product Name", "System manufacturer", "Default string", "None"}
# Drivers of hwmon that read a processor; disks and network cards have sensors too.
_CPU_SENSORS = {"coretemp", "k10temp", "zenpower", "cpu_thermal", "scpi_sensors", "fam15h_power"}
# A sensor that is not there reads 0 K or some other nonsense.
_LIKELY_C = range(-40, 151)

# Raspberry Pi's get_throttled: bits of now (those from 16 on are of any time since the start), and Android's words for
# them. https://www.raspberrypi.com/documentation/computers/os.html#get_throttled
_SOFT_LIMIT, _THROTTLED, _CAPPED = 8, 4, 2
_THROTTLED_FILES = ("sys/devices/platform/soc/soc:firmware/get_throttled", "sys/firmware/get_throttled")


# MIDR_EL1 of the Arm architecture: (implementer, part) -> name, as the Linux kernel (arch/arm64/include/asm/
# cputype.h) and util-linux (sys-utils/lscpu-arm.c) have it, of the cores that boards, phones and servers here have.
CORES: dict[tuple[int, int], str] = {
    (0x41, 0xC07): "Cortex-A7", (0x41, 0xC08): "Cortex-A8", (0x41, 0xC09): "Cortex-A9", (0x41, 0xC0E): "Cortex-A17",
    (0x41, 0xC0F): "Cortex-A15", (0x41, 0xD03): "Cortex-A53", (0x41, 0xD04): "Cortex-A35",
    (0x41, 0xD05): "Cortex-A55", (0x41, 0xD07): "Cortex-A57", (0x41, 0xD08): "Cortex-A72",
    (0x41, 0xD09): "Cortex-A73", (0x41, 0xD0A): "Cortex-A75", (0x41, 0xD0B): "Cortex-A76",
    (0x41, 0xD0C): "Neoverse-N1", (0x41, 0xD0D): "Cortex-A77", (0x41, 0xD0E): "Cortex-A76AE",
    (0x41, 0xD40): "Neoverse-V1", (0x41, 0xD41): "Cortex-A78", (0x41, 0xD42): "Cortex-A78AE",
    (0x41, 0xD44): "Cortex-X1", (0x41, 0xD46): "Cortex-A510", (0x41, 0xD47): "Cortex-A710",
    (0x41, 0xD48): "Cortex-X2", (0x41, 0xD49): "Neoverse-N2", (0x41, 0xD4A): "Neoverse-E1",
    (0x41, 0xD4B): "Cortex-A78C", (0x41, 0xD4C): "Cortex-X1C", (0x41, 0xD4D): "Cortex-A715",
    (0x41, 0xD4E): "Cortex-X3", (0x41, 0xD4F): "Neoverse-V2",
    (0x42, 0x516): "ThunderX2", (0x48, 0xD01): "Kunpeng-920", (0x4E, 0x003): "Denver 2", (0x4E, 0x004): "Carmel",
    (0x51, 0x800): "Kryo 2xx Gold", (0x51, 0x801): "Kryo 2xx Silver", (0x51, 0x802): "Kryo 3xx Gold",
    (0x51, 0x803): "Kryo 3xx Silver", (0x51, 0x804): "Kryo 4xx Gold", (0x51, 0x805): "Kryo 4xx Silver",
    (0x61, 0x022): "Icestorm-M1", (0x61, 0x023): "Firestorm-M1", (0x61, 0x032): "Blizzard-M2",
    (0x61, 0x033): "Avalanche-M2", (0xC0, 0xAC3): "Ampere-1",
}  # fmt: skip


def facts() -> DeviceFacts:
    """Of the machine this runs on, but for its runtimes."""
    return DeviceFacts(
        model=model(Path("/")),
        chip=chip(Path("/")),
        system=system(Path("/")),
        cores=cores(),
        vector_extensions=vector_extensions(Path("/")),
    )


def cores() -> int | None:
    """That this process may use; of any system."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def conditions(root: Path = Path("/")) -> Conditions:
    percent, charging = battery(root)
    return Conditions(
        temperature_c=temperature_c(root),
        thermal_status=thermal_status(_throttled(root)),
        battery_percent=percent,
        charging=charging,
        low_power=low_power(root),
        governors=tuple(_of_cores(root, "scaling_governor")),
        frequencies_khz=tuple(int(value) for value in _of_cores(root, "scaling_cur_freq") if value.isdecimal()),
        load_1min=load_1min(root),
    )


def model(root: Path) -> str:
    """As the board's device tree names it, else as the maker of the computer does."""
    for name in ("proc/device-tree/model", "sys/firmware/devicetree/base/model"):
        if found := _text(root / name):
            return found
    dmi = root / "sys/class/dmi/id"
    vendor, product = (name if (name := _text(dmi / file)) not in _NO_NAMES else "" for file in _DMI)
    return " ".join(filter(None, (vendor, product))) or UNKNOWN


def chip(root: Path) -> str:
    """What the kernel calls the processor; on Arm the system on a chip and its cores."""
    lines = _lines(root / "proc/cpuinfo")
    cores = arm_cores(lines)
    if not cores:
        return processor(root) or UNKNOWN
    # "raspberrypi,5-model-b\0brcm,bcm2712\0": the last one is the most general, the chip.
    compatible = _text(root / "proc/device-tree/compatible").split("\0")
    soc = compatible[-1].rpartition(",")[2] if len(compatible) > 1 else ""
    return f"{soc}, {cores}" if soc else cores


def processor(root: Path) -> str:
    """What the kernel calls the first processor; empty where it names none."""
    return _field(_lines(root / "proc/cpuinfo"), "model name")


def arm_cores(lines: Sequence[str]) -> str:
    """ "4 × Cortex-A55, 4 × Cortex-A76", in the order of the cores; empty where there is no Arm core."""
    cores: Counter[str] = Counter()
    implementer: int | None = None
    for line in lines:
        field, _, value = (part.strip() for part in line.partition(":"))
        if field == "CPU implementer":
            implementer = _integer(value)
        elif field == "CPU part":
            part = _integer(value)
            if implementer is not None and part is not None:
                cores[CORES.get((implementer, part), f"Arm core {implementer:#04x}:{part:#05x}")] += 1
    return ", ".join(f"{count} × {name}" for name, count in cores.items())


def system(root: Path) -> str:
    """The distribution beside what pipeline.run.provenance says."""
    names = dict(line.partition("=")[::2] for line in _lines(root / "etc/os-release"))
    kernel = f"{platform.system()} {platform.release()} {platform.machine()}"
    pretty = names.get("PRETTY_NAME", "").strip("\"'")
    return f"{pretty}, {kernel}" if pretty else kernel


def vector_extensions(root: Path) -> tuple[str, ...]:
    lines = _lines(root / "proc/cpuinfo")
    flags = set((_field(lines, "flags") or _field(lines, "Features")).split())
    return tuple(name for name in VECTOR_EXTENSIONS if name in flags)


def temperature_c(root: Path) -> float | None:
    """The hottest of thermal zones, processor sensors and batteries."""
    values = [_number(path, 1000) for path in root.glob("sys/class/thermal/thermal_zone*/temp")]
    for monitor in root.glob("sys/class/hwmon/hwmon*"):
        if _text(monitor / "name") in _CPU_SENSORS:
            values += [_number(path, 1000) for path in monitor.glob("temp*_input")]
    values += [_number(path, 10) for path in root.glob("sys/class/power_supply/*/temp")]
    likely = [value for value in values if value is not None and _LIKELY_C[0] <= value <= _LIKELY_C[-1]]
    return max(likely, default=None)


def thermal_status(throttled: str) -> ThermalStatus | None:
    """What a Raspberry Pi's firmware says, "50005" or "throttled=0x50005"; None for anything else."""
    found = re.fullmatch(r"(?:throttled=)?(?:0x)?([0-9a-fA-F]{1,8})", throttled.strip())
    if not found:
        return None
    now = int(found[1], 16)
    return "severe" if now & _THROTTLED else "moderate" if now & _CAPPED else "light" if now & _SOFT_LIMIT else "none"


def battery(root: Path) -> tuple[float | None, bool | None]:
    """Percent, and whether it is being charged; of the machine's own battery, not of a mouse."""
    for supply in sorted(root.glob("sys/class/power_supply/*")):
        if _text(supply / "type") != "Battery" or _text(supply / "scope") == "Device":
            continue
        status = _text(supply / "status")
        return _number(supply / "capacity"), None if status in ("", "Unknown") else status == "Charging"
    return None, None


def low_power(root: Path) -> bool | None:
    """Whether the firmware's platform profile saves power."""
    profile = _text(root / "sys/firmware/acpi/platform_profile")
    return profile in ("low-power", "quiet") if profile else None


def load_1min(root: Path) -> float | None:
    try:
        return float(_text(root / "proc/loadavg").split()[0])
    except (IndexError, ValueError):
        return None


def _throttled(root: Path) -> str:
    for name in _THROTTLED_FILES:
        if found := _text(root / name):
            return found
    program = shutil.which("vcgencmd") if root == Path("/") else None
    if program is None:
        return ""
    try:
        return subprocess.run([program, "get_throttled"], capture_output=True, text=True, timeout=2).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _of_cores(root: Path, name: str) -> list[str]:
    """The file of cpufreq of every core that has one, by number."""
    cores = [path for path in root.glob("sys/devices/system/cpu/cpu*/cpufreq") if path.parent.name[3:].isdecimal()]
    return [
        found for path in sorted(cores, key=lambda path: int(path.parent.name[3:])) if (found := _text(path / name))
    ]


def _number(path: Path, unit: int = 1) -> float | None:
    try:
        return int(_text(path)) / unit
    except ValueError:
        return None


def _field(lines: list[str], name: str) -> str:
    """Of the first core."""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name) and ":" in line), "")


def _lines(path: Path) -> list[str]:
    return _text(path).splitlines()


def _text(path: Path) -> str:
    """Without the end of its line or string; empty where it cannot be read: a sensor may be off."""
    try:
        return path.read_bytes().decode(errors="replace").strip(" \n\0")
    except OSError:
        return ""


def _integer(text: str) -> int | None:
    try:
        return int(text, 0)
    except ValueError:
        return None
