"""A report in, its tables out, as headed rows of values; terminal, Markdown and HTML only lay them out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.metrics import latency
from pipeline.metrics.drift import Drift
from pipeline.reports import simulated
from pipeline.reports import values as v
from pipeline.reports.cells import Cell, cells, run_cells
from pipeline.reports.records import (
    SIMULATED,
    CellKey,
    ConversionRecord,
    FactsRecord,
    LatencyRecord,
    Rounds,
    ValidationRecord,
)
from pipeline.reports.schema import Report, RunRecord
from pipeline.reports.values import Value
from targets.types import RangeEvent, TensorSpec

SIMULATION_NOTE = (
    f"{SIMULATED}: the file's operators computed on this machine under several models of rounding, lowest to highest "
    "figure; no runtime was run, and what a device does inside of an operator is not documented."
)
RANGE_WORDS = {
    "nan": "not a number",
    "overflowed": "overflowed to infinity in half precision",
    "saturated": "clipped by int8",
    "vanished": "vanished to zero in half precision",
}
RANGE_ORDER = tuple(RANGE_WORDS)
STAGE_TITLES = {"float": "float, PyTorch", "fake_quant": "fake-quant, PyTorch", "qdq": "QDQ program, PyTorch"}


@dataclass(frozen=True)
class Table:
    """`label_columns` columns of words on the left, figures on the right; `notes` stand below."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    label_columns: int = 1
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if any(len(row) != len(self.header) for row in self.rows):
            raise ValueError(f"table {self.title!r} has rows that do not fit its {len(self.header)} columns")


def overview(report: Report) -> Table:
    """One row for each cell: size, top-1, agreement with the QDQ program, latency, ratio to the control."""
    rows = []
    as_control: dict[CellKey | None, Rounds | None] = {
        t.control: t.control_rounds_ms for run in report.runs for t in run.latencies if t.control
    }
    for cell in cells(report):
        validation = cell.validation
        right, same = _validated(cell), v.NOT_MEASURED
        if validation is not None and validation.accuracy is not None:
            right = v.top1(validation.accuracy)
            same = _to_qdq(cell, v.same_class(validation.drift_qdq))
        if cell.simulations:
            right = simulated.outcome(cell.simulations) or simulated.top1(cell.simulations)
            same = _to_qdq(cell, simulated.same_class(cell.simulations, _drift_qdq))
        time, times = _timed(cell.latency)
        if cell.latency is None and (rounds := as_control.get(cell.key)):  # timed in another run's rounds
            time = v.median(latency.summarize([ms for samples in rounds for ms in samples]))
        if times == v.NOT_MEASURED and time.kind == "figure" and cell.model == control_model(report):
            times = v.words("control")
        rows.append((v.words(cell.model), _place(cell), _size(cell.conversion), right, same, time, times))
    return Table(
        title="Overview",
        header=("Model", "Runtime", "Size", "Top-1", "Same class as QDQ", "Median", f"× {control_title(report)}"),
        rows=tuple(rows),
        label_columns=2,
        notes=(
            "Top-1 with 95% Wilson interval over n images. Median over n single-image samples. × is the median over n "
            "interleaved rounds of the ratio of medians, with 95% bootstrap interval. 1 MB = 10^6 bytes.",
            *([SIMULATION_NOTE] if any(cell.simulations for cell in cells(report)) else []),
        ),
    )


