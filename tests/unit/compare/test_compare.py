"""Two run folders side by side: figures by hand and by scipy, and a reason wherever there is no comparison."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from compared_run import HOST, MadeUp, make_run

from pipeline.compare import views
from pipeline.compare.compare import compare_runs
from pipeline.compare.records import ComparedCell, Comparison, PairedImages
from pipeline.errors import RunError
from pipeline.files import write_atomic
from pipeline.records.keys import CellKey
from pipeline.run.cells import load_conversions, save_conversion
from pipeline.run.layout import logits_name
from pipeline.run.logits import load_artifact_logits

# Right in A and wrong in B: 0, 3, 6, 9, 12 (cats), 1 (dog); the other way round: 2 (eel).
BEFORE, AFTER = MadeUp(wrong=(2, 5)), MadeUp(wrong=(0, 3, 6, 9, 12, 1, 5))


def compared(tmp_path: Path, before: MadeUp = BEFORE, after: MadeUp = AFTER) -> Comparison:
    return compare_runs(make_run(tmp_path, before, 1), make_run(tmp_path, after, 2))


def only_cell(comparison: Comparison) -> ComparedCell:
    (cell,) = comparison.cells
    return cell


def test_the_same_images_are_paired(tmp_path: Path) -> None:
    from scipy.stats import binomtest

    paired = only_cell(compared(tmp_path)).paired
    assert isinstance(paired, PairedImages)
    assert (paired.change.n, paired.change.lost, paired.change.gained) == (60, 6, 1)
    assert paired.change.drop_pp == pytest.approx(100 * 5 / 60)
    assert paired.change.p_value == pytest.approx(binomtest(6, 7).pvalue)
    assert (paired.same_class.n, paired.same_class.same) == (60, 60 - 7)


def test_flips_are_told_by_class_worst_first(tmp_path: Path) -> None:
    paired = only_cell(compared(tmp_path)).paired
    assert paired is not None
    assert [(f.name, f.n, f.lost, f.gained) for f in paired.flips] == [
        ("cat", 20, 5, 0),
        ("dog", 20, 1, 0),
        ("eel", 20, 0, 1),
    ]


def test_torch_stages_are_paired_too(tmp_path: Path) -> None:
    stages = compared(tmp_path).stages
    assert [s.stage for s in stages] == ["float", "qdq"]
    for stage in stages:
        assert stage.paired is not None
        assert stage.paired.change.lost == stage.paired.change.gained == 0
        assert stage.paired.same_class.same == 60


@pytest.mark.parametrize(
    ("after", "says"),
    [
        (MadeUp(val_digest="ef" * 32), "other images (their digests differ)"),
        (MadeUp(images=30), "other images (60 and 30 of the split were scored)"),
        (MadeUp(indices=tuple(range(40, 100))), "other images (60 and 60 of the split were scored)"),
        (MadeUp(classes=("cat", "dog")), "other classes"),
    ],
)
def test_other_images_are_not_tested(tmp_path: Path, after: MadeUp, says: str) -> None:
    comparison = compared(tmp_path, BEFORE, after)
    cell = only_cell(comparison)
    assert cell.paired is None
    assert says in cell.not_paired
    assert cell.a is not None
    assert cell.b is not None
    assert cell.a.accuracy is not None  # the figures still stand side by side
    assert cell.b.accuracy is not None
    assert all(stage.paired is None and says in stage.not_paired for stage in comparison.stages)
    assert "not paired" in views.text(comparison)


def test_the_same_images_through_another_transform_are_paired_and_it_is_told(tmp_path: Path) -> None:
    comparison = compared(tmp_path, BEFORE, MadeUp(transform="00" * 32))
    assert only_cell(comparison).paired is not None
    assert any("cut and scaled differently" in note for note in comparison.notes)
    assert not compared(tmp_path / "same").notes


def test_runs_of_different_models_are_joined_without_the_model(tmp_path: Path) -> None:
    comparison = compared(tmp_path, MadeUp(), MadeUp(model="mobilenet_v2"))
    assert only_cell(comparison).paired is not None
    assert any("Different models" in note for note in comparison.notes)


def test_size_and_operators_outside(tmp_path: Path) -> None:
    cell = only_cell(compared(tmp_path, BEFORE, MadeUp(size_bytes=5_000_000)))
    assert cell.a is not None
    assert cell.b is not None
    assert (cell.a.size_bytes, cell.b.size_bytes) == (4_000_000, 5_000_000)
    assert cell.a.outside == 7 + 8 + 14
    assert "1.250×" in views.text(compared(tmp_path / "again", BEFORE, MadeUp(size_bytes=5_000_000)))


def test_a_slower_model_by_its_ratio_to_the_control(tmp_path: Path) -> None:
    change = only_cell(compared(tmp_path, MadeUp(slower=3.0), MadeUp(slower=3.6))).change
    assert change is not None
    assert change.low is not None
    assert change.high is not None
    assert change.low < 1.2 < change.high
    assert change.low > 1.1
    assert (change.before_rounds, change.rounds) == (5, 5)  # one of each process


@pytest.mark.parametrize(
    ("after", "says"),
    [
        (MadeUp(threads=2), "not comparable: 1 and 2 threads"),
        (MadeUp(host={**HOST, "processor": "another"}), "not comparable: processor made up and another"),
        (MadeUp(host={**HOST, "vector_extensions": "avx512f"}), "vector extensions avx2 and avx512f"),
        (MadeUp(timed=False), "B: no latency was measured"),
    ],
)
def test_other_conditions_make_latencies_incomparable(tmp_path: Path, after: MadeUp, says: str) -> None:
    cell = only_cell(compared(tmp_path, BEFORE, after))
    assert cell.change is None
    assert says in cell.not_timed


def test_another_kernel_is_the_same_machine(tmp_path: Path) -> None:
    cell = only_cell(compared(tmp_path, BEFORE, MadeUp(host={**HOST, "system": "Linux 2"})))
    assert cell.change is not None


def test_a_cell_that_failed_in_one_run_stands_beside_the_other(tmp_path: Path) -> None:
    cell = only_cell(compared(tmp_path, BEFORE, MadeUp(converted=False)))
    assert cell.b is not None
    assert cell.b.outcome is not None
    assert cell.b.outcome.status == "failed"
    assert cell.not_paired == "B: it was not validated"


def test_logits_of_an_earlier_file_are_not_used(tmp_path: Path) -> None:
    a, b = make_run(tmp_path, BEFORE, 1), make_run(tmp_path, AFTER, 2)
    (record,) = load_conversions(b)
    assert record.path is not None
    write_atomic(b.path / record.path, "converted again")
    from pipeline.files import sha256_of

    save_conversion(b, replace(record, sha256=sha256_of(b.path / record.path)), record.path)
    assert "converted again after it was validated" in only_cell(compare_runs(a, b)).not_paired


def test_logits_that_were_not_kept_are_told(tmp_path: Path) -> None:
    a, b = make_run(tmp_path, BEFORE, 1), make_run(tmp_path, AFTER, 2)
    key = CellKey("t2t_vit_7", "tflite", "litert", "int8", "qat", "host")
    assert load_artifact_logits(a, key) is not None
    a.record(remove=(logits_name(key),))
    assert only_cell(compare_runs(a, b)).not_paired == "A: its logits were not kept: run validate again"


def test_provenance_that_differs_is_told_and_nothing_else(tmp_path: Path) -> None:
    comparison = compared(tmp_path, MadeUp(), MadeUp(versions={"torch": "2.14.0"}))
    assert [(d.what, d.a, d.b) for d in comparison.differences] == [("provenance.torch", "2.13.0", "2.14.0")]


def test_the_program_of_a_trained_run_stands_beside_that_of_a_calibrated_one(tmp_path: Path) -> None:
    trained, calibrated = make_run(tmp_path, BEFORE, 1), make_run(tmp_path, replace(AFTER, epochs=0), 2)
    cell = only_cell(compare_runs(trained, calibrated))
    assert cell.label == "tflite litert int8 qat/ptq"
    assert cell.paired is not None
    assert (cell.paired.change.lost, cell.paired.change.gained) == (6, 1)
    assert only_cell(compare_runs(calibrated, trained)).label == "tflite litert int8 ptq/qat"
    assert only_cell(compare_runs(calibrated, calibrated)).label == "tflite litert int8 ptq"


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    a, b = make_run(tmp_path, BEFORE, 1), make_run(tmp_path, AFTER, 2)
    b.record(facts={"status": "training"})
    with pytest.raises(RunError, match="did not finish"):
        compare_runs(a, b)


def test_json_has_counts_and_what_follows_from_them(tmp_path: Path) -> None:
    comparison = compared(tmp_path)
    data = json.loads(views.as_json(comparison))
    paired = data["cells"][0]["paired"]
    assert (paired["change"]["lost"], paired["change"]["gained"]) == (6, 1)
    assert paired["statistics"]["drop_pp"] == pytest.approx(100 * 5 / 60)
    low, high = paired["statistics"]["drop_interval_pp"]
    assert low < 100 * 5 / 60 < high
    assert data["cells"][0]["b"]["accuracy"]["top1_percent"] == pytest.approx(100 * 53 / 60)
    assert data["stages"][0]["a"]["top1"] == 60


def test_the_same_figures_in_every_form(tmp_path: Path) -> None:
    comparison = compared(tmp_path)
    for text in (
        views.text(comparison),
        views.markdown(comparison),
        views.html(comparison),
    ):
        assert "+8.33 pp" in text
        assert "6 lost, 1 gained" in text
        assert "cat" in text
        assert comparison.a.run_id in text


def test_names_from_outside_are_no_markup(tmp_path: Path) -> None:
    nasty = ("<script>alert(1)</script>", "a|b", "eel")
    comparison = compared(tmp_path, MadeUp(classes=nasty), MadeUp(classes=nasty, wrong=(0, 1)))
    page = views.html(comparison)
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page
    assert "a\\|b" in views.markdown(comparison)
