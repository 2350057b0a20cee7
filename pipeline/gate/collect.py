"""Read what the gate compares from a run folder; write the baseline file, and read it back strictly.

Only files that the manifest vouches for are read, none of them large: a check takes a second or two, without torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import astuple
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.errors import RunError, UsageError
from pipeline.gate.baseline import (
    RANGE_KINDS,
    RATIO_DIGITS,
    SCHEMA_VERSION,
    CellFacts,
    FileFacts,
    ImagesRecord,
    Instructions,
    Reference,
    RunFacts,
    Scored,
    Timing,
)
from pipeline.metrics.accuracy import accuracy, agrees, correct
from pipeline.metrics.latency import RoundRatios
from pipeline.records.conversion import ConversionRecord
from pipeline.records.keys import CellKey, Outcome
from pipeline.records.latency import InstructionRecord, LatencyRecord
from pipeline.records.report import WeightsRecord
from pipeline.records.validation import ValidationRecord
from pipeline.run import provenance
from pipeline.run.cells import load_conversions, load_instructions, load_latency, load_validation
from pipeline.run.facts import CONTROL_MODEL, QuantizationFacts, read_quantization, read_subject
from pipeline.run.folder import Run
from pipeline.run.logits import ArtifactLogits, StageLogits, load_artifact_logits, load_logits, rows_of
from targets import registry
from targets.codec import from_dict, to_dict

ONE_LINE = ("key", "outcome")  # of a cell, in the file


def facts_of(run: Run, now: datetime | None = None) -> RunFacts:
    """What the gate compares of `run`: every cell that was validated, or whose conversion failed.

    Raises:
        UsageError: nothing was validated in it.
        RunError: the run did not finish, or a file of it changed.
    """
    run.check_finished()
    validations = load_validation(run)
    if not validations:
        raise UsageError(f"nothing was validated in run {run.id}: run `python main.py validate` (and convert) first")
    stages = load_logits(run)
    conversions = {c.artifact: c for c in load_conversions(run)}
    latencies = {record.key: record for record in load_latency(run)}
    subject, quantization = read_subject(run), read_quantization(run)
    counted = {record.key: record for record in load_instructions(run)}
    cells = []
    for v in validations:
        records = (conversions.get(v.key.artifact), latencies.get(v.key), counted.get(v.key))
        cells.append(_cell(run, v, *records, stages, quantization))
    seen = {v.key.artifact for v in validations}
    cells += [
        _not_converted(c) for artifact, c in conversions.items() if artifact not in seen and c.outcome.status != "ok"
    ]
    known = run.provenance
    return RunFacts(
        schema_version=SCHEMA_VERSION,
        run_id=run.id,
        written_utc=(now or datetime.now(UTC)).isoformat(timespec="seconds"),
        model=run.model,
        num_classes=len(subject.classes),
        images=ImagesRecord(subject.data.name, subject.data.n_val, stages.digest),
        weights=WeightsRecord(subject.weights.source, subject.weights.sha256),
        scheme=quantization.scheme,
        host=_machine(known, ("system", "processor", "vector_extensions")),
        versions={name: str(known.get(name, "unknown")) for name in provenance.PACKAGES},
        cells=tuple(sorted(cells, key=lambda cell: astuple(cell.key))),
    )


def read_baseline(path: Path) -> RunFacts:
    """
    Raises:
        UsageError: there is no such file.
        RunError, RecordError: it is damaged, or of another schema; the message names the key.
    """
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError:
        raise UsageError(
            f"there is no baseline {path}: `python main.py check --baseline {path} --update` makes one"
        ) from None
    except IsADirectoryError:
        raise UsageError(f"the baseline {path} is a folder: give the file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunError(
            f"baseline {path} is not valid JSON ({error}): restore it, or make it again with --update"
        ) from None
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version != SCHEMA_VERSION:
        raise RunError(
            f"baseline {path} has schema version {version!r}, this version reads {SCHEMA_VERSION}: "
            "make it again with check --update"
        )
    return from_dict(RunFacts, data, path.name)


def baseline_text(facts: RunFacts) -> str:
    """The text of the file: sorted keys, one value a line, so that a change of figures reads well in a diff."""
    return _text(to_dict(facts), "") + "\n"


def _cell(
    run: Run,
    validation: ValidationRecord,
    conversion: ConversionRecord | None,
    latency: LatencyRecord | None,
    counted: InstructionRecord | None,
    stages: StageLogits,
    quantization: QuantizationFacts,
) -> CellFacts:
    key = validation.key
    file = FileFacts.of(conversion, len(quantization.float_layers)) if conversion else None
    timing = None
    if latency is not None and (latency.sha256 is None or conversion is None or latency.sha256 == conversion.sha256):
        timing = _timing(latency, run.provenance)  # of this very file, as far as an older record can tell
    executed = None
    if counted is not None and counted.count is not None and conversion and counted.sha256 == conversion.sha256:
        executed = Instructions(counted.count.per_inference, counted.count.counted_by)
    if conversion is not None and conversion.outcome.status != "ok":
        return CellFacts(key, conversion.outcome, None, None, None)
    if validation.outcome.status != "ok":
        return CellFacts(key, validation.outcome, None, file, timing, executed)
    kept = load_artifact_logits(run, key)
    if kept is None or conversion is None or kept.sha256 != conversion.sha256:
        reason = "it was validated by an older version" if kept is None else "it was converted again after validate"
        return CellFacts(key, Outcome("unavailable", None, f"{reason}: run validate again"), None, file, timing)
    answers = _scored(validation, kept, stages, "qdq" if quantization.made(key.artifact) else "float")
    return CellFacts(key, validation.outcome, answers, file, timing, executed, validation.peak_bytes)


def _not_converted(conversion: ConversionRecord) -> CellFacts:
    runtime = registry.runtimes(conversion.target)[0]
    key = CellKey(conversion.model, conversion.target, runtime, conversion.precision, conversion.source, "host")
    return CellFacts(key, conversion.outcome, None, None, None)


def _scored(validation: ValidationRecord, kept: ArtifactLogits, stages: StageLogits, reference: Reference) -> Scored:
    """`stages` hold all images that were scored, an artifact all or some of them."""
    try:
        rows = rows_of(kept.indices, stages.indices)
    except KeyError as error:
        raise RunError(f"{validation.key.label}: image {error} has no torch logits: run validate again") from None
    labels = stages.labels[rows]
    events = validation.range_events
    return Scored.of(
        images=hashlib.sha256(f"{stages.digest}:{','.join(str(int(i)) for i in kept.indices)}".encode()).hexdigest(),
        accuracy=accuracy(kept.logits, labels),
        right=correct(kept.logits, labels),
        reference=reference,
        agrees=agrees(stages.stages[reference][rows], kept.logits),
        range_events=None if events is None else {k: sum(e.count for e in events if e.kind == k) for k in RANGE_KINDS},
    )


def _timing(record: LatencyRecord, quantized_on: Mapping[str, Any]) -> Timing | None:
    """Records of older versions do not name their machine: then it is taken to be the one that quantized."""
    if record.rounds_ms is None:
        return None
    return Timing(
        threads=record.threads,
        processes=record.processes,
        to_control=_ratios(record.to_control) if record.control and record.control.model == CONTROL_MODEL else None,
        to_float=_ratios(record.to_float),
        host=_machine(record.host or quantized_on, ("processor", "vector_extensions")),
        clock="wall" if record.cpu_rounds_ms is None else "cpu",
        throttled=record.device is not None and record.throttling is not None and record.throttling.flagged,
    )


def _machine(known: Mapping[str, Any], facts: tuple[str, ...]) -> dict[str, str]:
    return {fact: str(known.get(fact, "unknown")) for fact in facts}


def _ratios(measured: RoundRatios | None) -> tuple[float, ...] | None:
    """Rounded as they are in the file, so that a run is judged like the baseline that is made from it."""
    return None if measured is None else tuple(float(f"{ratio:.{RATIO_DIGITS}g}") for ratio in measured.ratios)


def _text(value: Any, indent: str) -> str:
    """Objects over several lines, lists of objects too; all else on one."""
    deeper = indent + "  "
    if isinstance(value, Mapping) and value:
        lines = [
            f"{deeper}{json.dumps(name)}: {_line(item) if name in ONE_LINE else _text(item, deeper)}"
            for name, item in sorted(value.items())
        ]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        return "[\n" + ",\n".join(deeper + _text(item, deeper) for item in value) + f"\n{indent}]"
    return _line(value)


def _line(value: Any) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False)