def drift_by_stage(run: RunRecord) -> Table:
    """The stages of one run, then each runtime: accuracy, and distance to the float and to the QDQ stage."""
    rows: list[tuple[Value, ...]] = []
    for stage in run.stages:
        is_float = stage.stage == "float"
        rows.append(
            (
                v.words(STAGE_TITLES[stage.stage]),
                v.top1(stage.accuracy),
                v.top5(stage.accuracy),
                v.NONE_HERE if is_float else v.same_class(stage.drift),
                v.NONE_HERE if is_float else v.sqnr(stage.drift),
                v.NONE_HERE,
                v.NONE_HERE,
            )
        )
    for cell in run_cells(run):
        if cell.simulations:
            rows.append((_place(cell), *_simulated_drift(cell)))
            continue
        if cell.validation is None or cell.validation.accuracy is None:
            rows.append((_place(cell), _validated(cell), *[v.NOT_MEASURED] * 5))
            continue
        right, to_float, to_qdq = cell.validation.accuracy, cell.validation.drift_float, cell.validation.drift_qdq
        rows.append(
            (
                _place(cell),
                v.top1(right),
                v.top5(right),
                v.same_class(to_float),
                v.sqnr(to_float),
                _to_qdq(cell, v.same_class(to_qdq)),
                _to_qdq(cell, v.sqnr(to_qdq)),
            )
        )
    return Table(
        title=f"{run.model}: accuracy and drift by stage",
        header=("Stage", "Top-1", "Top-5", "Same as float", "SQNR to float", "Same as QDQ", "SQNR to QDQ"),
        rows=tuple(rows),
        notes=("SQNR and the smallest cosine of one image are over the logits, on the same images at every stage.",),
    )


def range_events(run: RunRecord) -> Table | None:
    """Which operators left the range of their number format in a simulation; None if nothing was simulated."""
    simulations = [r for r in run.validations if r.key.simulated and r.range_events is not None]
    if not simulations:
        return None
    rows = []
    for record in simulations:
        place = v.words(f"{record.key.target} {record.key.precision}\n{record.key.runtime}")
        found: dict[tuple[str, str], list[RangeEvent]] = {}
        for event in record.range_events or ():
            found.setdefault((event.kind, event.op_type), []).append(event)
        for (kind, op_type), events in sorted(found.items(), key=lambda item: RANGE_ORDER.index(item[0][0])):
            total = sum(event.count for event in events)
            first = events[0].operator if len(events) == 1 else f"{events[0].operator} and {len(events) - 1} more"
            rows.append((place, v.words(RANGE_WORDS[kind]), Value(str(total)), v.words(op_type), v.words(first)))
        if not found:
            rows.append((place, v.words("nothing"), Value("0"), v.NONE_HERE, v.NONE_HERE))
    return Table(
        title=f"{run.model}: numbers that left their range, {SIMULATED}",
        header=("File and rounding model", "What happened", "Numbers", "Operator", "Where first"),
        rows=tuple(rows),
        label_columns=2,
        notes=("Over all images. NaN is counted where it first appears for an image.",),
    )


def _simulated_drift(cell: Cell) -> tuple[Value, ...]:
    records = cell.simulations
    if (why := simulated.outcome(records)) is not None:
        return why, *[v.NOT_MEASURED] * 5
    return (
        simulated.top1(records),
        simulated.top5(records),
        simulated.same_class(records, _drift_float),
        simulated.sqnr(records, _drift_float),
        _to_qdq(cell, simulated.same_class(records, _drift_qdq)),
        _to_qdq(cell, simulated.sqnr(records, _drift_qdq)),
    )


def _drift_float(record: ValidationRecord) -> Drift | None:
    return record.drift_float


def _drift_qdq(record: ValidationRecord) -> Drift | None:
    return record.drift_qdq


def artifacts(run: RunRecord) -> Table:
    """What each written file holds, read from the file."""
    rows: list[tuple[Value, ...]] = []
    notes: list[tuple[str, str]] = []
    for record in run.conversions:
        name = f"{record.target} {_variant(record)}"
        label = v.words(f"{record.target}\n{_variant(record)}")
        facts = record.facts
        if record.outcome.status != "ok":
            rows.append((label, v.outcome(record.outcome), *[v.NOT_MEASURED] * 5))
            continue
        assert facts is not None  # ConversionRecord holds it
        outside = None if facts.fallback is None else sum(facts.fallback.values())
        scales = v.NONE_HERE if record.source == "float" else v.NOT_MEASURED
        if record.scales_total is not None and record.scales_found is not None:
            scales = Value(f"{record.scales_found} of {record.scales_total}")
        rows.append(
            (
                label,
                v.megabytes(facts.size_bytes),
                Value(f"{facts.int8_weights} / {facts.float_weights}"),
                v.count(facts.partitions, "not in the file"),
                Value("not in the file", "not measured")
                if outside is None or facts.delegated is None
                else Value(f"{facts.delegated} / {outside}"),
                scales,
                v.seconds(record.seconds),
            )
        )
        if facts.fallback:
            notes.append((name, f"outside the delegate: {v.names(v.tally(facts.fallback))}"))
        if facts.weights_by_dtype:
            notes.append((name, f"weights by dtype: {v.names(v.tally(facts.weights_by_dtype))}"))
        if record.precision == "int8" and facts.float_weight_names:
            notes.append((name, f"weights left in float: {v.names(facts.float_weight_names)}"))
        if record.scales_missing:
            notes.append((name, f"trained scales not found: {v.names(record.scales_missing)}"))
        if record.load_check:
            notes.append((name, f"load check: {record.load_check}"))
        notes += [(name, f"caution: {caution}") for caution in facts.cautions]
    return Table(
        title=f"{run.model}: artifacts",
        header=(
            "Artifact",
            "Size",
            "Weights int8 / float",
            "Delegate partitions",
            "Operators in / outside",
            "Trained scales found",
            "Converted in",
        ),
        rows=tuple(rows),
        notes=grouped(notes),
    )


