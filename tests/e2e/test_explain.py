"""`validate --explain` on a real run: the waterfall adds up, its layers have names, and stale logits stay out of it."""

from __future__ import annotations

import pytest
from finished_run import SCORED, Finished

from pipeline.qat import checkpoint as files
from pipeline.reports.waterfall_record import TORCH_STAGES, WaterfallRecord
from pipeline.stages.collect import collect_run
from pipeline.stages.waterfall import load_waterfall

EXPLAINED = 4


@pytest.fixture(scope="module")
def explained(finished: Finished) -> tuple[WaterfallRecord, str, str]:
    """The record, and what the command printed."""
    assert finished.command("convert", "--target", "tflite", "-p", "int8", "-p", "fp32").code == 0
    ended = finished.command("validate", "-t", "tflite", "--explain", "--explain-images", EXPLAINED)
    assert ended.code == 0, ended.err
    record = load_waterfall(finished.run)
    assert record is not None
    return record, ended.out, ended.err


def test_every_stage_and_artifact_is_in_the_waterfall(explained: tuple[WaterfallRecord, str, str]) -> None:
    record = explained[0]
    names = [stage.name for stage in record.stages]
    assert names[:5] == list(TORCH_STAGES)
    assert set(names[5:]) == {f"tflite {r} {p}" for r in ("litert", "tensorflow") for p in ("int8", "fp32")}
    assert {stage.previous for stage in record.stages if stage.cell and stage.cell.precision == "int8"} == {"qdq"}
    assert {stage.previous for stage in record.stages if stage.cell and stage.cell.precision == "fp32"} == {"deploy"}
    assert record.n == SCORED
    deploy = record.stage("deploy").to_previous
    assert deploy is not None
    assert deploy.drift.sqnr_db is not None
    assert deploy.drift.sqnr_db > 80  # the deploy form is exact but for float32's rounding


def test_the_steps_of_each_artifact_add_up_to_its_drop(explained: tuple[WaterfallRecord, str, str]) -> None:
    record, out, _ = explained
    for stage in record.stages:
        if stage.cell is None or stage.to_first is None:
            continue
        steps = [s.to_previous.change for s in record.chain(stage.name) if s.to_previous is not None]
        total = stage.to_first.change
        assert sum(c.lost - c.gained for c in steps) == total.lost - total.gained
        assert f"{stage.name}: drop against official" in out


def test_layers_are_ranked_and_looked_up_in_the_artifact(explained: tuple[WaterfallRecord, str, str]) -> None:
    explanation = explained[0].explanation
    assert explanation is not None
    assert explanation.images == EXPLAINED
    assert len(explanation.layers) == len(explanation.kept_float) == 62
    alone = [layer.alone_db for layer in explanation.layers if layer.alone_db is not None]
    assert alone == sorted(alone)
    seen = [layer for layer in explanation.layers if "tflite litert int8" in layer.runtimes_db]
    assert len(seen) >= 50
    assert all(db is None or db > 10 for layer in seen for db in layer.runtimes_db.values())
    assert explanation.kept_float[0].kl_mean < explanation.kl_mean
    assert any("biases" in note for note in explanation.notes)


def test_images_that_moved_have_thumbnails_and_the_report_gets_the_waterfall(
    finished: Finished, explained: tuple[WaterfallRecord, str, str]
) -> None:
    record, out, _ = explained
    assert 1 <= len(record.images) <= 24
    assert all(image.thumbnail and image.thumbnail.startswith("data:image/jpeg") for image in record.images)
    scored = files.load_logits(finished.run).indices
    assert {image.index for image in record.images} <= set(scored.tolist())
    assert collect_run(finished.run).waterfall == record
    assert "Waterfall: the same" in out


def test_an_artifact_converted_again_is_not_in_the_waterfall_until_it_is_validated(
    finished: Finished, explained: tuple[WaterfallRecord, str, str]
) -> None:
    del explained
    artifact = finished.run.path / "artifacts/tflite-int8.tflite.json"
    before = artifact.read_text()
    sha256 = finished.run.manifest["files"]["artifacts/tflite-int8.tflite"]["sha256"]
    try:
        artifact.write_text(before.replace(sha256, "0" * 64))
        finished.run.record("artifacts/tflite-int8.tflite.json")
        assert load_waterfall(finished.run) is None
    finally:
        artifact.write_text(before)
        finished.run.record("artifacts/tflite-int8.tflite.json")
    assert load_waterfall(finished.run) is not None
