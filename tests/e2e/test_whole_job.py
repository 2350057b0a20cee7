"""quantize -> convert -> validate --explain -> benchmark -> report on the embedded data, through the command line."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import Ended, main_py
from finished_run import SCORED, Finished
from ssh_server import SshServer

from pipeline.files import sha256_of
from pipeline.records.conversion import ConversionRecord
from pipeline.records.report import Report
from pipeline.records.waterfall import TORCH_STAGES, WaterfallRecord
from pipeline.report.collect import collect_run
from pipeline.run.cells import load_conversions, load_waterfall
from pipeline.run.folder import Run
from pipeline.run.logits import load_artifact_logits, load_logits
from targets.codec import from_dict
from targets.coreml.units import SIMULATED

EXPLAINED = 4  # images that --explain looks into the layers with
RUNTIMES_HERE = {"executorch", "litert", "tensorflow"}


@pytest.fixture(scope="module")
def converted(finished: Finished) -> tuple[ConversionRecord, ...]:
    """int8 for every target, and the float32 file that is made beside it where it was not left out."""
    ended = finished.command("convert", "--target", "executorch", "--target", "coreml", "--no-baseline")
    assert ended.code == 0, ended.err
    ended = finished.command("convert", "--target", "tflite")
    assert ended.code == 0, ended.err
    return load_conversions(finished.run)


@pytest.fixture(scope="module")
def validated(finished: Finished, converted: tuple[ConversionRecord, ...]) -> Ended:
    ended = finished.command("validate", "--min-agreement", 95, "--explain", "--explain-images", EXPLAINED)
    assert ended.code == 0, ended.err
    assert "t2t_vit_7: beside float32" in ended.out
    return ended


@pytest.fixture(scope="module")
def explained(finished: Finished, validated: Ended) -> tuple[WaterfallRecord, str, str]:
    """The record, and what the command printed."""
    record = load_waterfall(finished.run)
    assert record is not None
    return record, validated.out, validated.err


@pytest.fixture(scope="module")
def report(finished: Finished, validated: Ended) -> Report:
    ended = finished.command("benchmark", "--rounds", 2, "--samples", 2, "--target", "tflite")
    assert ended.code == 0, ended.err
    ended = finished.command("report")
    assert ended.code == 0, ended.err
    assert "t2t_vit_7" in ended.out
    assert "mobilenet_v2 has no accuracy in this report: `quantize mobilenet_v2 --data digits`" in ended.err
    return from_dict(Report, json.loads((finished.run.path / "report.json").read_text()))


def test_the_report_has_one_record_for_each_cell_of_its_model(report: Report) -> None:
    for run in report.runs:
        for records in (run.validations, run.latencies, run.instructions):
            keys = [record.key for record in records]
            assert len(set(keys)) == len(keys)
            assert {key.model for key in keys} <= {run.model}
        files = [record.artifact for record in run.conversions]
        assert len(set(files)) == len(files)


def test_the_checkpoint_is_whole_and_its_manifest_true(finished: Finished) -> None:
    manifest = finished.run.manifest
    assert manifest["status"] == "finished"
    names = [n for n in manifest["files"] if n.startswith("checkpoint/")]
    assert {"checkpoint/qdq.pt2", "checkpoint/float.safetensors", "checkpoint/quantization.json"} <= set(names)
    for name, entry in manifest["files"].items():
        assert sha256_of(finished.run.path / name) == entry["sha256"], name
    quantization = finished.run.read_json("checkpoint/quantization.json")
    assert quantization["calibration"]["images"] == 32
    assert len(quantization["calibration"]["digest"]) == 64
    lines = (finished.run.path / "train" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["phase"] for line in lines] == ["qat"]
    assert list((finished.run.path / "train" / "tensorboard" / "qat").iterdir())
    assert not list(finished.run.path.rglob("resume.pt"))
    assert "QDQ program: top-1" in finished.ended.out


def test_three_artifacts_hold_the_trained_scales(converted: tuple[ConversionRecord, ...]) -> None:
    assert {c.target for c in converted} == {"executorch", "coreml", "tflite"}
    assert [c.target for c in converted if c.precision == "fp32"] == ["tflite"]  # the others had --no-baseline
    for record in (c for c in converted if c.precision == "int8"):
        assert record.outcome.status == "ok", record
        assert record.scales_total == 255
        assert record.scales_found is not None
        assert record.scales_found >= 0.95 * record.scales_total, record.scales_missing
        assert record.facts is not None
        assert record.facts.int8_weights == 62
        assert "fresh process" in record.load_check


@pytest.mark.skipif(sys.platform == "darwin", reason="Core ML runs here")
def test_an_agreement_that_was_not_measured_is_no_pass(
    finished: Finished, converted: tuple[ConversionRecord, ...]
) -> None:
    ended = finished.command("validate", "--target", "coreml", "--no-simulate", "--min-agreement", 50)
    assert ended.code == 8
    assert "no artifact was measured" in ended.err


def test_every_runtime_here_agrees_with_the_qdq_program(report: Report) -> None:
    int8 = {v.key.runtime: v for v in report.runs[0].validations if v.key.precision == "int8"}
    assert set(int8) == RUNTIMES_HERE | {"coreml", *SIMULATED}
    assert {runtime for runtime, v in int8.items() if v.key.simulated} == set(SIMULATED)
    assert int8["coreml"].outcome.status == "unavailable"
    assert int8["coreml"].outcome.reason is not None
    assert int8["coreml"].outcome.reason.startswith("no Core ML runtime on linux")
    for runtime in RUNTIMES_HERE | set(SIMULATED):
        drift = int8[runtime].drift_qdq
        assert drift is not None
        assert drift.n == SCORED
        assert drift.sqnr_db is not None
        assert drift.sqnr_db > 36, runtime
        # One image of sixty may flip. Core ML's biases are float32, the QDQ program's are integers: two may.
        assert drift.agreement_percent >= (95.0 if runtime in SIMULATED else 98.0), runtime


def test_every_runtime_here_tells_memory_and_load_time_and_a_simulation_does_not(report: Report) -> None:
    sizes = {c.artifact: c.facts.size_bytes for c in report.runs[0].conversions if c.facts is not None}
    for record in report.runs[0].validations:
        if record.key.simulated or record.outcome.status != "ok":
            assert (record.peak_bytes, record.load_ms) == (None, None)
            continue
        assert record.load_ms is not None
        assert record.peak_bytes is not None
        assert sizes[record.key.artifact] < record.peak_bytes < 20 * sizes[record.key.artifact], record.key.label


def test_float_artifacts_agree_with_the_float_model(report: Report) -> None:
    floats = [v for v in report.runs[0].validations if v.key.precision != "int8"]
    assert {v.key.precision for v in floats} == {"fp32"}
    for record in floats:
        assert record.drift_float is not None
        assert record.drift_float.agreement_percent == 100.0
        assert record.drift_qdq is None


def test_every_stage_and_artifact_is_in_the_waterfall(explained: tuple[WaterfallRecord, str, str]) -> None:
    record = explained[0]
    names = [stage.name for stage in record.stages]
    assert names[:5] == list(TORCH_STAGES)
    simulated = {f"coreml {r} int8, simulated (MIL reference)" for r in SIMULATED}
    real = {f"tflite {r} {p}" for r in ("litert", "tensorflow") for p in ("int8", "fp32")} | {"executorch int8"}
    assert set(names[5:]) == real | simulated
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
        assert f"{stage.name}: drop against official" in " ".join(out.split())  # lines are wrapped


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
    equal = [note for note in explanation.notes if "are those of the QDQ program" in note]
    assert {"executorch int8", "tflite litert int8"} <= {note.split(":")[0] for note in equal}


def test_images_that_moved_have_thumbnails_and_the_report_gets_the_waterfall(
    finished: Finished, explained: tuple[WaterfallRecord, str, str]
) -> None:
    record, out, _ = explained
    assert 1 <= len(record.images) <= 24
    assert all(image.thumbnail and image.thumbnail.startswith("data:image/jpeg") for image in record.images)
    scored = load_logits(finished.run).indices
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


def test_latency_is_interleaved_with_mobilenet_under_the_same_conditions(report: Report) -> None:
    latencies = report.runs[0].latencies
    assert {(t.key.runtime, t.key.precision) for t in latencies} >= {("litert", "int8"), ("tensorflow", "fp32")}
    for record in latencies:
        assert record.rounds_ms is not None
        assert record.control_rounds_ms is not None
        assert [len(r) for r in record.rounds_ms] == [len(r) for r in record.control_rounds_ms] == [2, 2]
        assert record.control is not None
        assert record.control.model == "mobilenet_v2"
        assert (record.processes, record.threads) == (2, 1)
        assert record.cpu_rounds_ms is not None
        assert record.control_cpu_rounds_ms is not None
        assert (record.float_key is not None) == (record.key.precision == "int8")


def test_a_board_behind_ssh_gives_the_same_bits_and_a_row_of_its_own(
    finished: Finished, report: Report, tmp_path: Path
) -> None:
    """Also: what was done there is left alone by --resume, and devices tells what it is."""
    with SshServer(tmp_path) as server:
        board = f"ssh:board@127.0.0.1:{server.port}"
        there = (
            "--known-hosts",
            server.known_hosts,
            "--identity",
            tmp_path / "user_key",
            "--remote-python",
            sys.executable,
        )
        on_it = ("--on", board, *there, "--target", "tflite")
        ended = finished.command("validate", *on_it)
        assert ended.code == 0, ended.err
        ended = finished.command("validate", *on_it, "--resume")
        assert ended.code == 0, ended.err
        assert "validated before, left as it is" in ended.err
        ended = finished.command("benchmark", *on_it, "--rounds", 10, "--samples", 1, "--processes", 2)
        assert ended.code == 0, ended.err
        ended = main_py("devices", board, *there)
        assert ended.code == 0, ended.err
        for said in (board, "tflite litert: yes", "coreml coreml: no: no Core ML runtime on linux", "now: "):
            assert said in ended.out
        # 60 images of 96 px are 1.7 MB: they went there once, for four cells.
        assert len(list((server.home / ".cache/edge-t2t/images").iterdir())) == 4  # chunks of 16
    run = collect_run(finished.run)
    here = {v.key: v for v in run.validations if v.key.device == "host" and v.key.target == "tflite"}
    assert len(here) == 4  # int8 and fp32, in two runtimes
    for key, record in here.items():
        mine = load_artifact_logits(finished.run, key)
        theirs = load_artifact_logits(finished.run, replace(key, device=board))
        assert mine is not None
        assert theirs is not None
        assert mine.logits.tobytes() == theirs.logits.tobytes()
        (other,) = [v for v in run.validations if v.key == replace(key, device=board)]
        assert (other.accuracy, other.drift_float) == (record.accuracy, record.drift_float)
        assert other.device is not None
    timed = [t for t in run.latencies if t.key.device == board]
    assert len(timed) == 4
    for latency in timed:
        assert latency.outcome.status == "ok"
        assert latency.control is not None
        assert latency.control.device == board
        assert len(latency.load_ms) == 3
        assert len(latency.conditions) == 3
        assert latency.throttling is not None
    ended = finished.command("report")
    assert ended.code == 0, ended.err
    assert f"on {board}" in " ".join(ended.out.split())


def test_the_control_made_for_latency_is_not_reported_for_its_accuracy(report: Report) -> None:
    assert [run.model for run in report.runs] == ["t2t_vit_7"]


def test_a_control_sees_images_of_the_same_size(finished: Finished, report: Report) -> None:
    control = next(r for r in map(Run, finished.root.iterdir()) if r.path.is_dir() and "mobilenet" in r.id)
    sizes = [r.read_json("checkpoint/subject.json")["model_config"]["input_size"] for r in (control, finished.run)]
    assert sizes[0] == sizes[1]


def test_converting_again_replaces_the_artifact_and_keeps_the_others(
    finished: Finished, converted: tuple[ConversionRecord, ...]
) -> None:
    before = {c.target: c.sha256 for c in converted if c.precision == "int8"}
    assert finished.command("convert", "--target", "tflite", "--no-baseline").code == 0
    after = {c.target: c.sha256 for c in load_conversions(finished.run) if c.precision == "int8"}
    assert before.keys() == after.keys()
    assert before["executorch"] == after["executorch"]
    assert not list((finished.run.path / "artifacts").glob(".convert-*"))


def test_post_training_quantization_is_told_apart(finished: Finished, converted: tuple[ConversionRecord, ...]) -> None:
    ended = finished.command("convert", "--target", "tflite", "--ptq", "--no-baseline")
    assert ended.code == 0, ended.err
    assert "int8 ptq" in ended.err
    records = {c.source: c for c in load_conversions(finished.run) if c.target == "tflite" and c.precision == "int8"}
    assert set(records) == {"qat", "ptq"}
    assert records["qat"].sha256 != records["ptq"].sha256


def test_a_flipped_byte_in_an_artifact_is_refused(
    finished: Finished, converted: tuple[ConversionRecord, ...], tmp_path: Path
) -> None:
    copy = tmp_path / "runs" / finished.run.id
    shutil.copytree(finished.run.path, copy)
    artifact = copy / "artifacts" / "tflite-int8.tflite"
    content = bytearray(artifact.read_bytes())
    content[len(content) // 2] ^= 1
    artifact.write_bytes(content)
    ended = main_py("validate", "--target", "tflite", "--run", copy, "--runs-dir", tmp_path / "runs")
    assert ended.code == 7
    assert "tflite-int8.tflite changed after it was written" in ended.err


def test_a_changed_program_is_not_converted(finished: Finished, tmp_path: Path) -> None:
    copy = tmp_path / "runs" / finished.run.id
    shutil.copytree(finished.run.path, copy)
    with (copy / "checkpoint" / "qdq.pt2").open("ab") as file:
        file.write(b"x")
    ended = main_py("convert", "--target", "tflite", "--no-baseline", "--run", copy, "--runs-dir", tmp_path / "runs")
    assert ended.code == 7
    assert "checkpoint/qdq.pt2 changed" in ended.err