def file_facts(name: str, facts: FactsRecord) -> Table:
    """Everything that one written file holds, read from the file; cautions stand below."""
    where = [] if facts.fallback is None else [("outside of delegates", _listing(v.tally(facts.fallback)))]
    rows = (
        ("size", v.megabytes(facts.size_bytes)),
        *((f"input {spec.name}", _tensor(spec)) for spec in facts.inputs),
        *((f"output {spec.name}", _tensor(spec)) for spec in facts.outputs),
        ("trained weights", _listing(v.tally(facts.weights_by_dtype))),
        ("weights in float", _listing(facts.float_weight_names)),
        ("delegate partitions", v.count(facts.partitions, "not in the file")),
        ("operators in delegates", v.count(facts.delegated, "not in the file")),
        *where,
        ("operators", Value(str(sum(facts.operators.values())))),
        *((kind, Value(str(count))) for kind, count in (facts.operators_by_dtype or facts.operators).items()),
    )
    return Table(
        title=f"{name}: what the file holds",
        header=("What", "Value"),
        rows=tuple((v.words(what), value) for what, value in rows),
        label_columns=2,
        notes=tuple(f"caution: {caution}" for caution in facts.cautions),
    )


def _listing(items: tuple[str, ...], limit: int = 12) -> Value:
    """The first items, and how many more there are."""
    rest = f" and {len(items) - limit} more" if len(items) > limit else ""
    return v.words(", ".join(items[:limit]) + rest) if items else v.NONE_HERE


def _tensor(spec: TensorSpec) -> Value:
    return v.words(f"{spec.dtype} {list(spec.shape)}" if spec.shape else spec.dtype)


def latencies(run: RunRecord) -> Table:
    """Summaries of the raw samples, and the control measured in the same rounds."""
    rows: list[tuple[Value, ...]] = []
    notes: list[tuple[str, str]] = []
    for cell in run_cells(run):
        record = cell.latency
        if cell.simulations:
            continue
        if record is None or record.rounds_ms is None:
            rows.append((_place(cell), _timed(record)[0], *[v.NOT_MEASURED] * 6))
            continue
        summary = latency.summarize([ms for samples in record.rounds_ms for ms in samples])
        control = v.NOT_MEASURED
        if record.control_rounds_ms is not None:
            control = v.median(latency.summarize([ms for samples in record.control_rounds_ms for ms in samples]))
        rows.append(
            (
                _place(cell),
                v.median(summary),
                v.milliseconds(summary.p90_ms),
                v.milliseconds(summary.mad_ms),
                Value(f"{len(record.rounds_ms)}\n{len(record.warmup_ms)} warm-up"),
                Value(str(record.threads)),
                control,
                _timed(record)[1],
            )
        )
        if record.control_note:
            notes.append((f"{cell.place} {cell.variant}", f"control: {record.control_note}"))
    return Table(
        title=f"{run.model}: latency",
        header=("Runtime", "Median", "p90", "MAD", "Rounds", "Threads", "Control", "× control"),
        rows=tuple(rows),
        notes=("MAD: median absolute deviation from the median. One sample is one image.", *grouped(notes)),
    )


