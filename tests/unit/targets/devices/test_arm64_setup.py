"""The emulated Arm processor before there is one: versions, folders, commands, and what is told without it."""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path

import pytest

from targets.devices.address import Address
from targets.devices.arm64 import counted, setup
from targets.devices.arm64 import device as arm64
from targets.devices.arm64 import emulation as processor
from targets.devices.arm64.device import Arm64Device, found
from targets.devices.arm64.emulation import EXECUTORCH, LITERT, PYTHON, QEMU, Emulation, capability, wheel_versions
from targets.devices.device import CountsInstructions, DeviceOptions, device_at
from targets.types import TargetError, Unavailable

QEMU_ARM64 = Address("qemu-arm64")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(setup.GIVEN, raising=False)
    monkeypatch.setenv(setup.CACHE, str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "platform", "linux")
    return tmp_path / "cache"


def filled(folder: Path, *packages: str) -> Path:
    """A folder with the files of a prepared one, all of them empty."""
    for name in (PYTHON, QEMU, "qemu/lib64/ld-linux-x86-64.so.2", "qemu/lib/x86_64-linux-gnu/libc.so.6"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    for package in ("numpy", *packages):
        (folder / "site" / package).mkdir(parents=True)
    return folder


def test_the_wheels_are_those_of_this_machine() -> None:
    wheels = setup.wheels()
    assert wheels["ai-edge-litert"] == metadata.version("ai-edge-litert")
    assert wheels["numpy"] == metadata.version("numpy")
    assert {"flatbuffers", "ml-dtypes", "protobuf"} <= set(wheels)
    assert not {"colorama", "lark", "xdsl"} & set(wheels)  # of Windows, and of extras


def test_the_folder_follows_the_versions_and_the_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = setup.folder()
    assert before.parent == cache / "arm64"
    assert setup.folder() == before
    monkeypatch.setattr(setup, "wheels", lambda: {"ai-edge-litert": "0.0.1"})
    assert setup.folder() != before
    monkeypatch.setenv(setup.GIVEN, str(cache / "given"))
    assert setup.folder() == cache / "given"


def test_nothing_prepared_names_the_command(cache: Path) -> None:
    assert "python main.py devices --setup-arm64" in setup.ready()
    (one,) = found(DeviceOptions())
    assert (one.address, one.problem) == (QEMU_ARM64, setup.ready())
    with pytest.raises(Unavailable, match="qemu-arm64: not set up") as error:
        device_at(QEMU_ARM64, DeviceOptions(), pytest.fail)
    assert error.value.stage == "device"


def test_a_given_folder_is_looked_into(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = cache / "given"
    monkeypatch.setenv(setup.GIVEN, str(given))
    assert "is no folder" in setup.ready()
    given.mkdir(parents=True)
    assert f"has no {PYTHON}" in setup.ready()
    filled(given)
    assert setup.ready() == ""
    assert setup.prepare(pytest.fail) == given
    (given / QEMU).unlink()
    monkeypatch.setenv("PATH", str(cache))
    assert "PATH has no qemu-aarch64" in setup.ready()
    with pytest.raises(Unavailable, match="PATH has no qemu-aarch64"):
        setup.prepare(pytest.fail)


def test_without_apt_the_error_says_what_else_can_be_done(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Unavailable, match=f"no apt-get on this machine.*set {setup.GIVEN} to the copy") as error:
        setup.prepare(lambda line: None)
    assert error.value.stage == "device"
    assert not list((cache / "arm64").iterdir())


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(setup.CACHE, str(tmp_path / "file"))
    with pytest.raises(Unavailable, match=f"cannot be written .*set {setup.CACHE}"):
        setup.prepare(pytest.fail)


def test_what_goes_wrong_while_it_is_made_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unpack(packages: object, suite: str, architecture: str, into: Path, say: object) -> Path:
        return filled(into.parent) if into.name == "qemu" else into

    monkeypatch.setattr(setup, "unpack", unpack)
    monkeypatch.setattr(setup, "WHEELS", ("numpy",))
    monkeypatch.setattr(setup, "wheels", lambda: {"numpy": "0.0.999"})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(Unavailable, match=r"pip cannot install the arm64 wheels of numpy: ERROR.*0\.0\.999"):
        setup.prepare(lambda line: None)
    assert not list((cache / "arm64").iterdir())


def test_macos_is_told_that_it_takes_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "runs on Linux" in setup.ready()
    with pytest.raises(Unavailable, match="runs on Linux"):
        setup.prepare(pytest.fail)


def test_cores_cannot_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(setup.GIVEN, str(filled(tmp_path / "folder")))
    with pytest.raises(TargetError, match="leave --cpus out"):
        Arm64Device(QEMU_ARM64, DeviceOptions(cpus=(0,)))
    device = Arm64Device(QEMU_ARM64, DeviceOptions())
    assert not device.times
    assert isinstance(device, CountsInstructions)


def test_the_command_has_qemus_own_libraries_and_none_of_the_hosts_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/of/the/host")
    folder = filled(tmp_path / "folder")
    command = Emulation(folder).command("-m", "targets.worker")
    assert command[0] == str(folder / "qemu/lib64/ld-linux-x86-64.so.2")
    assert command[1:4] == ["--library-path", str(folder / "qemu/lib/x86_64-linux-gnu"), str(folder / QEMU)]
    assert command[-4:] == [str(folder / PYTHON), "-P", "-m", "targets.worker"]
    environment = Emulation(folder).environment()
    assert environment["QEMU_CPU"] == "cortex-a76"
    assert environment["PYTHONPATH"].split(":")[1:] == [str(folder / "site")]


def test_runtimes_are_what_the_folder_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(setup.GIVEN, str(filled(tmp_path / "a", "ai_edge_litert")))
    device = Arm64Device(QEMU_ARM64, DeviceOptions())
    assert device.runtimes("tflite", "all") == (LITERT,)
    assert device.runtimes("executorch", "all") == device.runtimes("coreml", "all") == ()
    with pytest.raises(Unavailable, match="has no executorch for executorch files"):
        device.count_instructions("executorch", tmp_path, EXECUTORCH, None)  # type: ignore[arg-type]
    monkeypatch.setenv(setup.GIVEN, str(filled(tmp_path / "b", "ai_edge_litert", "executorch", "torch")))
    assert Arm64Device(QEMU_ARM64, DeviceOptions()).runtimes("executorch", "all") == (EXECUTORCH,)
    assert "CUDA build" in capability(Emulation(tmp_path / "a"), EXECUTORCH).reason
    assert "ai_edge_litert" in capability(Emulation(tmp_path / "none"), LITERT).reason


def test_versions_are_read_from_the_wheels_metadata(tmp_path: Path) -> None:
    for name in ("numpy-2.4.6", "ai_edge_litert-2.3.0", "tqdm-4.70.1"):
        (tmp_path / "site" / f"{name}.dist-info").mkdir(parents=True)
    assert wheel_versions(tmp_path) == {"numpy": "2.4.6", "ai-edge-litert": "2.3.0"}


def test_the_processor_says_the_same_everywhere(tmp_path: Path) -> None:
    processor.write(tmp_path)
    cpuinfo = (tmp_path / "proc/cpuinfo").read_text()
    assert re.findall(r"processor\t: (\d)", cpuinfo) == ["0", "1", "2", "3"]
    assert cpuinfo.count("CPU part\t: 0xd0b\n") == 4  # Cortex-A76, as arch/arm64/include/asm/cputype.h has it
    features = re.search("Features\t: (.*)", cpuinfo)
    assert features
    assert set(processor.VECTOR_EXTENSIONS) <= set(features[1].split())
    assert not {"i8mm", "sve", "bf16"} & set(features[1].split())  # of later processors
    cpu = tmp_path / "sys/devices/system/cpu"
    assert (cpu / "possible").read_text() == "0-3\n"
    assert (cpu / "cpu3/cache/index2/size").read_text() == "512K\n"


def test_marks_become_counts_without_their_own_instructions() -> None:
    assert arm64.read_marks("mark 1000 1\nmark 1010 1\nmark 6020 1\nmark 11030 1\n") == [5000, 5000]
    assert arm64.read_marks("mark 1000 1\n") == arm64.read_marks("") == []


@pytest.mark.parametrize(
    ("log", "what"),
    [
        ("mark 1000 1\nmark 1010 2\n", "2 threads ran where one was expected"),
        ("mark 1000 1\nmark 10", "instead of a mark"),
        ("mark 1000 1\nplugin: warning\n", "instead of a mark"),
    ],
)
def test_a_count_that_is_not_exact_is_none(log: str, what: str) -> None:
    with pytest.raises(TargetError, match=what):
        arm64.read_marks(log)


def test_both_sides_know_the_same_mark() -> None:
    mark = re.search(r"MARK = (0x\w+);", arm64.SOURCE.read_text())
    assert mark
    assert int(mark[1], 16) == counted.MARK


def test_without_a_compiler_there_is_no_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match="no C compiler: install gcc"):
        arm64.compile_plugin(tmp_path / "count.so")
    (tmp_path / "cc").write_text("#!/bin/sh\necho 'error: no assembler' >&2\nexit 1\n")
    (tmp_path / "cc").chmod(0o755)
    with pytest.raises(Unavailable, match=r"cannot compile count_instructions\.c: error: no assembler"):
        arm64.compile_plugin(tmp_path / "count.so")
