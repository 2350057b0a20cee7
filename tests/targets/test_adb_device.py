"""A real adbd with stand-ins for the runtimes' programs: pushes, answers, faults; nothing here is a phone's result."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import adb_phone
import numpy as np
import pytest
from adb_phone import ADB_DATA, Phone, stand_in_facts, stand_in_logits
from compared_run import MadeUp, make_run

from pipeline.config import TimingPlan
from pipeline.stages.benchmark import benchmark_run
from pipeline.stages.devices import EntryLimits, Place
from targets import registry as targets
from targets.devices.adb import files as push
from targets.devices.adb import session
from targets.devices.adb.shell import Ended, Shell, only, quoted
from targets.devices.device import Device, device_at
from targets.types import Stage, TargetError, Unavailable
from targets.worker.facts import Conditions

pytestmark = pytest.mark.skipif(bool(adb_phone.missing()), reason=adb_phone.missing() or "there")
FILES = {"tflite": "litert", "executorch": "executorch"}
IMAGES = np.random.default_rng(0).standard_normal((5, 3, 32, 32), dtype=np.float32)


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phone]:
    with Phone(tmp_path_factory.mktemp("phone")) as one:
        yield one


@pytest.fixture
def healthy(phone: Phone) -> Iterator[Phone]:
    """The phone, put right again afterwards."""
    yield phone
    phone.fault("")
    phone.says(adb_phone.AWAKE)
    assert phone.link is not None
    phone.link.mend()
    phone.connect()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Target -> a file; the stand-in takes no more of it than its size."""
    folder = tmp_path_factory.mktemp("files")
    found = {}
    for number, target in enumerate(FILES):
        found[target] = folder / f"int8{targets.get(target).suffix}"
        found[target].write_bytes(bytes([number]) * 20_000)
    return found


@pytest.fixture(autouse=True)
def boundary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Input and output of these files are those that the stand-in has."""
    monkeypatch.setattr(session, "_inspected", lambda target, path: stand_in_facts())


def device(phone: Phone, timeout_s: float = 120.0, **options: object) -> Device:
    return device_at(phone.address(), phone.options(timeout_s, **options), lambda line: None)  # type: ignore[arg-type]


def expected(images: np.ndarray, file: Path) -> np.ndarray:
    return stand_in_logits(images, file.stat().st_size)


def left_over(phone: Phone) -> list[str]:
    return [path.name for path in phone.inside(ADB_DATA).iterdir() if path.name.startswith((".part", "chunk"))]


@pytest.mark.parametrize("target", FILES)
def test_images_go_there_and_answers_come_back(target: str, healthy: Phone, files: dict[str, Path]) -> None:
    with device(healthy).worker() as worker:
        opened = worker.open(target, files[target], FILES[target], 1)
        assert np.allclose(opened.infer(IMAGES), expected(IMAGES, files[target]), rtol=1e-6)
        assert np.allclose(opened.infer(IMAGES[:1]), expected(IMAGES[:1], files[target]), rtol=1e-6)
        samples = opened.samples(IMAGES, 4)
        assert opened.load_ms == {"tflite": 0.855, "executorch": 12.5}[target]  # what the stand-in has recorded
        with pytest.raises(TargetError, match=r"takes float32 images of \[3, 32, 32\], not float64"):
            opened.infer(IMAGES.astype(np.float64))
    assert samples.per_sample == {"tflite": 4, "executorch": 1}[target]
    assert samples.wall_ms == {"tflite": [33.2094], "executorch": [22.25, 23.25, 24.25, 25.25]}[target]
    assert not left_over(healthy)


def test_what_is_there_is_not_sent_again_and_a_damaged_copy_is(
    healthy: Phone, files: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "a.tflite"
    path.write_bytes(files["tflite"].read_bytes())
    with device(healthy).worker() as worker:
        worker.open("tflite", path, "litert", 1)
        there = {p: p.stat().st_mtime_ns for p in healthy.inside(ADB_DATA).iterdir() if len(p.name) == 64}
        worker.open("tflite", path, "litert", 1)
        assert {p: p.stat().st_mtime_ns for p in there} == there
        (copy,) = [p for p in there if p.read_bytes() == path.read_bytes()]
        copy.write_bytes(b"damaged")
        worker.open("tflite", path, "litert", 1)
        assert copy.read_bytes() == path.read_bytes()


def test_facts_and_states_are_read(healthy: Phone) -> None:
    one = device(healthy)
    facts = one.facts()
    assert (facts.model, facts.chip) == ("Nobody Stand-in, no phone", "Nobody NONE-1")
    assert facts.system.startswith("Android 15 (API 35) ")
    assert facts.cores == os.cpu_count()
    assert facts.runtimes["tflite litert"].available
    found = one.conditions()
    assert found.load_1min is not None
    assert (found.temperature_c, found.battery_percent, found.screen) == (30.5, 80.0, "on")
    healthy.says({"trust": "deviceLocked=1", "thermalservice": "Thermal Status: 3", "battery": "nothing"})
    found = one.conditions()
    assert (found.screen, found.thermal_status, found.battery_percent) == ("locked", "severe", None)
    assert isinstance(found, Conditions)


def hostile() -> list[str]:
    """50 names that a shell, a path or a terminal would trip over."""
    injections = [
        "$(touch X)",
        "`touch X`",
        ";touch X;",
        "|touch X",
        "&touch X&",
        "\ntouch X\n",
        "&&touch X",
        "||touch X",
    ]
    quotes = ["'", '"', "';touch X;'", '";touch X;"', "\\", "\\\\n", "'\"'", "$'a'", "a'b", 'a"b', "'$(touch X)'"]
    patterns = ["*", "?", "[a-z]", "{a,b}", "~", "~root", "$HOME", "${X}", "!!", "%s", "#", "<X", ">X", ">>X", "2>X"]
    rest = [
        "--help",
        "-rf",
        "-",
        " ",
        "a b",
        "\t",
        "\r",
        "\x1b[31m",
        "\x7f",
        "é",
        "日本",
        "🐍",
        "\u202ea",
        "$IFS",
        "(a)",
        "x" * 200,
    ]
    found = injections + quotes + patterns + rest
    assert len(found) == 50
    return found


def test_hostile_names_inject_nothing(healthy: Phone, tmp_path: Path) -> None:
    shell = Shell(healthy.address().name, 120.0)
    for name in hostile():
        assert shell.run(["printf", "%s", name]).output == name
    assert shell.run(["printf", "%s/", *hostile()]).output == "".join(f"{name}/" for name in hostile())
    assert not [p for p in healthy.inside("data/local/tmp").iterdir() if p.name == "X"]
    assert not [p for p in healthy.inside("").iterdir() if p.name == "X"]
    with pytest.raises(ValueError, match="NUL"):
        quoted(["a\0b"])


def test_a_file_of_a_hostile_name_is_pushed_under_its_digest(
    healthy: Phone, files: dict[str, Path], tmp_path: Path
) -> None:
    names = [name for name in hostile() if "/" not in name and name.strip(".") and len(name.encode()) < 200]
    with device(healthy).worker() as worker:
        for name in names[:6]:
            path = tmp_path / f"{name}.tflite"
            path.write_bytes(files["tflite"].read_bytes())
            opened = worker.open("tflite", path, "litert", 1)
            assert np.allclose(opened.infer(IMAGES[:1]), expected(IMAGES[:1], path), rtol=1e-6)
    assert not left_over(healthy)


FAULTS: dict[str, tuple[str, str]] = {
    "crash": ("run", "aborted there with signal 11"),
    "killed": ("run", "aborted there with signal 9"),
    "hang": ("run", r"no answer within 1 s"),
    "stopped": ("run", r"no answer within 1 s"),
}


class ImpatientShell(Shell):
    """Waits for a program of a runtime for 1 s, and for everything else as long as the device's limit says."""

    def script(self, text: str, stage: Stage = "device") -> Ended:
        return Shell(self.serial, 1.0 if stage == "run" else self.limit_s).script(text, stage)


