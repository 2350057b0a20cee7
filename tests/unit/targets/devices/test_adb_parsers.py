"""What Android and the runtimes' programs print: recorded, odd, cut short, and empty; nothing is guessed."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from targets.devices.adb import device
from targets.devices.adb import shell as server
from targets.devices.adb.android import (
    abis_of,
    chip_of,
    conditions_of,
    cores_of,
    extensions_of,
    model_of,
    parts_of,
    properties,
    script_of,
    system_of,
)
from targets.devices.adb.runners import ExecuTorch, LiteRT, abi_of
from targets.devices.device import DeviceOptions
from targets.types import TargetError
from targets.worker.facts import Conditions

# From https://github.com/tensorflow/tensorflow/issues/42507 (an Android phone, four threads).
BENCHMARK_MODEL = """STARTING!
Duplicate flags: num_threads
Log parameter values verbosely: [0]
Num threads: [4]
Graph: [/data/local/tmp/espcn_harmonic_2x_slim_w_cl.tflite]
#threads used for CPU inference: [4]
Loaded model /data/local/tmp/espcn_harmonic_2x_slim_w_cl.tflite
The input model file size (MB): 0.004448
Initialized session in 0.855ms.
Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
count=15 first=49060 curr=33682 min=32825 max=49060 avg=34825.1 std=3930

Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
count=50 first=32891 curr=33978 min=32641 max=34005 avg=33209.4 std=450

Inference timings in us: Init: 855, First inference: 49060, Warmup (avg): 34825.1, Inference (avg): 33209.4
Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the actual memory \
footprint of the model at runtime. Take the information at your discretion.
Peak memory footprint (MB): init=0 overall=12.8672
"""
# From https://github.com/google-research/google-research/issues/802, where 1,000 runs were asked for.
THOUSAND = """
count=478 first=2104 curr=1017 min=1012 max=2104 avg=1041.15 std=63

Running benchmark for at least 1000 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
count=1000 first=1040 curr=1018 min=1012 max=1190 avg=1039.66 std=22

Inference timings in us: Init: 17851, First inference: 2104, Warmup (avg): 1041.15, Inference (avg): 1039.66
"""
# In the words of executor_runner.cpp of ExecuTorch 1.4; the times are made up.
EXECUTOR_RUNNER = """I 00:00:00.000612 executorch:executor_runner.cpp:476] Model file m.pte is loaded.
I 00:00:00.004100 executorch:executor_runner.cpp:624] Model loaded in 3.400000 ms.
I 00:00:00.014100 executorch:executor_runner.cpp:779] Iteration 1 of 3: 9.900000 ms
I 00:00:00.021100 executorch:executor_runner.cpp:779] Iteration 2 of 3: 7.100000 ms
I 00:00:00.028100 executorch:executor_runner.cpp:779] Iteration 3 of 3: 7.000000 ms
I 00:00:00.028200 executorch:executor_runner.cpp:789] Model executed successfully 3 time(s) in 24.000000 ms.
"""


def test_benchmark_model_tells_means() -> None:
    timing = LiteRT.read(BENCHMARK_MODEL, 50)
    assert timing.samples.wall_ms == [33.2094]
    assert (timing.samples.per_sample, timing.load_ms) == (50, 0.855)
    assert LiteRT.read(THOUSAND, 1000).samples.wall_ms == [1.03966]


def test_runs_that_are_all_the_same_and_a_single_one() -> None:
    """`Stat` prints no first where all values were the same (tensorflow/core/util/stats_calculator.h)."""
    same = BENCHMARK_MODEL.replace(
        "count=50 first=32891 curr=33978 min=32641 max=34005 avg=33209.4 std=450", "count=50 curr=33209(all same)"
    )
    assert LiteRT.read(same, 50).samples.wall_ms == [33.2094]
    single = BENCHMARK_MODEL.replace(
        "count=50 first=32891 curr=33978 min=32641 max=34005 avg=33209.4 std=450", "count=1 curr=33209"
    )
    assert LiteRT.read(single, 1).samples.per_sample == 1
    large = BENCHMARK_MODEL.replace("Inference (avg): 33209.4", "Inference (avg): 1.25e+06")
    assert LiteRT.read(large, 50).samples.wall_ms == [1250.0]


@pytest.mark.parametrize("runs", [49, 51, 15])
def test_another_number_of_runs_is_no_result(runs: int) -> None:
    with pytest.raises(TargetError, match=f"did not tell of {runs} inferences"):
        LiteRT.read(BENCHMARK_MODEL, runs)


def test_every_cut_of_the_output_before_the_last_figure_is_no_result() -> None:
    for text, read, runs, end in (
        (BENCHMARK_MODEL, LiteRT.read, 50, "Inference (avg): 33209.4"),
        (EXECUTOR_RUNNER, ExecuTorch.read, 2, "in 24.000000 ms"),
    ):
        whole = text.index(end) + len(end)
        for cut in range(0, whole - len(end), 7):
            with pytest.raises(TargetError):
                read(text[:cut], runs)


@pytest.mark.parametrize(
    "text", ["", "Segmentation fault\n", "count=50\nInference timings in us: Init: x\n", "\0" * 99]
)
def test_noise_is_no_result(text: str) -> None:
    for read in (LiteRT.read, ExecuTorch.read):
        with pytest.raises(TargetError):
            read(text, 50)


def test_executor_runner_tells_each_run_and_older_ones_the_mean() -> None:
    timing = ExecuTorch.read(EXECUTOR_RUNNER, 2)
    assert (timing.samples.wall_ms, timing.samples.per_sample, timing.load_ms) == ([7.1, 7.0], 1, 3.4)
    older = "\n".join(
        line for line in EXECUTOR_RUNNER.splitlines() if "Iteration" not in line and "loaded in" not in line
    )
    timing = ExecuTorch.read(older, 2)
    assert (timing.samples.wall_ms, timing.samples.per_sample, timing.load_ms) == ([8.0], 3, None)
    lost = EXECUTOR_RUNNER.replace("Iteration 2 of 3: 7.100000 ms", "")
    with pytest.raises(TargetError, match="lost some of 3 iterations"):
        ExecuTorch.read(lost, 2)
    with pytest.raises(TargetError, match="did not tell of 4 inferences"):
        ExecuTorch.read(EXECUTOR_RUNNER, 3)


# In the form of Android's own programs (AOSP: BatteryService, ThermalManagerService, PowerManagerService,
# TrustManagerService); the values are made up.
BATTERY = """Current Battery Service state:
  AC powered: false
  USB powered: true
  status: 2
  health: 2
  present: true
  level: 87
  scale: 100
  voltage: 4310
  temperature: 312
  technology: Li-ion
