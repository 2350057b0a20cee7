"""A comparison of two runs as tables, JSON, Markdown or one self-contained HTML page."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from pipeline.compare.records import ClassFlips, ComparedCell, ComparedStage, Comparison, Difference, Half, PairedImages
from pipeline.metrics.accuracy import CONFIDENCE, Accuracy, wilson_percent
from pipeline.metrics.latency import RatioChange
from pipeline.records.keys import ArtifactKey
from pipeline.report import values as v
from pipeline.report.page import environment
from pipeline.report.tables.accuracy import STAGE_TITLES
from pipeline.report.tables.table import Column, Columns, Table, as_text, escaped, grouped, print_tables, table_lines
from pipeline.report.values import Value
from targets.codec import to_dict

MAX_FLIPS = 12  # classes of one cell in the table of flips; all are in the JSON
SCHEMA_VERSION = 1


def show(comparison: Comparison) -> None:
    """Print on stdout."""
    print_tables(_parts(comparison))


def text(comparison: Comparison) -> str:
    """The same as plain text."""
    return as_text(_parts(comparison))


def _parts(comparison: Comparison) -> tuple[str | Table, ...]:
    lines = [
        f"{side}: {run.run_id}, {run.model}, {run.data}, {run.images} images scored"
        for side, run in (("A", comparison.a), ("B", comparison.b))
    ]
    return "\n".join([*lines, *comparison.notes]), *all_tables(comparison)


def markdown(comparison: Comparison) -> str:
    """GitHub-flavoured Markdown."""
    head = ["# Two runs side by side", "", "| | run | model | data | images scored |", "|---|---|---|---|---:|"]
    for side, run in (("A", comparison.a), ("B", comparison.b)):
        words = (run.run_id, run.model, run.data, str(run.images))
        head.append(f"| {side} | {' | '.join(map(escaped, words))} |")
    notes = [f"- {escaped(note)}" for note in comparison.notes]
    return "\n".join([*head, "", *notes, "", *map(table_lines, all_tables(comparison))])


def html(comparison: Comparison) -> str:
    """One page that opens offline, light and dark. All text is escaped by the template engine."""
    template = environment().get_template("compare.html.j2")
    return template.render(comparison=comparison, tables=all_tables(comparison))


def as_json(comparison: Comparison) -> str:
    """Intervals have 95% confidence; drops are in percentage points from A to B."""
    data = to_dict(comparison)
    pairs: list[Pair] = [*comparison.stages, *comparison.cells]
    for kept, record in zip([*data["stages"], *data["cells"]], pairs, strict=True):
        if record.paired is not None:
            kept["paired"]["statistics"] = _statistics(record.paired)
        for side in ("a", "b"):
            accuracy, counts = getattr(record, side), kept[side]
            if isinstance(accuracy, Half):
                accuracy, counts = accuracy.accuracy, counts["accuracy"]
            if accuracy is not None:
                counts["top1_percent"] = accuracy.top1_percent
                counts["top1_interval_percent"] = list(wilson_percent(accuracy.top1, accuracy.n))
    return json.dumps({"schema_version": SCHEMA_VERSION, "confidence": CONFIDENCE, **data}, indent=2) + "\n"


def _statistics(paired: PairedImages) -> dict[str, object]:
    change = paired.change
    return {
        "drop_pp": change.drop_pp,
        "drop_interval_pp": list(change.interval_pp()),
        "mcnemar_p": change.p_value,
        "smallest_detectable_drop_pp": change.detectable_pp(),
        "same_class_percent": paired.same_class.percent,
    }


def all_tables(comparison: Comparison) -> tuple[Table, ...]:
    """In reading order; flips and provenance only where there are any."""
    makers = (_accuracy, _files, _latency, _flips, _provenance)
    return tuple(table for make in makers if (table := make(comparison)).rows)


Pair = ComparedStage | ComparedCell


def _label(pair: Pair) -> str:
    return STAGE_TITLES[pair.stage] if isinstance(pair, ComparedStage) else pair.label


def _accuracy(comparison: Comparison) -> Table:
    pairs: list[Pair] = [*comparison.stages, *comparison.cells]
    columns: Columns[Pair] = (
        Column("Stage or cell", _label),
        Column("Top-1 A", lambda pair: _top1(pair, pair.a)),
        Column("Top-1 B", lambda pair: _top1(pair, pair.b)),
        _paired("Drop A to B", _drop),
        _paired("p", lambda paired: Value(v.p_text(paired.change.p_value), sort=paired.change.p_value)),
        _paired("Smallest detectable drop", _detectable),
        _paired("Same class", lambda paired: v.share(paired.same_class.same, paired.same_class.n)),
    )
    return Table.of(
        "Accuracy",
        columns,
        pairs,
        notes=(
            "Top-1 with 95% Wilson interval over n images. Drop in percentage points over the same images, with 95% "
            "paired bootstrap interval; lost: right in A, wrong in B. p: exact McNemar test, two-sided. Smallest drop "
            "that the one-sided test finds with 80% power among so many images.",
            *grouped((_label(pair), pair.not_paired) for pair in pairs if pair.not_paired),
        ),
    )


def _top1(pair: Pair, side: Accuracy | Half | None) -> Value:
    """A stage that was not scored was not measured; a cell that one run does not have has no figure there."""
    if side is None:
        return v.NOT_MEASURED if isinstance(pair, ComparedStage) else v.NONE_HERE
    accuracy = side if isinstance(side, Accuracy) else side.accuracy
    if accuracy is None and isinstance(side, Half) and side.outcome is not None:
        return v.outcome(side.outcome)
    return v.measured(accuracy, v.top1)


def _paired(header: str, of: Callable[[PairedImages], Value]) -> Column[Pair]:
    none = Value("not paired", "not measured")
    return Column(header, lambda pair: none if pair.paired is None else of(pair.paired))


def _drop(paired: PairedImages) -> Value:
    change = paired.change
    low, high = change.interval_pp()
    counts = f"{change.lost} lost, {change.gained} gained"
    return Value(f"{change.drop_pp:+.2f} pp\n{low:+.2f} to {high:+.2f}\n{counts}", sort=change.drop_pp)


def _detectable(paired: PairedImages) -> Value:
    smallest = paired.change.detectable_pp()
    if smallest is None:
        return Value("none", "text")
    return Value(f"{smallest:.2f} pp\nn {paired.change.n}", sort=smallest)


Sides = tuple[str, Half | None, Half | None]


def _files(comparison: Comparison) -> Table:
    """One row for each file: its runtimes share it."""
    found: dict[str, Sides] = {}
    for cell in comparison.cells:
        name = f"{cell.target} {ArtifactKey(cell.target, cell.precision, cell.source).variant}"
        _, a, b = found.get(name, (name, None, None))
        found[name] = (name, a or cell.a, b or cell.b)
    columns: Columns[Sides] = (
        Column("File", lambda file: file[0]),
        Column("Size A", lambda file: _of(file[1], lambda half: half.size_bytes, v.megabytes)),
        Column("Size B", lambda file: _of(file[2], lambda half: half.size_bytes, v.megabytes)),
        Column("B / A", lambda file: _quotient(file[1], file[2])),
        Column("Operators outside A", lambda file: _of(file[1], lambda half: v.count_in_file(half.outside))),
        Column("Operators outside B", lambda file: _of(file[2], lambda half: v.count_in_file(half.outside))),
    )
    note = "1 MB = 10^6 bytes. Outside: operators that are in no delegate."
    return Table.of("Files", columns, found.values(), notes=(note,))


def _quotient(a: Half | None, b: Half | None) -> Value:
    if a is None or b is None:
        return v.NONE_HERE
    if not a.size_bytes or b.size_bytes is None:
        return v.NOT_MEASURED
    quotient = b.size_bytes / a.size_bytes
    return Value(f"{quotient:.3f}×", sort=quotient)


def _latency(comparison: Comparison) -> Table:
    timed = [c for c in comparison.cells if any(half is not None and half.median_ms is not None for half in (c.a, c.b))]
    columns: Columns[ComparedCell] = (
        Column("Cell", lambda cell: cell.label),
        Column("Median A", lambda cell: _of(cell.a, lambda half: half.median_ms, v.milliseconds)),
        Column("× control A", lambda cell: _of(cell.a, lambda half: half.latency, v.times_control)),
        Column("Median B", lambda cell: _of(cell.b, lambda half: half.median_ms, v.milliseconds)),
        Column("× control B", lambda cell: _of(cell.b, lambda half: half.latency, v.times_control)),
        Column("B / A", lambda cell: _change(cell.change)),
    )
    return Table.of(
        "Latency",
        columns,
        timed,
        notes=(
            "× control: ratio to MobileNetV2 in the same interleaved rounds, of processor time where it was counted, "
            "with 95% interval. B / A: the one ratio over the other, with 95% interval; above 1 is slower.",
            *grouped((cell.label, cell.not_timed) for cell in timed if cell.not_timed),
        ),
    )


def _flips(comparison: Comparison) -> Table:
    pairs: list[Pair] = [*comparison.stages, *comparison.cells]
    columns: Columns[tuple[str, ClassFlips]] = (
        Column("Stage or cell", lambda row: row[0]),
        Column("Class", lambda row: row[1].name),
        Column("Images", lambda row: row[1].n, v.count),
        Column("Lost", lambda row: row[1].lost, v.count),
        Column("Gained", lambda row: row[1].gained, v.count),
    )
    rows = ((_label(pair), flips) for pair in pairs if pair.paired for flips in pair.paired.flips[:MAX_FLIPS])
    note = f"Those that lost most first, at most {MAX_FLIPS} classes of a cell; all are in the JSON."
    return Table.of("Images whose answer changed, by class", columns, rows, label_columns=2, notes=(note,))


def _provenance(comparison: Comparison) -> Table:
    columns: Columns[Difference] = (
        Column("What", lambda d: d.what),
        Column("A", lambda d: d.a),
        Column("B", lambda d: d.b),
    )
    return Table.of("What differs in provenance", columns, comparison.differences, label_columns=3)


def _of(half: Half | None, figure: Callable[[Half], Any], shown: Callable[[Any], Value] = v.words) -> Value:
    """A figure of one run; a cell that it does not have has none."""
    return v.NONE_HERE if half is None else Column("", figure, shown).value(half)


def _change(change: RatioChange | None) -> Value:
    if change is None:
        return Value("not comparable", "not measured")
    spread = "1 round" if change.low is None else f"{change.low:.3f}–{change.high:.3f}"
    return Value(f"{change.change:.3f}×\n{spread}\nn {change.before_rounds}, {change.rounds}", sort=change.change)