@pytest.mark.parametrize("word", FAULTS)
def test_a_program_that_dies_or_hangs_is_no_result(word: str, healthy: Phone, files: dict[str, Path]) -> None:
    with device(healthy).worker() as worker:
        opened = worker.open("tflite", files["tflite"], "litert", 1)
        if word in ("hang", "stopped"):
            opened._shell = ImpatientShell(opened._shell.serial, opened._shell.limit_s)  # type: ignore[attr-defined]
        healthy.fault(word)
        with pytest.raises(TargetError, match=FAULTS[word][1]) as error:
            opened.infer(IMAGES)
        assert error.value.stage == FAULTS[word][0]
        with pytest.raises(TargetError, match=FAULTS[word][1]):
            opened.samples(IMAGES, 2)
        end = time.monotonic() + 120
        while healthy.processes("--graph=") and time.monotonic() < end:
            time.sleep(0.05)
        assert not healthy.processes("--graph=")  # nothing goes on running there


def test_a_program_that_ends_with_nothing_said_is_no_result(healthy: Phone, files: dict[str, Path]) -> None:
    with device(healthy).worker() as worker:
        opened = worker.open("tflite", files["tflite"], "litert", 1)
        healthy.fault("silent")
        with pytest.raises(TargetError, match=r"output 0 cannot be read there"):
            opened.infer(IMAGES)
        with pytest.raises(TargetError, match="did not tell of 2 inferences"):
            opened.samples(IMAGES, 2)


def unplug_while_a_program_runs(phone: Phone) -> None:
    while not phone.processes("--graph="):
        time.sleep(0.01)
    phone.unplug()


def test_a_pulled_cable_is_no_result(tmp_path_factory: pytest.TempPathFactory, files: dict[str, Path]) -> None:
    with Phone(tmp_path_factory.mktemp("pulled")) as phone, device(phone).worker() as worker:
        opened = worker.open("tflite", files["tflite"], "litert", 1)
        phone.fault("hang")
        threading.Thread(target=unplug_while_a_program_runs, args=(phone,)).start()
        for _ in range(2):
            with pytest.raises(TargetError, match=r"link was lost|is not there|not answer|no answer"):
                opened.infer(IMAGES)