"""
THERMAL = """IsStatusOverride: false
ThermalEventListeners:
	callbacks: 2
Thermal Status: 1
Cached temperatures:
	Temperature{mValue=99.0, mType=3, mName=skin, mStatus=0}
HAL Ready: true
Current temperatures from HAL:
	Temperature{mValue=71.5, mType=0, mName=CPU0, mStatus=0}
	Temperature{mValue=33.25, mType=3, mName=skin, mStatus=1}
	Temperature{mValue=31.2, mType=2, mName=battery, mStatus=0}
Current cooling devices from HAL:
	CoolingDevice{mValue=0, mType=2, mName=thermal-cpufreq-0}
"""


def test_conditions() -> None:
    found = conditions_of(
        {
            "battery": BATTERY,
            "thermal": THERMAL,
            "power": "POWER MANAGER\nPower Manager State:\n  mWakefulness=Awake\n",
            "trust": ' User "Owner" (id=0, flags=0x4c13) (current): trusted=0, deviceLocked=0\n',
            "low_power": "1",
            "governors": "schedutil\nschedutil\nperformance\n",
            "frequencies": "300000\n1800000\n",
            "loadavg": "1.25 0.90 0.70 1/900 12345\n",
        }
    )
    assert found == Conditions(33.25, "light", 87.0, True, True, "on", ("schedutil", "schedutil", "performance"), (300000, 1800000), 1.25)  # fmt: skip  # noqa: E501


# The recorded thermalservice in a comment of google/skia-buildbot (machine/go/machine/processor/impl.go): a phone whose
# types count from 1, so that 3 is its battery and 4 its skin.
COUNTED_FROM_ONE = """HAL Ready: true
Current temperatures from HAL:
\tTemperature{mValue=24.0, mType=1, mName=TYPE_CPU, mStatus=0}
\tTemperature{mValue=24.4, mType=3, mName=TYPE_BATTERY, mStatus=0}
\tTemperature{mValue=25.3, mType=4, mName=TYPE_SKIN, mStatus=0}
\tTemperature{mValue=24.2, mType=5, mName=TYPE_USB_PORT, mStatus=0}
\tTemperature{mValue=-99.9, mType=6, mName=TYPE_POWER_AMPLIFIER, mStatus=0}
Current cooling devices from HAL:
\tCoolingDevice{mValue=0, mType=2, mName=TYPE_CPU}
"""


def test_a_skin_sensor_is_known_by_its_name_too() -> None:
    assert conditions_of({"thermal": COUNTED_FROM_ONE}).temperature_c == 25.3


def test_the_lock_of_the_user_in_front_counts() -> None:
    """A work profile, or another user, has a line of its own and may be locked while the phone is in use."""
    lines = [
        ' User "Owner" (id=0, flags=0x4c13): trusted=0, deviceLocked=1, strongAuthRequired=0x0',
        ' User "Guest" (id=10, flags=0x414) (current): trusted=0, deviceLocked=0, strongAuthRequired=0x0',
    ]
    for order in (lines, lines[::-1]):
        assert conditions_of({"power": "  mWakefulness=Awake\n", "trust": "\n".join(order)}).screen == "on"


def test_old_executor_runners_are_not_stopped_by_a_flag_that_they_do_not_know() -> None:
    """1.0 to 1.2 have no --print_output; gflags lets it pass only if it is named so, as --flag=value."""
    for command in (
        ExecuTorch.timing("p", "m", (1, 3, 8, 8), 1, 2),
        ExecuTorch.inference("p", "m", (1, 3, 8, 8), 1, "in", "out"),
    ):
        known = {"model_path", "inputs", "output_file", "num_executions", "cpu_threads"}  # of v1.0.0
        given = dict(word.removeprefix("--").split("=", 1) for word in command[1:])
        tolerated = set(given.pop("undefok").split(","))
        assert set(given) - known <= tolerated


def test_what_is_not_told_is_none() -> None:
    assert conditions_of({}) == Conditions()
    odd = {
        "battery": "level: many\nscale: 0\nstatus: 9\ntemperature: hot",
        "thermal": "Thermal Status: 77",
        "low_power": "?",
    }
    assert conditions_of(odd) == Conditions()
    assert conditions_of({"battery": "  temperature: 99999\n"}).temperature_c is None
    assert conditions_of({"power": "  mWakefulness=Dozing\n"}).screen == "off"
    assert conditions_of({"power": "  mWakefulness=Awake\n", "trust": "deviceLocked=1"}).screen == "locked"
    assert conditions_of({"low_power": "null"}).low_power is False


def test_facts() -> None:
    props = properties(
        "[ro.product.manufacturer]: [Google]\n[ro.product.model]: [Pixel 8]\n[ro.soc.manufacturer]: [Google]\n"
        "[ro.soc.model]: [Tensor G3]\n[ro.build.version.release]: [15]\n[ro.build.version.sdk]: [35]\n"
        "[ro.product.cpu.abilist]: [arm64-v8a,armeabi-v7a]\nnoise\n[persist.x]: []\n"
    )
    assert model_of(props) == "Google Pixel 8"
    assert model_of({"ro.product.manufacturer": "OnePlus", "ro.product.model": "ONEPLUS A6003"}) == "ONEPLUS A6003"
    assert chip_of(props, "") == "Google Tensor G3"
    assert chip_of({}, "Hardware\t: Qualcomm Technologies, Inc SDM845\n") == "Qualcomm Technologies, Inc SDM845"
    assert chip_of({"ro.board.platform": "kona"}, "") == "kona"
    assert system_of(props, "Linux aarch64\n") == "Android 15 (API 35) aarch64"
    assert abis_of(props) == ("arm64-v8a", "armeabi-v7a")
    assert abis_of({"ro.product.cpu.abi": "armeabi-v7a"}) == ("armeabi-v7a",)
    assert extensions_of("Features\t: fp asimd aes asimddp i8mm\nFeatures\t: fp asimd\n") == (
        "asimd",
        "asimddp",
        "i8mm",
    )
    assert cores_of("/sys/devices/system/cpu/cpu0\n/sys/devices/system/cpu/cpu11\n") == 2
    assert (model_of({}), chip_of({}, ""), system_of({}, ""), cores_of("")) == ("unknown", "unknown", "unknown", None)


def test_parts_come_back_by_name() -> None:
    assert "getprop" in script_of({"getprop": "getprop"})
    assert parts_of("==edge-t2t== a\n1\n2\n\n==edge-t2t== b\n\n==edge-t2t== c\nx") == {"a": "1\n2", "b": "", "c": "x"}
    assert parts_of("") == {}


def test_no_device_at_all_is_told_in_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_listed", list)
    (one,) = device.found(DeviceOptions())
    assert one.address.label == "adb"
    assert "plug one in" in one.problem


def elf(machine: int, bits: int) -> bytes:
    return b"\x7fELF" + bytes([bits, 1, 1]) + bytes(9) + struct.pack("<HH", 2, machine) + bytes(44)


@pytest.mark.parametrize(
    ("machine", "bits", "abi"), [(183, 2, "arm64-v8a"), (40, 1, "armeabi-v7a"), (62, 2, "x86_64"), (3, 1, "x86")]
)
def test_the_processor_of_a_program(machine: int, bits: int, abi: str, tmp_path: Path) -> None:
    (tmp_path / "program").write_bytes(elf(machine, bits))
    assert abi_of(tmp_path / "program") == abi


@pytest.mark.parametrize(
    "content", [b"", b"#!/bin/sh\necho\n" * 9, b"\xcf\xfa\xed\xfe" + bytes(60), elf(243, 2), elf(183, 1)]
)
def test_what_is_no_program_for_a_phone(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "program").write_bytes(content)
    with pytest.raises(ValueError, match="program"):
        abi_of(tmp_path / "program")


@pytest.mark.parametrize(
    ("listed", "says"),
    [
        ([("0A1B", "unauthorized")], "accept the question about USB debugging"),
        ([("0A1B", "offline")], "does not answer"),
        ([("0A1B", "no permissions")], "udev rule"),
        ([("0A1B", "recovery")], "boot its system"),
        ([("0A1B", "weird")], "its state is 'weird'"),
        ([("0A1B", "device"), ("2C3D", "unauthorized")], "name one of adb:0A1B, adb:2C3D"),
        ([], "adb sees no device"),
    ],
)
def test_a_device_that_cannot_be_used_says_what_to_do(
    listed: list[tuple[str, str]], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_listed", lambda: listed)
    with pytest.raises(TargetError, match=says):
        server.only("")
