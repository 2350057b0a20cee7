"""Read everything that a report says from a run folder; every file through the manifest."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from pipeline.metrics.accuracy import accuracy
from pipeline.metrics.drift import drift
from pipeline.models.preprocessing import in_words
from pipeline.records.keys import STAGES
from pipeline.records.report import SCHEMA_VERSION, Report, RunRecord, WeightsRecord
from pipeline.records.validation import StageRecord
from pipeline.report.page import write_report
from pipeline.report.tables.beside import beside_float
from pipeline.report.tables.table import Table
from pipeline.run import cells
from pipeline.run.facts import LATENCY_ONLY, existing_control, read_quantization, read_subject
from pipeline.run.folder import Run
from pipeline.run.logits import load_logits


def make_report(run: Run, root: Path) -> Report:
    """Collect the report of a run, write its files into the run folder, and list them in the manifest.

    Raises:
        RunError: the run did not finish.
    """
    report = collect_report(run, root)
    run.record(*write_report(report, run.path))
    return report


def collect_report(run: Run, root: Path) -> Report:
    """The report of one run, with the MobileNetV2 run on the same images beside it where there is one.

    Raises:
        RunError: the run did not finish.
    """
    runs = [collect_run(run)]
    control = existing_control(root, run)
    if control is not None and control.id != run.id and not control.manifest.get(LATENCY_ONLY, False):
        runs.append(collect_run(control))
    return _report(*runs)


def first_table(run: Run) -> tuple[Table, ...]:
    """What a report of the run begins with; empty where its files are all float32.

    Raises:
        RunError: the run did not finish, or a file of it changed.
    """
    table = beside_float(_report(collect_run(run)))
    return () if table is None else (table,)


def _report(*runs: RunRecord) -> Report:
    return Report(SCHEMA_VERSION, datetime.now(UTC).isoformat(timespec="seconds"), runs)


def collect_run(run: Run) -> RunRecord:
    """Everything that is known of one run.

    Raises:
        RunError: the run did not finish, or a file of it changed.
    """
    run.check_finished()
    subject, quantization = read_subject(run), read_quantization(run)
    return RunRecord(
        run_id=run.id,
        model=run.model,
        created_utc=run.created_utc,
        num_classes=len(subject.classes),
        parameters=subject.parameters,
        data=subject.data,
        weights=WeightsRecord(subject.weights.source, subject.weights.sha256),
        scheme=quantization.scheme,
        calibration=quantization.calibration,
        training=quantization.training,
        stages=_stages(run),
        conversions=cells.load_conversions(run),
        validations=cells.load_validation(run),
        latencies=cells.load_latency(run),
        provenance=run.provenance,
        waterfall=cells.load_waterfall(run),
        mixed=cells.load_mixed(run),
        instructions=cells.load_instructions(run),
        preprocessing=in_words(subject.model_config, subject.origins),
    )


def _stages(run: Run) -> tuple[StageRecord, ...]:
    logits = load_logits(run)
    reference = logits.stages["float"]
    return tuple(
        StageRecord(
            stage=name,
            accuracy=accuracy(logits.stages[name], logits.labels),
            drift=None if name == "float" else drift(reference, logits.stages[name]),
        )
        for name in STAGES
        if name in logits.stages
    )
