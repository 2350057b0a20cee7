"""Two runs side by side, as frozen records: what each has of a cell, and what the same images or rounds say of both."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.metrics.accuracy import Accuracy, Agreement
from pipeline.metrics.latency import LatencyRatio, RatioChange
from pipeline.metrics.paired import PairedDrop
from pipeline.records.keys import Outcome, Source, StageName
from targets.types import Precision


@dataclass(frozen=True)
class ComparedRun:
    """Which run a side is; `images` is how many of its data set's validation images it has scored."""

    run_id: str
    model: str
    created_utc: str
    data: str
    images: int


@dataclass(frozen=True)
class ClassFlips:
    """Of the `n` images of one class: right in A and wrong in B (`lost`), and the other way round (`gained`)."""

    label: int
    name: str
    n: int
    lost: int
    gained: int


@dataclass(frozen=True)
class PairedImages:
    """From A to B over the same images.

    Attributes:
        same_class: on how many of them both give the same top class.
        flips: classes with an image that became right or wrong, those that lost most first.
    """

    change: PairedDrop
    same_class: Agreement
    flips: tuple[ClassFlips, ...]


@dataclass(frozen=True)
class Half:
    """What one run has of a cell; None is not measured.

    Attributes:
        outcome: of the first step that did not end well (conversion, validation); None where all did.
        outside: operators outside any delegate.
        latency: ratio to the control.
        median_ms: of the raw samples.
    """

    outcome: Outcome | None
    accuracy: Accuracy | None
    size_bytes: int | None
    outside: int | None
    median_ms: float | None
    latency: LatencyRatio | None


@dataclass(frozen=True)
class ComparedCell:
    """A target, runtime, precision and source of scales in both runs.

    Attributes:
        runtime, device: None for a file that was run nowhere.
        a, b: None where that run has no such cell.
        paired: None where the images are not the same or were not scored; `not_paired` then says why.
        source_b: of B's file, where its scales come from elsewhere than A's.
        change: B's ratio to the control over A's; None where the two are not comparable; `not_timed` then says why.
    """

    target: str
    runtime: str | None
    precision: Precision
    source: Source
    device: str | None
    a: Half | None
    b: Half | None
    paired: PairedImages | None
    not_paired: str
    change: RatioChange | None
    not_timed: str
    source_b: Source | None = None

    @property
    def scheme(self) -> str:
        """Precision, and where the scales come from: "fp16", "int8 qat", "int8 qat/ptq" where the runs differ."""
        if self.source == "float":
            return self.precision
        return f"{self.precision} {self.source}{f'/{self.source_b}' if self.source_b else ''}"

    @property
    def label(self) -> str:
        """ "tflite litert int8 qat", "tflite litert int8 qat/ptq"; the device where it is not this host."""
        runtime = self.runtime if self.runtime not in (None, self.target) else None
        device = f"({self.device})" if self.device not in (None, "host") else None
        return " ".join(filter(None, (self.target, runtime, self.scheme, device)))


@dataclass(frozen=True)
class ComparedStage:
    """One torch stage in both runs; fields as of ComparedCell."""

    stage: StageName
    a: Accuracy | None
    b: Accuracy | None
    paired: PairedImages | None
    not_paired: str


@dataclass(frozen=True)
class Difference:
    """A fact of provenance that is not the same."""

    what: str
    a: str
    b: str


@dataclass(frozen=True)
class Comparison:
    """All of it; `notes` tell what the reader must know of the comparison as a whole."""

    a: ComparedRun
    b: ComparedRun
    stages: tuple[ComparedStage, ...]
    cells: tuple[ComparedCell, ...]
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]