def provenance(run: RunRecord) -> Table:
    """How the figures came about, flattened to key and value."""
    facts: dict[str, object] = {
        "run": run.run_id,
        "created": run.created_utc,
        "parameters": f"{run.parameters:,}",
        "classes": run.num_classes,
        "data": f"{run.data.name}: {run.data.n_train} training, {run.data.n_val} validation images",
        "data.train_digest": run.data.train_digest,
        "data.val_digest": run.data.val_digest,
        "weights": run.weights.source,
        "weights.sha256": run.weights.sha256,
        "artifacts": {
            f"{c.target} {_variant(c)}": f"{c.path}, sha256 {c.sha256}" for c in run.conversions if c.path is not None
        },
        "scheme": run.scheme,
        "calibration": run.calibration,
        "training": run.training,
        "provenance": run.provenance,
    }
    rows = tuple((v.words(key), v.words(value)) for key, value in v.flat(facts))
    return Table(title=f"{run.model}: provenance", header=("What", "Value"), rows=rows, label_columns=2)


def all_tables(report: Report) -> tuple[Table, ...]:
    """Every table, in reading order."""
    per_run: tuple[Callable[[RunRecord], Table | None], ...] = (
        drift_by_stage,
        range_events,
        artifacts,
        latencies,
        provenance,
    )
    made = (make(run) for run in report.runs for make in per_run)
    return overview(report), *(table for table in made if table is not None)


def grouped(notes: list[tuple[str, str]]) -> tuple[str, ...]:
    """(label, note) pairs -> one line for each note, with all labels that it holds for in front."""
    labels: dict[str, list[str]] = {}
    for label, note in notes:
        labels.setdefault(note, []).append(label)
    return tuple(f"{', '.join(dict.fromkeys(names))}: {note}" for note, names in labels.items())


def reasons(table: Table) -> tuple[str, ...]:
    """Why values of the table are missing: "tflite int8 qat: failed at load: ..."."""
    found = []
    for row in table.rows:
        label = " ".join(value.text for value in row[: table.label_columns]).replace("\n", " ")
        found += [(label, value.full) for value in row if value.detail]
    return grouped(found)


def control_model(report: Report) -> str | None:
    """The model that latencies are compared with; None if no latency has a control."""
    for run in report.runs:
        for record in run.latencies:
            if record.control is not None:
                return record.control.model
    return None


def control_title(report: Report) -> str:
    """Its name for a heading."""
    model = control_model(report)
    return {"mobilenet_v2": "MobileNetV2", None: "control"}.get(model, model or "control")


def _place(cell: Cell) -> Value:
    return v.words(f"{cell.place}\n{cell.variant}")


def _to_qdq(cell: Cell, value: Value) -> Value:
    """A distance to the QDQ program; a file made from the float program has none unless it was measured."""
    return v.NONE_HERE if cell.source == "float" and value == v.NOT_MEASURED else value


def _variant(record: ConversionRecord) -> str:
    return record.precision if record.source == "float" else f"{record.precision} {record.source}"


def _size(record: ConversionRecord | None) -> Value:
    if record is None:
        return v.NOT_MEASURED
    if record.outcome.status != "ok" or record.facts is None:
        return v.outcome(record.outcome)
    return v.megabytes(record.facts.size_bytes)


def _validated(cell: Cell) -> Value:
    """What stands in the accuracy column where there is no accuracy."""
    return v.NOT_MEASURED if cell.validation is None else v.outcome(cell.validation.outcome)


def _timed(record: LatencyRecord | None) -> tuple[Value, Value]:
    """Median, and ratio to the control."""
    if record is None:
        return v.NOT_MEASURED, v.NOT_MEASURED
    if record.rounds_ms is None:
        return v.outcome(record.outcome), v.NOT_MEASURED
    median = v.median(latency.summarize([ms for samples in record.rounds_ms for ms in samples]))
    if record.control_rounds_ms is None:
        return median, v.NOT_MEASURED
    return median, v.times_control(latency.ratio(record.rounds_ms, record.control_rounds_ms))
