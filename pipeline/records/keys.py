"""What records are joined by: a file of a run, a file in a runtime on a device; and how a step with it ended."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from pipeline.errors import CellsFailedError
from targets.types import PRECISIONS, STATIC, Precision, TargetError, Unavailable

Source = Literal["float", "ptq", "qat"]  # float program; int8 scales from calibration alone; int8 trained scales
SOURCES: tuple[Source, ...] = get_args(Source)
StageName = Literal["float", "fake_quant", "qdq"]
STAGES: tuple[StageName, ...] = get_args(StageName)
#: Where a file was computed by a reference that stands for no device; the label in every table, record and plot.
SIMULATED = "simulated (MIL reference)"
HOST = "host"  # the device of a cell that ran on this machine; others are named by their address


@dataclass(frozen=True)
class Outcome:
    """How one cell of the matrix ended. Not ok carries a reason; a failure also the stage that stopped."""

    status: Literal["ok", "unavailable", "failed"]
    stage: str | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        if self.status == "ok" and (self.stage or self.reason):
            raise ValueError(f"an ok outcome has no stage {self.stage!r} and no reason {self.reason!r}")
        if self.status != "ok" and not self.reason:
            raise ValueError(f"a cell that is {self.status} needs a reason")
        if self.status == "failed" and not self.stage:
            raise ValueError("a failed cell needs the stage that stopped")

    @classmethod
    def of(cls, error: TargetError) -> Outcome:
        """The outcome that a target's error stands for."""
        status: Literal["unavailable", "failed"] = "unavailable" if isinstance(error, Unavailable) else "failed"
        return cls(status, error.stage, error.cause)


OK = Outcome("ok")


def raise_if_failed(what: str, outcomes: Iterable[tuple[str, Outcome]]) -> None:
    """
    Raises:
        CellsFailedError: names each failed cell with its stage and cause. Unavailable cells are no failure.
    """
    failed = [f"{name}: {o.stage}: {o.reason}" for name, o in outcomes if o.status == "failed"]
    if failed:
        raise CellsFailedError(f"{len(failed)} cells failed to {what}:\n  " + "\n  ".join(failed))


@dataclass(frozen=True)
class ArtifactKey:
    """Which file of a run."""

    target: str
    precision: Precision
    source: Source

    def __post_init__(self) -> None:
        check_precision(self.precision, self.source)

    @property
    def label(self) -> str:
        """For a line of text: "tflite fp16", "tflite int8", "tflite int8 ptq"."""
        return f"{self.target} {self.scheme}"

    @property
    def scheme(self) -> str:
        """Precision, and where its scales come from if that is calibration: "fp16", "int8", "int8 ptq"."""
        return f"{self.precision} ptq" if self.source == "ptq" else self.precision

    @property
    def variant(self) -> str:
        """Precision, and where trained or calibrated scales come from: "fp16", "int8 qat", "int8 ptq"."""
        return self.precision if self.source == "float" else f"{self.precision} {self.source}"


@dataclass(frozen=True)
class CellKey:
    """Which model, in which file, in which runtime, where."""

    model: str
    target: str
    runtime: str
    precision: Precision
    source: Source
    device: str

    def __post_init__(self) -> None:
        check_precision(self.precision, self.source)

    @property
    def artifact(self) -> ArtifactKey:
        """The file."""
        return ArtifactKey(self.target, self.precision, self.source)

    @property
    def simulated(self) -> bool:
        """Whether this is no measurement of a runtime; `runtime` is then a rounding model of the reference."""
        return self.device == SIMULATED

    @property
    def label(self) -> str:
        """For a line of text: "tflite litert int8", "executorch int8 on adb:0A1B", "coreml cpu int8, simulated ..."."""
        place = self.target if self.runtime == self.target else f"{self.target} {self.runtime}"
        where = {HOST: "", SIMULATED: f", {SIMULATED}"}.get(self.device, f" on {self.device}")
        return f"{place} {self.artifact.scheme}{where}"


def check_precision(precision: str, source: str) -> None:
    if precision not in PRECISIONS or source not in SOURCES:
        raise ValueError(f"precision {precision!r}, source {source!r}: known are {PRECISIONS} and {SOURCES}")
    if (precision in STATIC) == (source == "float"):
        static = ", ".join(STATIC)
        raise ValueError(f"precision {precision} from source {source}: {static} are qat or ptq, the others are float")


def check_seconds(seconds: float | None) -> None:
    if seconds is not None and not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError(f"{seconds} seconds")


def check_sha256(digest: str) -> None:
    """Refuse what is not 64 hex digits."""
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise ValueError(f"sha256 {digest!r} is not 64 hex digits")
