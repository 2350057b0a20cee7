"""What is stored of a conversion: the outcome, the file, and what reading it back said of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from pipeline.records.keys import ArtifactKey, Outcome, Source, check_precision, check_seconds, check_sha256
from targets.boundary import Boundary
from targets.types import FactsRecord, Precision


@dataclass(frozen=True)
class ConversionRecord:
    """One artifact.

    Attributes:
        path: relative to the run folder.
        scales_total, scales_found, scales_missing: trained scales of the program, how many are in the file, and the
            tensors whose scales are not. None where the program has none (float) or the file was not read.
        load_check: what the run in a fresh process before publication said.
        boundary: what the file takes and gives; None in records of versions whose files take tensors alone.
    """

    model: str
    target: str
    precision: Precision
    source: Source
    outcome: Outcome
    path: str | None
    sha256: str | None
    seconds: float | None
    facts: FactsRecord | None
    scales_total: int | None
    scales_found: int | None
    scales_missing: tuple[str, ...]
    load_check: str
    boundary: Boundary | None = None

    @property
    def artifact(self) -> ArtifactKey:
        return ArtifactKey(self.target, self.precision, self.source)

    def __post_init__(self) -> None:
        check_precision(self.precision, self.source)
        check_seconds(self.seconds)
        if self.path is not None:
            path = PurePosixPath(self.path)
            if path.is_absolute() or ".." in path.parts or "\\" in self.path:
                raise ValueError(f"path {self.path!r} is not inside the run folder")
        if self.sha256 is not None:
            check_sha256(self.sha256)
        if self.outcome.status == "ok" and None in (self.path, self.sha256, self.facts):
            raise ValueError("a conversion that is ok has a path, a sha256 and facts")
        if (self.scales_total is None) != (self.scales_found is None):
            raise ValueError(f"{self.scales_found} of {self.scales_total} scales found: both or neither are known")
        missing = 0 if self.scales_total is None else self.scales_total - (self.scales_found or 0)
        if missing != len(self.scales_missing):
            raise ValueError(
                f"{self.scales_found} of {self.scales_total} scales found, {len(self.scales_missing)} named as missing"
            )
