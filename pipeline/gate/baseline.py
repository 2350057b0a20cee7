"""The baseline of the gate: what it compares of a run, as counts and one bit an image, and its file."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.accuracy import Accuracy
from pipeline.metrics.latency import RoundRatios
from pipeline.records.conversion import ConversionRecord
from pipeline.records.keys import CellKey, Outcome, check_sha256
from pipeline.records.report import WeightsRecord

SCHEMA_VERSION = 1
RATIO_DIGITS = 5  # significant, of a ratio in the file: timers are not better
#: What left the range of its number format and makes a result worthless; being clipped or vanishing does not.
RANGE_KINDS = ("nan", "overflowed")

Reference = Literal["qdq", "float"]


@dataclass(frozen=True)
class Scored:
    """Answers of one cell.

    Attributes:
        images: sha256 of which images these are, in which order and after which transform.
        right: which of the `n` images have the right answer on top (pipeline.gate.baseline).
        reference: the torch stage that `agrees` is with: the QDQ program, or the float model where the file does not
            come from that program.
        agrees: which images have the same answer in both.
        range_events: numbers by RANGE_KINDS; None where the runtime does not tell.
    """

    images: str
    n: int
    top1: int
    top5: int | None
    right: str
    reference: Reference
    same: int
    agrees: str
    range_events: Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        check_sha256(self.images)
        Accuracy(self.n, self.top1, self.top5)
        for name, flags, count in (("right", self.right_flags, self.top1), ("agrees", self.agrees_flags, self.same)):
            if int(flags.sum()) != count:
                raise ValueError(f"{name} holds {int(flags.sum())} images, the count beside it says {count}")
        if self.range_events is not None and set(self.range_events) != set(RANGE_KINDS):
            raise ValueError(f"range_events of {', '.join(self.range_events)}: expected {', '.join(RANGE_KINDS)}")

    @cached_property
    def right_flags(self) -> NDArray[np.bool_]:
        return unpack(self.right, self.n)

    @cached_property
    def agrees_flags(self) -> NDArray[np.bool_]:
        return unpack(self.agrees, self.n)

    @classmethod
    def of(
        cls,
        images: str,
        accuracy: Accuracy,
        right: NDArray[np.bool_],
        reference: Reference,
        agrees: NDArray[np.bool_],
        range_events: Mapping[str, int] | None,
    ) -> Scored:
        return cls(
            images=images,
            n=accuracy.n,
            top1=accuracy.top1,
            top5=accuracy.top5,
            right=pack(right),
            reference=reference,
            same=int(agrees.sum()),
            agrees=pack(agrees),
            range_events=range_events,
        )


@dataclass(frozen=True)
class FileFacts:
    """Read from one artifact.

    Attributes:
        undelegated: operators outside of the delegate; None where the format does not tell, as `partitions`.
        float_weight_names: of an int8 file only, in others all weights are float.
        meant_float: float layers of the scheme, of an int8 file: so many of `float_weights` are no mistake.
        scales_total: trained scales of the program; None for a float file, as `scales_found`.
    """

    size_bytes: int
    undelegated: int | None
    partitions: int | None
    float_weights: int
    float_weight_names: tuple[str, ...]
    scales_total: int | None
    scales_found: int | None
    scales_missing: tuple[str, ...]
    meant_float: int = 0

    @property
    def scales_lost(self) -> int | None:
        if self.scales_total is None or self.scales_found is None:
            return None
        return self.scales_total - self.scales_found

    @classmethod
    def of(cls, record: ConversionRecord, float_layers: int = 0) -> FileFacts | None:
        """None for an artifact that was not made.

        Args:
            float_layers: of the run's scheme.
        """
        facts = record.facts
        if facts is None:
            return None
        return cls(
            size_bytes=facts.size_bytes,
            undelegated=None if facts.fallback is None else sum(facts.fallback.values()),
            partitions=facts.partitions,
            float_weights=facts.float_weights,
            float_weight_names=facts.float_weight_names if record.precision == "int8" else (),
            scales_total=record.scales_total,
            scales_found=record.scales_found,
            scales_missing=record.scales_missing,
            meant_float=float_layers if record.precision == "int8" else 0,
        )


@dataclass(frozen=True)
class Timing:
    """Latency by interleaved round, each over another file's in the same round.

    Attributes:
        processes: fresh ones that the rounds are spread over, equally many in each and in order.
        to_control: over MobileNetV2 in the same runtime and precision; None without one.
        to_float: of an int8 file, over the float32 file of the same model; None where it was not timed.
        host: processor and vector extensions of the machine.
        clock: what the ratios are of: processor time, or time on the wall.
        throttled: the device became slower while it was measured.
    """

    threads: int
    processes: int
    to_control: tuple[float, ...] | None
    to_float: tuple[float, ...] | None
    host: Mapping[str, str]
    clock: Literal["cpu", "wall"]
    throttled: bool = False

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ValueError(f"{self.threads} threads")
        _ = self.control_ratios, self.float_ratios  # refuse what is no ratio

    @property
    def control_ratios(self) -> RoundRatios | None:
        return None if self.to_control is None else RoundRatios(self.to_control, self.processes)

    @property
    def float_ratios(self) -> RoundRatios | None:
        return None if self.to_float is None else RoundRatios(self.to_float, self.processes)


@dataclass(frozen=True)
class Instructions:
    """Attributes:
    per_inference: executed for one image, the start of the process taken out.
    counted_by: emulator, its version, and the processor that it stands for.
    """

    per_inference: int
    counted_by: str

    def __post_init__(self) -> None:
        if self.per_inference < 1 or not self.counted_by:
            raise ValueError(f"{self.per_inference} instructions counted by {self.counted_by!r}")


@dataclass(frozen=True)
class CellFacts:
    """One artifact in one runtime; `scored` exactly where `outcome` is ok.

    Attributes:
        peak_bytes: memory that the file took; None where it was not measured.
    """

    key: CellKey
    outcome: Outcome
    scored: Scored | None
    file: FileFacts | None
    timing: Timing | None
    instructions: Instructions | None = None
    peak_bytes: int | None = None

    def __post_init__(self) -> None:
        if (self.outcome.status == "ok") != (self.scored is not None):
            raise ValueError(f"{self.key.label}: {self.outcome.status}, and answers {'are' if self.scored else 'not'}")


@dataclass(frozen=True)
class ImagesRecord:
    """The validation split: its name, size and digest (with that of the transform)."""

    name: str
    n_val: int
    digest: str


@dataclass(frozen=True)
class RunFacts:
    """What the gate compares of one run. A baseline file holds one.

    Attributes:
        host: the machine that quantized.
        versions: of the packages that decide a result.
    """

    schema_version: int
    run_id: str
    written_utc: str
    model: str
    num_classes: int
    images: ImagesRecord
    weights: WeightsRecord
    scheme: Mapping[str, object]
    host: Mapping[str, str]
    versions: Mapping[str, str]
    cells: tuple[CellFacts, ...]

    def __post_init__(self) -> None:
        if self.schema_version != SCHEMA_VERSION:
            raise ValueError(f"schema_version {self.schema_version}, this version writes {SCHEMA_VERSION}")
        twice = [key.label for key, count in Counter(cell.key for cell in self.cells).items() if count > 1]
        if twice:
            raise ValueError(f"more than one cell {twice[0]}")
        if other := {cell.key.model for cell in self.cells} - {self.model}:
            raise ValueError(f"cells of {', '.join(sorted(other))} among those of {self.model}")


ZLIB = "zlib:"


def pack(flags: NDArray[np.bool_]) -> str:
    """[N] -> text."""
    plain = np.packbits(flags).tobytes()
    short = zlib.compress(plain, 9)
    if len(short) < len(plain):
        return ZLIB + base64.b64encode(short).decode()
    return base64.b64encode(plain).decode()


def unpack(text: str, n: int) -> NDArray[np.bool_]:
    """Text -> [n].

    Raises:
        ValueError: no such text, or not of `n` images.
    """
    size = (n + 7) // 8
    try:
        packed = base64.b64decode(text.removeprefix(ZLIB), validate=True)
        if text.startswith(ZLIB):
            packed = zlib.decompressobj().decompress(
                packed, size + 1
            )  # a longer one is wrong, not a reason to unpack it
    except (binascii.Error, zlib.error) as error:
        raise ValueError(f"{text[:20]!r} holds no bits ({error})") from None
    bits = np.unpackbits(np.frombuffer(packed, np.uint8))
    if len(packed) != size or bits[n:].any():
        raise ValueError(f"{text[:20]!r} holds {len(packed)} bytes, not the bits of {n} images")
    return bits[:n].astype(bool)
