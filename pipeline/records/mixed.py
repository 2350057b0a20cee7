"""What is recorded of a mixed-precision run: float layers, and every trial of the search that found them; frozen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from pipeline.metrics.paired import PairedDrop
from pipeline.records.keys import check_sha256

#: Of a trial: the QDQ program computed by torch, or every file that was converted from it.
Judge = Literal["torch", "targets"]
QDQ = "QDQ program"


@dataclass(frozen=True)
class CellDrop:
    """One program or file against the float model, on the same images.

    Attributes:
        name: QDQ, or the label of a cell ("tflite litert int8").
        lost, gained: images that float answers right and this does not, and the other way round.
        size_bytes: of the file; None for a program.
    """

    name: str
    n: int
    lost: int
    gained: int
    size_bytes: int | None = None

    def __post_init__(self) -> None:
        _ = self.paired  # refuses impossible counts
        if self.size_bytes is not None and self.size_bytes < 1:
            raise ValueError(f"{self.name}: {self.size_bytes} bytes")

    @property
    def paired(self) -> PairedDrop:
        return PairedDrop(self.n, self.lost, self.gained)

    @property
    def drop_pp(self) -> float:
        return self.paired.drop_pp


@dataclass(frozen=True)
class Trial:
    """One set of float layers, judged.

    Attributes:
        float_layers: sorted.
        seconds: None where the program had been scored before.
        unavailable: targets that do not run on this machine, with the reason.
    """

    judge: Judge
    float_layers: tuple[str, ...]
    cells: tuple[CellDrop, ...]
    seconds: float | None
    unavailable: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if tuple(sorted(set(self.float_layers))) != self.float_layers:
            raise ValueError(f"float layers {self.float_layers} are not sorted, or one is there twice")
        if self.judge == "torch" and [cell.name for cell in self.cells] != [QDQ]:
            raise ValueError(f"a trial of torch has one cell, {QDQ!r}, not {[cell.name for cell in self.cells]}")
        if self.seconds is not None and not (math.isfinite(self.seconds) and self.seconds >= 0):
            raise ValueError(f"a trial of {self.seconds} seconds")

    @property
    def worst(self) -> CellDrop | None:
        """The largest drop; None where nothing could run."""
        return max(self.cells, key=lambda cell: cell.drop_pp, default=None)

    def within(self, budget_pp: float) -> bool:
        """Whether no cell lost more, by its point estimate."""
        return all(cell.drop_pp <= budget_pp for cell in self.cells)


@dataclass(frozen=True)
class RankedLayer:
    """`kl_mean`: KL divergence from the program without rounding, if this layer alone is float."""

    name: str
    kl_mean: float


@dataclass(frozen=True)
class MixedRecord:
    """How a run came to its float layers.

    Attributes:
        program_sha256: of the QDQ program with all layers int8, that the trials took layers out of.
        layers: Linears and convolutions that this program has in int8.
        float_layers: the result, sorted; `given` of them were named by the user.
        float_parameters, parameters: trained numbers of float layers' weights, and of all Linears and convolutions.
        budget_pp: None where no search was asked for: all float layers were named.
        ranking: best first, on `ranking_images` images; empty where none was needed.
        trials: in the order in which they were made.
    """

    program_sha256: str
    layers: int
    float_layers: tuple[str, ...]
    given: tuple[str, ...]
    float_parameters: int
    parameters: int
    budget_pp: float | None
    ranking_images: int
    ranking: tuple[RankedLayer, ...]
    trials: tuple[Trial, ...]

    def __post_init__(self) -> None:
        check_sha256(self.program_sha256)
        if not set(self.given) <= set(self.float_layers):
            raise ValueError(f"float layers {self.float_layers} lack some of {self.given}")
        if not 0 <= self.float_parameters <= self.parameters or len(self.float_layers) > self.layers:
            raise ValueError(
                f"{self.float_parameters} of {self.parameters} parameters and {len(self.float_layers)} of "
                f"{self.layers} layers in float"
            )
        if self.budget_pp is not None and not self.chosen:
            raise ValueError("a search without a trial of its result")

    @property
    def chosen(self) -> tuple[Trial, ...]:
        """Trials of the result."""
        return tuple(trial for trial in self.trials if trial.float_layers == self.float_layers)
