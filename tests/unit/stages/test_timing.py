"""Who is timed when, in which process, and what a failure of one file does; and what a latency record refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_workers import FakeWorkers

from pipeline.config import TimingPlan, spread
from pipeline.errors import UsageError
from pipeline.metrics.latency import RoundRatios
from pipeline.records.keys import OK, CellKey
from pipeline.records.latency import LatencyRecord
from pipeline.stages import timing
from pipeline.stages.timing import TimingFailed, joined, one_process
from targets.codec import from_dict, to_dict
from targets.types import Stopwatch

IMAGES = np.zeros((1, 3, 8, 8), np.float32)
OF_EACH = {"own": IMAGES, "control": IMAGES}
KEY = CellKey("t2t_vit_7", "tflite", "litert", "int8", "qat", "host")


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> FakeWorkers:
    fake = FakeWorkers()
    monkeypatch.setattr(timing, "HostWorker", fake)
    return fake


def turns(plan: TimingPlan) -> dict[str, timing.Timed]:
    files = {"own": Path("a"), "control": Path("b")}
    parts = [one_process("tflite", "litert", files, OF_EACH, plan, n) for n in range(plan.processes)]
    return joined(parts, list(files))


def test_rounds_are_spread_over_fresh_processes(workers: FakeWorkers) -> None:
    timed = turns(TimingPlan(rounds=6, samples=3, warmup=2, processes=3))

    assert workers.processes == 3
    assert [entry[0] for entry in workers.log if entry[2] == "time"] == [1] * 4 + [2] * 4 + [3] * 4
    assert [len(samples) for samples in timed["own"].rounds_ms] == [3] * 6
    assert len(timed["own"].warmup_ms) == 3 * 2 * 2  # two batches alike are steady
    assert timed["own"].steady


def test_who_comes_first_changes_from_round_to_round(workers: FakeWorkers) -> None:
    turns(TimingPlan(rounds=4, processes=2))

    order = "".join(name for _, name, what in workers.log if what == "time")
    assert order == "abba" + "baab"


def test_each_round_keeps_its_own_samples_under_its_own_name(workers: FakeWorkers) -> None:
    timed = turns(TimingPlan(rounds=2, samples=1, processes=1))

    # opened: entries 1 and 2; then a b, b a
    assert timed["own"].rounds_ms == ((3.0,), (6.0,))
    assert timed["control"].rounds_ms == ((4.0,), (5.0,))


def test_processor_time_is_kept_for_one_thread_only(workers: FakeWorkers) -> None:
    assert turns(TimingPlan(rounds=1, samples=2, processes=1))["own"].cpu_rounds_ms == ((0.5, 0.5),)
    assert turns(TimingPlan(rounds=1, samples=2, processes=1, threads=2))["own"].cpu_rounds_ms is None
    workers.cpu = False
    assert turns(TimingPlan(rounds=1, samples=2, processes=1))["own"].cpu_rounds_ms is None


def test_the_file_that_failed_is_named(workers: FakeWorkers) -> None:
    workers.broken = "b"
    with pytest.raises(TimingFailed) as caught:
        turns(TimingPlan(rounds=1, processes=1))
    assert (caught.value.name, caught.value.error.cause) == ("control", "broken")


@pytest.mark.parametrize(("rounds", "processes"), [(40, 5), (20, 5), (12, 4), (2, 2), (1, 1), (7, 1)])
def test_as_many_processes_as_the_rounds_allow(rounds: int, processes: int) -> None:
    assert spread(rounds) == processes


def test_rounds_that_do_not_spread_are_refused_with_a_number_that_does() -> None:
    with pytest.raises(UsageError, match=r"--rounds 12 .* --processes 5: give --rounds 15"):
        TimingPlan(rounds=12, processes=5)


@pytest.mark.parametrize("name", ["threads", "rounds", "samples", "processes"])
def test_nothing_is_done_zero_times(name: str) -> None:
    with pytest.raises(UsageError, match=f"--{name} is 0: give at least 1"):
        TimingPlan(**{name: 0})


def test_a_busy_machine_stretches_the_wall_and_not_the_processor_time() -> None:
    import time

    watch = Stopwatch()
    watch.run(lambda: (sum(range(20_000)), time.sleep(0.05)))

    assert watch.samples.wall_ms[0] >= 50
    assert watch.samples.cpu_ms is not None
    assert 0 < watch.samples.cpu_ms[0] < 40


def record(**other: Any) -> LatencyRecord:
    control = replace(KEY, model="mobilenet_v2")
    rounds, beside = ((6.0, 6.2), (6.4, 6.0)), ((2.0, 2.0), (2.0, 2.2))
    return replace(LatencyRecord(KEY, OK, 1, (), rounds, control, beside, ""), **other)


def test_ratios_are_of_processor_time_where_both_have_it() -> None:
    cpu, beside = ((5.0, 5.0), (5.0, 5.0)), ((2.0, 2.0), (2.5, 2.5))

    assert record().to_control == RoundRatios((6.1 / 2.0, 6.2 / 2.1))
    assert record(cpu_rounds_ms=cpu).to_control == RoundRatios((6.1 / 2.0, 6.2 / 2.1))
    assert record(cpu_rounds_ms=cpu, control_cpu_rounds_ms=beside, processes=2).to_control == RoundRatios((2.5, 2.0), 2)
    assert record().to_float is None


def test_a_record_of_an_older_version_is_read() -> None:
    data = to_dict(record())
    for name in ("processes", "float_key", "float_rounds_ms", "float_note", "host"):
        data.pop(name)
    for name in ("cpu_rounds_ms", "control_cpu_rounds_ms", "float_cpu_rounds_ms"):
        data.pop(name)

    assert from_dict(LatencyRecord, data) == record()


FLOAT = replace(KEY, precision="fp32", source="float")
TWO = ((6.0,), (6.0,))


def test_the_float_file_of_the_same_model_stands_beside_int8() -> None:
    beside = record(float_key=FLOAT, float_rounds_ms=((12.0,), (12.8,)))

    assert beside.to_float == RoundRatios((6.1 / 12.0, 6.2 / 12.8))
    assert from_dict(LatencyRecord, to_dict(beside)) == beside


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"float_key": FLOAT}, "float and its rounds_ms come together"),
        ({"float_rounds_ms": TWO}, "float and its rounds_ms come together"),
        ({"float_key": FLOAT, "float_rounds_ms": TWO[:1]}, "2 rounds beside 1 rounds of the float"),
        ({"float_key": replace(FLOAT, model="mobilenet_v2"), "float_rounds_ms": TWO}, "int8 is timed beside"),
        ({"float_key": replace(FLOAT, runtime="tensorflow"), "float_rounds_ms": TWO}, "int8 is timed beside"),
        ({"float_key": KEY, "float_rounds_ms": TWO}, "int8 is timed beside"),
        ({"processes": 3}, "do not spread evenly over 3 processes"),
        ({"processes": 0}, "do not spread evenly over 0 processes"),
        ({"cpu_rounds_ms": TWO}, "of other inferences"),
        ({"cpu_rounds_ms": ((1.0, 0.0), (1.0, 1.0))}, "no positive time"),
    ],
)
def test_impossible_records_are_refused(other: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        record(**other)
