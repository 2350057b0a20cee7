"""What machines tell of themselves: trees of /proc and /sys, outputs of macOS's programs, and what is read from them.

Where a text comes from is said beside it. No tree is of a machine that this project measured anything on.
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict
from pathlib import Path

import pytest

from pipeline.run import provenance
from targets.codec import from_dict
from targets.types import Capability
from targets.worker import readings
from targets.worker.facts import DeviceFacts
from targets.worker.readings import linux, mac


def tree_of(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    return root


# Constructed in the layout of the kernel's arch/arm64/kernel/cpuinfo.c.
CORE = "processor\t: {n}\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd {more}\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x4\nCPU part\t: {part}\nCPU revision\t: 1\n\n"  # noqa: E501


def cpuinfo(*parts: str, more: str = "evtstrm crc32 asimdhp cpuid asimddp") -> str:
    return "".join(CORE.format(n=n, part=part, more=more) for n, part in enumerate(parts))


def raspberry_pi_5(root: Path) -> Path:
    """Constructed; model and compatible as in the kernel's bcm2712-rpi-5-b.dts."""
    files = {
        "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
        "proc/device-tree/compatible": "raspberrypi,5-model-b\0brcm,bcm2712\0",
        "proc/cpuinfo": cpuinfo("0xd0b", "0xd0b", "0xd0b", "0xd0b"),
        "proc/loadavg": "0.52 0.58 0.59 1/467 12345\n",
        "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\n',
        "sys/class/thermal/thermal_zone0/temp": "48312\n",
        "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
        "sys/class/hwmon/hwmon1/name": "nvme\n",
        "sys/class/hwmon/hwmon1/temp1_input": "77000\n",
        "sys/devices/platform/soc/soc:firmware/get_throttled": "50000\n",
    }
    for core in (0, 1, 2, 10):
        files[f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor"] = "ondemand\n"
        files[f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq"] = f"{1500000 + core}\n"
    return tree_of(root, files)


def test_a_board_names_itself_its_chip_and_its_state(tmp_path: Path) -> None:
    root = raspberry_pi_5(tmp_path)
    assert linux.model(root) == "Raspberry Pi 5 Model B Rev 1.0"
    assert linux.chip(root) == "bcm2712, 4 × Cortex-A76"
    assert linux.system(root).startswith("Debian GNU/Linux 12 (bookworm), Linux ")
    assert linux.vector_extensions(root) == ("asimd", "asimddp")
    found = linux.conditions(root)
    assert found.temperature_c == 48.312  # of the processor: the disk's 77 degrees are not its
    assert found.thermal_status == "none"  # throttled once since the start, and not now
    assert found.governors == ("ondemand",) * 4
    assert found.frequencies_khz == (1500000, 1500001, 1500002, 1500010)  # core 10 after core 2
    assert found.load_1min == 0.52
    assert (found.battery_percent, found.charging, found.low_power, found.screen) == (None, None, None, None)


def test_an_empty_tree_tells_nothing_and_makes_nothing_up(tmp_path: Path) -> None:
    found = linux.conditions(tmp_path)
    assert set(asdict(found).values()) == {None, ()}
    assert linux.model(tmp_path) == linux.chip(tmp_path) == "unknown"
    assert linux.vector_extensions(tmp_path) == ()


def test_sensors_that_are_off_or_mad_are_left_out(tmp_path: Path) -> None:
    root = tree_of(
        tmp_path,
        {
            "sys/class/thermal/thermal_zone0/temp": "-274000\n",
            "sys/class/thermal/thermal_zone1/temp": "",
            "sys/class/thermal/thermal_zone2/temp": "61500\n",
            "sys/class/hwmon/hwmon0/name": "k10temp\n",
            "sys/class/hwmon/hwmon0/temp1_input": "66125\n",
            "sys/class/hwmon/hwmon0/temp2_input": "900000\n",
            "sys/class/power_supply/BAT0/temp": "312\n",
        },
    )
    assert linux.temperature_c(root) == 66.125


@pytest.mark.parametrize(
    ("text", "status"),
    [
        # The words of `vcgencmd get_throttled` and of the firmware's sysfs node; bits as Raspberry Pi documents them.
        ("throttled=0x0\n", "none"), ("0\n", "none"), ("throttled=0x50000", "none"), ("throttled=0x1", "none"),
        ("throttled=0x50005", "severe"), ("throttled=0xe0002", "moderate"), ("80008", "light"), ("0xe", "severe"),
        ("", None), ("VCHI initialization failed", None), ("throttled=", None), ("error=2 error_msg=\"x\"", None),
    ],
)  # fmt: skip
def test_a_raspberry_pi_says_whether_it_is_slowed_down(text: str, status: str | None) -> None:
    assert linux.thermal_status(text) == status


def test_a_laptop_has_a_battery_and_a_profile_and_its_mouse_does_not_count(tmp_path: Path) -> None:
    root = tree_of(
        tmp_path,
        {
            "sys/class/power_supply/AC/type": "Mains\n",
            "sys/class/power_supply/A-mouse/type": "Battery\n",
            "sys/class/power_supply/A-mouse/scope": "Device\n",
            "sys/class/power_supply/A-mouse/capacity": "3\n",
            "sys/class/power_supply/BAT0/type": "Battery\n",
            "sys/class/power_supply/BAT0/capacity": "87\n",
            "sys/class/power_supply/BAT0/status": "Charging\n",
            "sys/firmware/acpi/platform_profile": "low-power\n",
            "sys/class/dmi/id/sys_vendor": "LENOVO\n",
            "sys/class/dmi/id/product_name": "To Be Filled By O.E.M.\n",
            "proc/cpuinfo": "processor\t: 0\nmodel name\t: AMD EPYC 9B45\nflags\t: fpu avx2 avx512_vnni\n",
        },
    )
    assert linux.battery(root) == (87.0, True)
    assert linux.low_power(root) is True
    assert linux.model(root) == "LENOVO"
    assert linux.chip(root) == "AMD EPYC 9B45"
    assert linux.vector_extensions(root) == ("avx2", "avx512_vnni")
    (root / "sys/class/power_supply/BAT0/status").write_text("Not charging\n")
    assert linux.battery(root) == (87.0, False)
    (root / "sys/class/power_supply/BAT0/status").write_text("Unknown\n")
    assert linux.battery(root) == (87.0, None)


def test_cores_of_two_kinds_are_told_apart_and_an_unknown_one_by_its_numbers() -> None:
    lines = cpuinfo("0xd05", "0xd05", "0xd41", "0xfff").splitlines()
    assert linux.arm_cores(lines) == "2 × Cortex-A55, 1 × Cortex-A78, 1 × Arm core 0x41:0xfff"
    assert linux.arm_cores(["CPU implementer : 0x61", "CPU part : 0x022"]) == "1 × Icestorm-M1"
    assert linux.arm_cores(["CPU implementer : huh", "CPU part : 0xd0b"]) == ""
    assert linux.arm_cores(["model name : AMD EPYC"]) == ""


@pytest.mark.skipif(platform.system() != "Linux", reason="reads /proc")
def test_this_machine_is_told_as_its_provenance_tells_it(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"tflite litert": Capability(True), "coreml coreml": Capability(False, "not a Mac")}
    monkeypatch.setattr(readings, "runtimes", lambda: known)
    facts, host = readings.facts(), provenance.host()
    assert facts.system.endswith(host["system"])
    assert str(facts.cores) == host["cores"]
    assert set(facts.vector_extensions) == set(host["vector_extensions"].split()) - {"unknown"}
    assert facts.versions["python"] == platform.python_version()
    assert facts.versions["numpy"] == provenance.versions()["numpy"]
    assert facts.runtimes == known
    assert from_dict(DeviceFacts, json.loads(json.dumps(asdict(facts)))) == facts
    before = found = after = None
    while found is None or before != after:  # the kernel may count anew in between
        before, found, after = os.getloadavg()[0], readings.conditions().load_1min, os.getloadavg()[0]
    assert found == pytest.approx(after, abs=0.01)  # /proc/loadavg has two decimals


def test_every_runtime_of_every_target_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from targets import registry
    from targets.types import Probe

    class Asked:
        def __init__(self, name: str):
            self._name = name

        def probe(self) -> Probe:
            here = Capability(self._name == "tflite", "" if self._name == "tflite" else f"no {self._name}")
            return Probe(Capability(False, "no converter"), {"one": here, "two": here}, {})

    monkeypatch.setattr(readings.registry, "get", Asked)
    found = readings.runtimes()
    assert set(found) == {f"{name} {runtime}" for name in registry.variants() for runtime in ("one", "two")}
    assert found["tflite two"].available
    assert found["coreml one"].reason == "no coreml"


# macOS. Versions as printed at https://www.sudo.is/docs/macos/man_pmset.html; sysctl's lines are constructed after
# sysctl(8), with the identifier of a MacBook Air (M2).
SW_VERS = "ProductName:\t\tmacOS\nProductVersion:\t\t14.2.1\nBuildVersion:\t\t23C71\n"
SYSCTL = "hw.model: Mac14,2\nmachdep.cpu.brand_string: Apple M2\nhw.optional.arm.FEAT_I8MM: 1\n"
# Settings in use, shortened from https://www.real-world-systems.com/docs/pmset.1.html; `lowpowermode` is added.
PMSET_G = "System-wide power settings:\nCurrently in use:\n standby              1\n lowpowermode         1\n sleep                1 (sleep prevented by sharingd)\n"  # noqa: E501
# Constructed in the layout of pmset(1).
BATT = "Now drawing from '{source}'\n -InternalBattery-0 (id=4653155)\t{text} present: true\n"
THERM = "Note: No thermal warning level has been recorded\nNote: No performance warning level has been recorded\n"
SPEED = "CPU_Scheduler_Limit \t= 100\n\tCPU_Available_CPUs \t= 8\n\tCPU_Speed_Limit \t= {limit}\n"


def test_a_mac_names_itself() -> None:
    values = mac.parse_sysctl(SYSCTL + "sysctl: unknown oid 'hw.optional.avx2_0'\n")
    assert values["hw.model"] == "Mac14,2"
    assert values["machdep.cpu.brand_string"] == "Apple M2"
    assert values["hw.optional.arm.FEAT_I8MM"] == "1"
    assert mac.system(SW_VERS).startswith("macOS 14.2.1 (23C71), ")
    assert mac.system("") == f"{platform.system()} {platform.release()} {platform.machine()}"


def test_a_mac_tells_battery_and_power() -> None:
    def batt(source: str, text: str) -> tuple[float | None, bool | None]:
        return mac.battery(BATT.format(source=source, text=text))

    assert batt("Battery Power", "63%; discharging; 4:12 remaining") == (63.0, False)
    assert batt("AC Power", "63%; charging; 1:02 remaining") == (63.0, True)
    assert batt("AC Power", "100%; charged; 0:00 remaining") == (100.0, False)
    assert mac.battery("Now drawing from 'AC Power'\n") == (None, None)  # a Mac mini
    assert mac.low_power(PMSET_G) is True
    assert mac.low_power(PMSET_G.replace("lowpowermode         1", "lowpowermode         0")) is False
    assert mac.low_power("Currently in use:\n powermode            2\n") is False
    assert mac.low_power("") is None


@pytest.mark.parametrize(
    ("notify", "therm", "status"),
    [
        ("com.apple.system.thermalpressurelevel 0\n", THERM, "none"),
        ("com.apple.system.thermalpressurelevel 1\n", THERM, "moderate"),
        ("com.apple.system.thermalpressurelevel 2\n", SPEED.format(limit=100), "severe"),
        ("com.apple.system.thermalpressurelevel 33\n", THERM, None),
        ("", THERM, None),  # nothing recorded is no pass
        ("", SPEED.format(limit=100), "none"),
        ("", SPEED.format(limit=62), "moderate"),
        ("com.apple.system.thermalpressurelevel: Failed with code 9\n", "", None),
    ],
)
def test_a_mac_tells_its_thermal_pressure(notify: str, therm: str, status: str | None) -> None:
    assert mac.thermal_status(notify, therm) == status
