"""Benchmark on a device that is unplugged, hot or emulated: what is kept, what is left out, what is never a success."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from compared_run import MadeUp, make_run, with_file
from fake_device import FACTS, FakeDevice, place

from pipeline.config import TimingPlan
from pipeline.errors import UsageError
from pipeline.gate.baseline import Instructions
from pipeline.gate.collect import facts_of
from pipeline.records.keys import OK, CellKey
from pipeline.records.latency import InstructionRecord, LatencyRecord
from pipeline.report.tables.latency import circumstances, conditions_line, facts_lines
from pipeline.run.cells import load_conversions, load_instructions, load_latency, save_cells
from pipeline.run.folder import Run
from pipeline.run.layout import INSTRUCTIONS
from pipeline.stages.benchmark import benchmark_run
from pipeline.stages.cost import count_run
from pipeline.stages.devices import EntryLimits
from targets.devices.device import InstructionCount
from targets.types import TargetError
from targets.worker.facts import Conditions

PLAN = TimingPlan(rounds=10, samples=2, processes=2)


def runs(tmp_path: Path) -> tuple[Run, Run]:
    both = [
        make_run(tmp_path, MadeUp(timed=False), 1),
        make_run(tmp_path, MadeUp(model="mobilenet_v2", timed=False), 2),
    ]
    return with_file(both[0], "executorch"), with_file(both[1], "executorch")


def timed(
    tmp_path: Path, device: FakeDevice, resume: bool = False, both: tuple[Run, Run] | None = None
) -> tuple[LatencyRecord, ...]:
    run, control = both or runs(tmp_path)
    lines: list[str] = []
    return benchmark_run(
        run, control, ["executorch", "tflite"], PLAN, lines.append, on=place(device, cpus=(4, 5)), resume=resume
    )


def test_records_carry_the_device_and_its_state(tmp_path: Path) -> None:
    both = runs(tmp_path)
    states = [Conditions(temperature_c=30.0 + n) for n in range(20)]
    records = timed(tmp_path, FakeDevice(states=states), both=both)

    assert load_latency(both[0]) == records
    first = records[0]
    assert first.key == CellKey("t2t_vit_7", "executorch", "executorch", "int8", "qat", "adb:MADEUP")
    assert first.control == replace(first.key, model="mobilenet_v2")
    assert first.device == FACTS
    assert first.host["processor"] == "Made-up phone, Made-up chip"
    assert [c.temperature_c for c in first.conditions] == [30.0, 31.0, 32.0]  # before each process, after the last
    assert first.cpus == (4, 5)
    assert first.steady
    assert len(first.load_ms) == 3


def test_a_device_that_is_unplugged_keeps_what_was_done_and_goes_on(tmp_path: Path) -> None:
    both = runs(tmp_path)
    # Two processes and two more loads of the first cell, then nothing answers any more.
    records = timed(tmp_path, FakeDevice(unplugged=4), both=both)

    assert [r.outcome.status for r in records] == ["failed", "failed"]
    assert all(r.rounds_ms is None for r in records)  # the first one's state after its last process is not known
    assert "unplugged" in (records[1].outcome.reason or "")
    assert records[1].outcome.stage == "device"

    records = timed(tmp_path, FakeDevice(unplugged=6), both=both)
    assert [r.outcome.status for r in records] == ["ok", "failed"]
    assert [r.outcome.status for r in load_latency(both[0])] == ["ok", "failed"]


def test_resume_does_only_what_is_missing(tmp_path: Path) -> None:
    both = runs(tmp_path)
    first = timed(tmp_path, FakeDevice(unplugged=6), both=both)

    again = FakeDevice()
    records = timed(tmp_path, again, resume=True, both=both)
    assert [r.outcome.status for r in records] == ["ok", "ok"]
    assert records[0] == first[0]
    assert {name for _, name, _ in again.workers.log} == {"tflite-int8.tflite"}

    with_file(both[0], "executorch", "another file")
    changed = FakeDevice()
    timed(tmp_path, changed, resume=True, both=both)
    assert {name for _, name, _ in changed.workers.log} == {"executorch-int8.pte"}


def test_resume_takes_no_other_device_for_this_one(tmp_path: Path) -> None:
    both = runs(tmp_path)
    timed(tmp_path, FakeDevice(), both=both)
    other = FakeDevice(known=replace(FACTS, chip="Another chip"))
    timed(tmp_path, other, resume=True, both=both)
    assert other.workers.log


def test_a_device_that_cannot_be_reached_stops_before_any_work(tmp_path: Path) -> None:
    device = FakeDevice(unplugged=0)
    with pytest.raises(TargetError, match="is it unplugged"):
        timed(tmp_path, device)
    assert not device.workers.log


def test_a_target_that_nothing_runs_there_is_refused_alone_and_left_out_among_others(tmp_path: Path) -> None:
    run, control = runs(tmp_path)
    with_file(run, "coreml")
    with pytest.raises(UsageError, match="files for coreml run in no runtime on adb:MADEUP"):
        benchmark_run(run, control, ["coreml"], PLAN, lambda line: None, on=place(FakeDevice()))
    records = benchmark_run(run, control, ["coreml", "tflite"], PLAN, lambda line: None, on=place(FakeDevice()))
    assert [r.key.target for r in records] == ["tflite"]


def test_a_locked_device_times_nothing(tmp_path: Path) -> None:
    device = FakeDevice(states=[Conditions(screen="locked")])
    records = timed(tmp_path, device)
    assert all("screen is locked" in (r.outcome.reason or "") for r in records)
    assert not device.workers.log


def test_an_emulated_device_has_no_latency(tmp_path: Path) -> None:
    device = FakeDevice(times=False, known=replace(FACTS, emulated=True))
    records = timed(tmp_path, device)
    assert [r.outcome.status for r in records] == ["unavailable"] * 2
    assert all(r.rounds_ms is None and "latency is not measured" in (r.outcome.reason or "") for r in records)
    ok = timed(tmp_path, FakeDevice())[0]
    with pytest.raises(ValueError, match="no latency"):
        replace(ok, device=replace(FACTS, emulated=True))


class Counting(FakeDevice):
    """Counts the bytes of a file."""

    def count_instructions(self, target: str, path: Path, runtime: str, image: np.ndarray) -> InstructionCount:
        self._reach()
        assert image.shape == (1, 3, 96, 96)
        return InstructionCount(1000 * path.stat().st_size, 3, 2, "made up emulator")


def test_instructions_are_counted_kept_and_judged(tmp_path: Path) -> None:
    run, _ = runs(tmp_path)
    on = place(Counting(times=False))
    records = count_run(run, ["executorch", "tflite"], on, lambda line: None)
    assert load_instructions(run) == records
    assert [r.count.per_inference if r.count else None for r in records] == [4000, 9000]

    gone = place(Counting(times=False, unplugged=0))
    assert count_run(run, ["tflite"], gone, lambda line: None, resume=True) == records[1:]
    (failed,) = count_run(run, ["tflite"], gone, lambda line: None)
    assert (failed.outcome.status, failed.count) == ("failed", None)
    with pytest.raises(UsageError, match="counts no instructions"):
        count_run(run, ["tflite"], place(FakeDevice()), lambda line: None)


def test_the_gate_takes_counts_of_the_very_file_only(tmp_path: Path) -> None:
    run, _ = runs(tmp_path)
    key = CellKey("t2t_vit_7", "tflite", "litert", "int8", "qat", "host")
    record = InstructionRecord(key, OK, load_conversions(run)[1].sha256 or "", InstructionCount(7, 1, 0, "made up"))
    save_cells(run, INSTRUCTIONS, InstructionRecord, [record])
    assert facts_of(run).cells[0].instructions == Instructions(7, "made up")
    save_cells(run, INSTRUCTIONS, InstructionRecord, [replace(record, sha256="0" * 64)])
    assert facts_of(run).cells[0].instructions is None


def test_what_was_measured_under_is_told(tmp_path: Path) -> None:
    record = timed(tmp_path, FakeDevice(states=[Conditions(temperature_c=31.5, governors=("schedutil",) * 2)]))[0]
    steady = ((1.0, 1.0),) * 5
    throttled = replace(
        record, rounds_ms=(*steady, *(((2.0, 2.0),) * 5)), control_rounds_ms=(*steady, *(((2.1, 2.1),) * 5))
    )
    text = "\n".join(circumstances(replace(throttled, inferences_per_sample=4, steady=False)))
    for part in (
        "throttled: 2.0",
        "in one step from round 5 of 10",
        "before its time was steady",
        "bound to cores 4, 5",
        "mean of 4 inferences",
        "31.5 °C, governor schedutil",
        "Made-up phone",
    ):
        assert part in text
    assert conditions_line(Conditions()) == "state not told"
    assert "chip: Made-up chip, 8 cores (asimddp)" in facts_lines(FACTS)


def test_limits_hold_before_every_process(tmp_path: Path) -> None:
    states = [Conditions(temperature_c=30.0), Conditions(temperature_c=60.0)]
    device = FakeDevice(states=states)
    run, control = runs(tmp_path)
    on = place(device, EntryLimits(42.0, wait_s=0.0))
    records = benchmark_run(run, control, ["tflite"], PLAN, lambda line: None, on=on)
    assert "60.0 degrees" in (records[0].outcome.reason or "")
    assert records[0].rounds_ms is None