@pytest.mark.parametrize("how", ["cut", "silent", "slow"])
def test_a_link_that_is_cut_silent_or_slow_is_no_result(
    how: str, tmp_path_factory: pytest.TempPathFactory, files: dict[str, Path]
) -> None:
    with Phone(tmp_path_factory.mktemp(how)) as phone, device(phone).worker() as worker:
        assert phone.link is not None
        opened = worker.open("tflite", files["tflite"], "litert", 1)
        if how == "cut":
            phone.link.cut_after(200)
        phone.link.silent = how == "silent"
        phone.link.bytes_per_s = 2_000 if how == "slow" else None
        opened._shell = replace(opened._shell, limit_s=2.0)  # type: ignore[attr-defined]
        with pytest.raises(TargetError):
            opened.infer(IMAGES)


def test_a_full_disk_is_told_before_and_during_a_push(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Phone(tmp_path_factory.mktemp("full"), megabytes=8) as phone, device(phone).worker() as worker:
        with pytest.raises(TargetError, match=r"disk of adb:.* is full: .* are free: make room"):
            worker.open("tflite", files["tflite"], "litert", 1)
        monkeypatch.setattr(push, "SPARE_BYTES", -(1 << 40))  # as if df told of room that is not there
        phone.inside(f"{ADB_DATA}/ballast").write_bytes(bytes(7_900_000))
        with pytest.raises(TargetError, match="No space left"):
            worker.open("tflite", files["tflite"], "litert", 1)
        assert not left_over(phone)


def test_two_devices_need_a_name_and_none_is_said(tmp_path_factory: pytest.TempPathFactory) -> None:
    with Phone(tmp_path_factory.mktemp("two"), ports=(6001, 6002)) as phone:
        with pytest.raises(TargetError, match=r"adb sees 2 devices: name one of adb:127\.0\.0\.1:6001, adb:127"):
            only("")
        assert only("127.0.0.1:6002") == "127.0.0.1:6002"
        with pytest.raises(TargetError, match="adb:0A1B is not there: is it unplugged"):
            only("0A1B")
        for port in phone.ports:
            phone.adb("host", "disconnect", f"127.0.0.1:{port}")
        with pytest.raises(TargetError, match="adb sees no device"):
            only("")


def test_a_program_for_another_processor_is_refused_before_it_is_sent(
    healthy: Phone, files: dict[str, Path], tmp_path: Path
) -> None:
    foreign = tmp_path / "benchmark_model"
    content = bytearray(adb_phone.built_runner().read_bytes())
    content[18:20] = (183).to_bytes(2, "little")  # e_machine: AArch64
    foreign.write_bytes(content)
    options = replace(healthy.options(), benchmark_model=foreign, executor_runner=None)
    one = device_at(healthy.address(), options, print)
    with one.worker() as worker:
        with pytest.raises(
            TargetError, match=r"benchmark_model is for arm64-v8a, and adb:.* runs x86_64: give --benchm"
        ):
            worker.open("tflite", files["tflite"], "litert", 1)
        with pytest.raises(Unavailable, match="give --executor-runner"):
            worker.open("executorch", files["executorch"], "executorch", 1)
        with pytest.raises(Unavailable, match="do not run in"):
            worker.open("tflite", files["tflite"], "tensorflow", 1)
    assert not one.facts().runtimes["tflite litert"].available
    assert one.runtimes("coreml", "all") == ()


def test_a_benchmark_has_the_records_of_any_device(healthy: Phone, tmp_path: Path) -> None:
    run = make_run(tmp_path, MadeUp(timed=False), 1)
    control = make_run(tmp_path, MadeUp(model="mobilenet_v2", timed=False), 2)
    on = Place(device(healthy, cpus=(0,)), (0,), EntryLimits(42.0, 0.0), lambda line: None)
    plan = TimingPlan(rounds=10, samples=3, warmup=2, processes=2)
    (record,) = benchmark_run(run, control, ["tflite"], plan, lambda line: None, on=on)
    assert record.outcome.status == "ok", record.outcome
    assert record.key.device == f"adb:{healthy.address().name}"
    assert record.control is not None
    assert record.control.device == record.key.device
    assert record.rounds_ms == ((33.2094,),) * 10  # what the stand-in has recorded
    assert (record.inferences_per_sample, record.load_ms, record.cpus) == (3, (0.855,) * 3, (0,))
    assert record.device is not None
    assert record.device.model == "Nobody Stand-in, no phone"
    assert [c.temperature_c for c in record.conditions] == [30.5] * 3
    assert record.throttling is not None
    assert not record.throttling.flagged

    healthy.says({"trust": "deviceLocked=1"})
    (record,) = benchmark_run(run, control, ["tflite"], plan, lambda line: None, on=on)
    assert record.rounds_ms is None
    assert "its screen is locked: unlock it" in (record.outcome.reason or "")
