"""What the reference computed of an artifact under its rounding models in, one value for a table out: an interval.

A unit's rounding is not documented, so no single figure is shown; the interval runs over the models that were computed.
A column is sorted by its lower end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipeline.metrics.accuracy import Accuracy
from pipeline.metrics.drift import Drift
from pipeline.reports import values as v
from pipeline.reports.records import ValidationRecord
from pipeline.reports.values import Value

Records = Sequence[ValidationRecord]


def outcome(records: Records) -> Value | None:
    """Why there are no figures; None if there are some."""
    if any(r.accuracy is not None for r in records):
        return None
    return v.outcome(records[0].outcome)


def top1(records: Records) -> Value:
    return _counts(records, lambda a: a.top1)


def top5(records: Records) -> Value:
    return _counts(records, lambda a: a.top5)


def drift_float(record: ValidationRecord) -> Drift | None:
    return record.drift_float


def drift_qdq(record: ValidationRecord) -> Drift | None:
    return record.drift_qdq


def same_class(records: Records, drift: Callable[[ValidationRecord], Drift | None]) -> Value:
    found = [d for r in records if (d := drift(r)) is not None]
    if not found:
        return v.NOT_MEASURED
    low, high, n = min(d.agreement_same for d in found), max(d.agreement_same for d in found), found[0].n
    return Value(f"{_percent(low, high, n)}\n{_span(str(low), str(high))} of {n}", sort=low / n)


def sqnr(records: Records, drift: Callable[[ValidationRecord], Drift | None]) -> Value:
    found = [d for r in records if (d := drift(r)) is not None]
    if not found:
        return v.NOT_MEASURED
    if broken := [d for d in found if d.nonfinite]:
        worst = max(d.nonfinite for d in broken)
        return Value("not measured", "not measured", f"NaN or infinity in up to {worst} of {found[0].n} images")
    decibels = sorted(d.sqnr_db for d in found if d.sqnr_db is not None)
    if len(decibels) < len(found):
        return Value("exact", sort=v.EXACT_DB) if not decibels and all(d.exact for d in found) else v.NOT_MEASURED
    text = f"{_span(f'{decibels[0]:.1f}', f'{decibels[-1]:.1f}')} dB\n{_models(len(found))}"
    return Value(text, sort=decibels[0])


def _counts(records: Records, count: Callable[[Accuracy], int | None]) -> Value:
    found = [(c, r.accuracy.n) for r in records if r.accuracy is not None and (c := count(r.accuracy)) is not None]
    if not found:
        return v.NOT_MEASURED
    counts = [c for c, _ in found]
    n = found[0][1]
    text = f"{_percent(min(counts), max(counts), n)}\n{_models(len(found))}, n {n}"
    return Value(text, sort=min(counts) / n)


def _percent(low: int, high: int, n: int) -> str:
    return f"{_span(f'{100 * low / n:.2f}', f'{100 * high / n:.2f}')}%"


def _span(low: str, high: str) -> str:
    return low if low == high else f"{low}–{high}"


def _models(count: int) -> str:
    return f"{count} model{'' if count == 1 else 's'}"
