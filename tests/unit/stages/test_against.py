"""What a benchmark times a run against: what is asked for, and that only what can be timed is converted."""

from __future__ import annotations

from pathlib import Path

import pytest
from compared_run import MadeUp, make_run, with_file
from fake_device import FakeDevice, place

from pipeline.errors import UsageError
from pipeline.records.keys import ArtifactKey
from pipeline.run.facts import CONTROL_MODEL
from pipeline.run.folder import Run
from pipeline.stages import against as stage
from pipeline.stages.against import Against, against_of, prepare

TARGETS = ["executorch", "coreml", "tflite"]
INT8, FP32 = ArtifactKey("tflite", "int8", "qat"), ArtifactKey("tflite", "fp32", "float")


def test_the_default_is_float_and_mobilenet() -> None:
    assert against_of(None) == against_of(["float", CONTROL_MODEL]) == Against(True, CONTROL_MODEL)
    assert against_of(["float"]) == Against(True, None)
    assert against_of(["runs/a", "runs/a"]) == Against(False, "runs/a")
    assert against_of(["none"]) == Against(False, None)


@pytest.mark.parametrize(
    ("names", "says"), [(["none", "float"], "none beside float"), (["a", "b"], "a and b: one model")]
)
def test_what_does_not_go_together_is_refused(names: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        against_of(names)


@pytest.fixture
def converted(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[ArtifactKey]]:
    """Cells that would be converted, by run; a conversion takes a minute."""
    asked: dict[str, list[ArtifactKey]] = {}

    def convert(run: Run, cells: list[ArtifactKey], say: object) -> None:
        asked.setdefault(run.id, []).extend(cells)

    monkeypatch.setattr(stage, "convert_cells", convert)
    return asked


def runs(tmp_path: Path) -> tuple[Run, Run]:
    """A run with an int8 file for tflite and for coreml, which the made-up device has no runtime for; and a control."""
    run = with_file(make_run(tmp_path, MadeUp(timed=False), 1), "coreml")
    return run, make_run(tmp_path, MadeUp(model=CONTROL_MODEL, timed=False, converted=False), 2)


def prepared(tmp_path: Path, both: tuple[Run, Run], device: FakeDevice, against: Against) -> Run | None:
    return prepare(tmp_path, both[0], against, TARGETS, "all", place(device), lambda line: None)


def test_only_what_the_device_opens_is_converted(tmp_path: Path, converted: dict[str, list[ArtifactKey]]) -> None:
    run, control = both = runs(tmp_path)
    other = prepared(tmp_path, both, FakeDevice(), Against())
    assert other is not None
    assert other.id == control.id
    assert converted == {run.id: [FP32], control.id: [INT8]}


def test_only_what_was_asked_for_is_converted(tmp_path: Path, converted: dict[str, list[ArtifactKey]]) -> None:
    run, control = both = runs(tmp_path)
    assert prepared(tmp_path, both, FakeDevice(), Against(False, None)) is None
    assert converted == {}
    assert prepared(tmp_path, both, FakeDevice(), Against(True, None)) is None
    assert list(converted) == [run.id]
    other = prepared(tmp_path, both, FakeDevice(), Against(False, control.id))
    assert other is not None
    assert converted[control.id] == [INT8]


def test_nothing_is_converted_where_nothing_opens_or_is_timed(
    tmp_path: Path, converted: dict[str, list[ArtifactKey]]
) -> None:
    both = runs(tmp_path)
    broken = FakeDevice()
    broken.workers.broken = "tflite-int8.tflite"
    prepared(tmp_path, both, broken, Against())
    assert prepared(tmp_path, both, FakeDevice(times=False), Against()) is None
    assert converted == {}


def test_a_run_is_not_timed_against_itself(tmp_path: Path) -> None:
    both = runs(tmp_path)
    with pytest.raises(UsageError, match="is the run itself"):
        prepared(tmp_path, both, FakeDevice(), Against(False, both[0].id))


@pytest.mark.parametrize(("typed", "says"), [("mobilenet", "mobilenet_v2"), ("flaot", "float")])
def test_a_word_with_a_slip_gets_the_right_one(tmp_path: Path, typed: str, says: str) -> None:
    both = runs(tmp_path)
    with pytest.raises(UsageError, match=f"--against '{typed}' is not a run, .* Did you mean '{says}'"):
        prepared(tmp_path, both, FakeDevice(), Against(True, typed))
