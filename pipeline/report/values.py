"""Counts, samples and outcomes as the words and figures that a reader sees; the same in every kind of report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from pipeline.metrics.accuracy import Accuracy, wilson_percent
from pipeline.metrics.drift import Drift
from pipeline.metrics.latency import LatencyRatio, summarize
from pipeline.records.keys import Outcome
from targets.words import first

T = TypeVar("T")
Kind = Literal["figure", "text", "not measured", "unavailable", "failed"]


@dataclass(frozen=True)
class Value:
    """One cell of a table.

    Attributes:
        text: lines are separated by a newline.
        detail: the reason of what is not ok.
        sort: what a column is sorted by, unrounded; None where there is no figure: sorted last, or by its text.
    """

    text: str
    kind: Kind = "figure"
    detail: str = ""
    sort: float | None = None

    @property
    def full(self) -> str:
        return f"{self.text}: {self.detail}" if self.detail else self.text


NOT_MEASURED = Value("not measured", "not measured")
NOT_IN_FILE = Value("not in the file", "not measured")
NAMES = 12  # of operators or layers in one line
EXACT_DB = 1e9  # sorts above every SQNR; infinity has no place in an attribute of a page
NONE_HERE = Value("–", "text")  # the figure does not exist, as drift of the reference to itself


def printable(text: str) -> str:
    """Without control characters, which messages of foreign tools can hold: a terminal obeys them, XML forbids them."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def measured(figure: T | None, shown: Callable[[T], Value]) -> Value:
    """`figure` as `shown` renders it; not measured for None."""
    return NOT_MEASURED if figure is None else shown(figure)


def words(text: object) -> Value:
    return Value(str(text), "text")


def outcome(value: Outcome) -> Value:
    """An outcome that is not ok: "unavailable: reason", "failed at convert: cause"."""
    reason = " ".join((value.reason or "").split())  # converters' messages have many lines
    if value.status == "failed":
        return Value(f"failed at {value.stage}", "failed", reason)
    return Value("unavailable", "unavailable", reason)


def share(count: int, n: int) -> Value:
    return Value(f"{100 * count / n:.2f}%\n{count} of {n}", sort=count / n)


def share_with_interval(count: int, n: int) -> Value:
    """Percent with its 95% Wilson interval and n."""
    low, high = wilson_percent(count, n)
    return Value(f"{100 * count / n:.2f}%\n{low:.1f}–{high:.1f}, n {n}", sort=count / n)


def top1(accuracy: Accuracy) -> Value:
    return share_with_interval(accuracy.top1, accuracy.n)


def top5(accuracy: Accuracy) -> Value:
    return measured(accuracy.top5, lambda count: share_with_interval(count, accuracy.n))


def same_class(drift: Drift) -> Value:
    return share(drift.agreement_same, drift.n)


def sqnr(drift: Drift) -> Value:
    """SQNR with the smallest cosine below it."""
    if drift.nonfinite:
        return Value("not measured", "not measured", f"NaN or infinity in {drift.nonfinite} of {drift.n} images")
    if drift.exact:
        return Value("exact", sort=EXACT_DB)
    ratio = "not measured" if drift.sqnr_db is None else f"{drift.sqnr_db:.1f} dB"
    cosine = "cos not measured" if drift.cosine_min is None else f"cos {drift.cosine_min:.4f}"
    return Value(f"{ratio}\n{cosine}", sort=drift.sqnr_db)


def decibels(db: float | None, without: Value) -> Value:
    """`without` where there is no noise to divide by."""
    return without if db is None else Value(f"{db:.1f} dB", sort=db)


def _number(text: str) -> Callable[[float], Value]:
    """How a figure is written that is sorted by itself."""
    return lambda value: Value(text.format(value), sort=value)


nats = _number("{:.2g}")
milliseconds = _number("{:.2f} ms")
seconds = _number("{:.1f} s")
count = _number("{}")


def median(samples_ms: Sequence[Sequence[float]]) -> Value:
    """Of the samples of all rounds."""
    summary = summarize(flat_samples(samples_ms))
    return Value(f"{summary.median_ms:.2f} ms\nn {summary.n}", sort=summary.median_ms)


def flat_samples(rounds_ms: Sequence[Sequence[float]]) -> list[float]:
    return [ms for samples in rounds_ms for ms in samples]


def times_control(ratio: LatencyRatio) -> Value:
    spread = "1 round" if ratio.low is None else f"{ratio.low:.2f}–{ratio.high:.2f}, n {ratio.rounds}"
    return Value(f"{ratio.ratio:.2f}×\n{spread}", sort=ratio.ratio)


def megabytes(size_bytes: int) -> Value:
    """1 MB is 10^6 bytes."""
    return Value(f"{size_bytes / 1e6:.2f} MB", sort=size_bytes)


def peak_memory(peak_bytes: int) -> Value:
    return Value(f"{peak_bytes / 1e6:.1f} MB", sort=peak_bytes)


def count_in_file(value: int | None) -> Value:
    return NOT_IN_FILE if value is None else count(value)


def signed(value: float, decimals: int) -> str:
    """With a minus sign as wide as a plus; what rounds to zero is "0"."""
    text = f"{abs(value):.{decimals}f}"
    return "0" if not float(text) else f"−{text}" if value < 0 else text


def p_text(p: float) -> str:
    """ "0.63", "0.004", "<0.001"."""
    return "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def names(items: tuple[str, ...]) -> str:
    """The first names, and how many more report.json lists."""
    return first(items, NAMES) + (" (all in report.json)" if len(items) > NAMES else "")


def listing(items: tuple[str, ...]) -> Value:
    """The first items, and how many more there are."""
    return words(first(items, NAMES)) if items else NONE_HERE


def tally(counts: Mapping[str, int]) -> tuple[str, ...]:
    """Operators with their counts, most frequent first: "SOFTMAX ×7"."""
    return tuple(f"{name} ×{n}" for name, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def flat(values: Mapping[str, object], prefix: str = "") -> list[tuple[str, str]]:
    """A nested mapping as (dotted key, text) pairs; null reads "not recorded"."""
    pairs: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            pairs += flat(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            pairs.append((prefix + key, ", ".join(map(str, value)) or "none"))
        else:
            pairs.append((prefix + key, "not recorded" if value is None else str(value)))
    return pairs
