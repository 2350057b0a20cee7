"""The benchmark stage over made-up runs: what is timed beside what, in which order, and what a failure leaves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from compared_run import MadeUp, make_run
from fake_workers import FakeWorkers
from made_up_report import made_up_conversion

from pipeline.config import TimingPlan
from pipeline.files import sha256_of, write_atomic
from pipeline.records.keys import ArtifactKey, CellKey
from pipeline.records.latency import LatencyRecord
from pipeline.run.cells import load_latency, save_conversion
from pipeline.run.folder import Run
from pipeline.run.layout import artifact_name
from pipeline.stages.benchmark import benchmark_run
from targets.devices import this_host

PLAN = TimingPlan(rounds=4, samples=2, processes=2)


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> FakeWorkers:
    fake = FakeWorkers()
    monkeypatch.setattr(this_host, "HostWorker", fake)
    return fake


def with_fp32(run: Run) -> Run:
    name = artifact_name(ArtifactKey("tflite", "fp32", "float"))
    write_atomic(run.path / name, "float file")
    record = made_up_conversion(run.model, "tflite", "fp32", "float")
    save_conversion(run, replace(record, path=name, sha256=sha256_of(run.path / name)), name)
    return run


def timed(tmp_path: Path, fp32: bool = True) -> dict[str, LatencyRecord]:
    """Records of int8 and fp32 in LiteRT, by precision."""
    run = make_run(tmp_path, MadeUp(timed=False), 1)
    control = make_run(tmp_path, MadeUp(model="mobilenet_v2", timed=False), 2)
    if fp32:
        run, control = with_fp32(run), with_fp32(control)
    records = benchmark_run(run, control, ["tflite"], PLAN, lambda line: None)
    assert load_latency(run) == records  # through the file
    return {r.key.precision: r for r in records if r.key.runtime == "litert"}


def test_an_int8_cell_is_timed_beside_its_float_file_and_the_control(workers: FakeWorkers, tmp_path: Path) -> None:
    int8 = timed(tmp_path)["int8"]

    assert int8.float_key == CellKey("t2t_vit_7", "tflite", "litert", "fp32", "float", "host")
    assert int8.control == replace(int8.key, model="mobilenet_v2")
    for rounds in (int8.rounds_ms, int8.control_rounds_ms, int8.float_rounds_ms, int8.cpu_rounds_ms):
        assert rounds is not None
        assert [len(samples) for samples in rounds] == [2] * 4
    assert int8.processes == 2
    assert int8.host["processor"]
    assert not int8.float_note


def test_a_float_cell_has_no_float_beside_it(workers: FakeWorkers, tmp_path: Path) -> None:
    fp32 = timed(tmp_path)["fp32"]

    assert fp32.float_key is None
    assert fp32.float_note == "this file is not int8"


def test_without_a_float_file_it_says_how_to_make_one(workers: FakeWorkers, tmp_path: Path) -> None:
    int8 = timed(tmp_path, fp32=False)["int8"]

    assert int8.float_rounds_ms is None
    assert "`convert` makes it" in int8.float_note


def test_cells_take_turns_process_by_process(workers: FakeWorkers, tmp_path: Path) -> None:
    timed(tmp_path)

    opened = [sorted(name for n, name, what in workers.log if what == "open" and n == number) for number in range(1, 9)]
    int8 = ["tflite-fp32.tflite", "tflite-int8.tflite", "tflite-int8.tflite"]
    fp32 = ["tflite-fp32.tflite", "tflite-fp32.tflite"]
    each = [fp32, fp32, int8, int8] if opened[0] == fp32 else [int8, int8, fp32, fp32]  # in litert and in tensorflow
    assert opened == each * 2


def test_a_float_file_that_fails_leaves_the_int8_cell(workers: FakeWorkers, tmp_path: Path) -> None:
    workers.broken = "tflite-fp32.tflite"
    records = timed(tmp_path)

    assert records["int8"].outcome.status == "ok"
    assert records["int8"].rounds_ms is not None
    assert len(records["int8"].rounds_ms) == 4
    assert records["int8"].float_key is None
    assert "the fp32 artifact failed: load: broken" in records["int8"].float_note
    assert (records["fp32"].outcome.status, records["fp32"].outcome.stage) == ("failed", "load")


def test_a_cell_that_fails_leaves_the_others(workers: FakeWorkers, tmp_path: Path) -> None:
    workers.broken = "tflite-int8.tflite"
    records = timed(tmp_path)

    assert records["int8"].outcome.reason == "broken"
    assert records["fp32"].outcome.status == "ok"
