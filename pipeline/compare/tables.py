"""A comparison of two runs in, its tables out; terminal, Markdown and HTML only lay them out."""

from __future__ import annotations

from pipeline.compare.records import Comparison, Half, PairedImages
from pipeline.metrics.latency import RatioChange
from pipeline.report import values as v
from pipeline.report.tables.drift import STAGE_TITLES
from pipeline.report.tables.table import Table, grouped
from pipeline.report.values import Value

MAX_FLIPS = 12  # classes of one cell in the table of flips; all are in the JSON


def all_tables(comparison: Comparison) -> tuple[Table, ...]:
    """In reading order; flips and provenance only where there are any."""
    made = (
        _accuracy(comparison),
        _files(comparison),
        _latency(comparison),
        _flips(comparison),
        _provenance(comparison),
    )
    return tuple(table for table in made if table.rows)


def _accuracy(comparison: Comparison) -> Table:
    rows, notes = [], []
    for stage in comparison.stages:
        label = STAGE_TITLES[stage.stage]
        sides = [v.NOT_MEASURED if side is None else v.top1(side) for side in (stage.a, stage.b)]
        rows.append((v.words(label), *sides, *_paired(stage.paired)))
        notes.append((label, stage.not_paired))
    for cell in comparison.cells:
        rows.append((v.words(cell.label), _top1(cell.a), _top1(cell.b), *_paired(cell.paired)))
        notes.append((cell.label, cell.not_paired))
    return Table(
        title="Accuracy",
        header=("Stage or cell", "Top-1 A", "Top-1 B", "Drop A to B", "p", "Smallest detectable drop", "Same class"),
        rows=tuple(rows),
        notes=(
            "Top-1 with 95% Wilson interval over n images. Drop in percentage points over the same images, with 95% "
            "paired bootstrap interval; lost: right in A, wrong in B. p: exact McNemar test, two-sided. Smallest drop "
            "that the one-sided test finds with 80% power among so many images.",
            *grouped([(label, note) for label, note in notes if note]),
        ),
    )


def _paired(paired: PairedImages | None) -> tuple[Value, Value, Value, Value]:
    if paired is None:
        none = Value("not paired", "not measured")
        return none, none, none, none
    change = paired.change
    low, high = change.interval_pp()
    detectable = change.detectable_pp()
    return (
        Value(
            f"{change.drop_pp:+.2f} pp\n{low:+.2f} to {high:+.2f}\n{change.lost} lost, {change.gained} gained",
            sort=change.drop_pp,
        ),
        Value(v.p_text(change.p_value), sort=change.p_value),
        Value("none", "text") if detectable is None else Value(f"{detectable:.2f} pp\nn {change.n}", sort=detectable),
        v.share(paired.same_class.same, paired.same_class.n),
    )


def _files(comparison: Comparison) -> Table:
    rows = []
    for name, a, b in _by_file(comparison):
        rows.append((v.words(name), _size(a), _size(b), _quotient(a, b), _outside(a), _outside(b)))
    return Table(
        title="Files",
        header=("File", "Size A", "Size B", "B / A", "Operators outside A", "Operators outside B"),
        rows=tuple(rows),
        notes=("1 MB = 10^6 bytes. Outside: operators that are in no delegate.",),
    )


def _quotient(a: Half | None, b: Half | None) -> Value:
    if a is None or b is None:
        return v.NONE_HERE
    if not a.size_bytes or b.size_bytes is None:
        return v.NOT_MEASURED
    quotient = b.size_bytes / a.size_bytes
    return Value(f"{quotient:.3f}×", sort=quotient)


def _by_file(comparison: Comparison) -> list[tuple[str, Half | None, Half | None]]:
    """One row for each file: its runtimes share it."""
    found: dict[str, tuple[Half | None, Half | None]] = {}
    for cell in comparison.cells:
        name = f"{cell.target} {cell.scheme}"
        a, b = found.get(name, (None, None))
        found[name] = (a or cell.a, b or cell.b)
    return [(name, a, b) for name, (a, b) in found.items()]


def _latency(comparison: Comparison) -> Table:
    timed = [c for c in comparison.cells if any(half is not None and half.median_ms is not None for half in (c.a, c.b))]
    rows = [(v.words(c.label), *_timed(c.a), *_timed(c.b), _change(c.change)) for c in timed]
    return Table(
        title="Latency",
        header=("Cell", "Median A", "× control A", "Median B", "× control B", "B / A"),
        rows=tuple(rows),
        notes=(
            "× control: ratio to MobileNetV2 in the same interleaved rounds, of processor time where it was counted, "
            "with 95% interval. B / A: the one ratio over the other, with 95% interval; above 1 is slower.",
            *grouped([(cell.label, cell.not_timed) for cell in timed if cell.not_timed]),
        ),
    )


def _flips(comparison: Comparison) -> Table:
    rows = []
    named = [(STAGE_TITLES[s.stage], s.paired) for s in comparison.stages]
    for label, paired in [*named, *((c.label, c.paired) for c in comparison.cells)]:
        for flips in (paired.flips if paired else ())[:MAX_FLIPS]:
            counts = (Value(str(count), sort=count) for count in (flips.n, flips.lost, flips.gained))
            rows.append((v.words(label), v.words(flips.name), *counts))
    return Table(
        title="Images whose answer changed, by class",
        header=("Stage or cell", "Class", "Images", "Lost", "Gained"),
        rows=tuple(rows),
        label_columns=2,
        notes=(f"Those that lost most first, at most {MAX_FLIPS} classes of a cell; all are in the JSON.",),
    )


def _provenance(comparison: Comparison) -> Table:
    return Table(
        title="What differs in provenance",
        header=("What", "A", "B"),
        rows=tuple((v.words(d.what), v.words(d.a), v.words(d.b)) for d in comparison.differences),
        label_columns=3,
    )


def _top1(half: Half | None) -> Value:
    if half is None:
        return v.NONE_HERE
    if half.accuracy is not None:
        return v.top1(half.accuracy)
    return v.NOT_MEASURED if half.outcome is None else v.outcome(half.outcome)


def _size(half: Half | None) -> Value:
    if half is None:
        return v.NONE_HERE
    return v.NOT_MEASURED if half.size_bytes is None else v.megabytes(half.size_bytes)


def _outside(half: Half | None) -> Value:
    return v.NONE_HERE if half is None else v.count(half.outside, "not in the file")


def _timed(half: Half | None) -> tuple[Value, Value]:
    if half is None:
        return v.NONE_HERE, v.NONE_HERE
    median = v.NOT_MEASURED if half.median_ms is None else v.milliseconds(half.median_ms)
    return median, v.NOT_MEASURED if half.latency is None else v.times_control(half.latency)


def _change(change: RatioChange | None) -> Value:
    if change is None:
        return Value("not comparable", "not measured")
    spread = "1 round" if change.low is None else f"{change.low:.3f}–{change.high:.3f}"
    return Value(f"{change.change:.3f}×\n{spread}\nn {change.before_rounds}, {change.rounds}", sort=change.change)


def title(comparison: Comparison) -> str:
    a, b = comparison.a, comparison.b
    return f"A: {a.run_id} ({a.model}, {a.images} images)\nB: {b.run_id} ({b.model}, {b.images} images)"
