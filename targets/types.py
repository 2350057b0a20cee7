"""What every target shares: requests, graph facts, sessions, and how sessions check images and time calls."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    import numpy as np
    from torch.export import ExportedProgram

#: int8, w8a16: int8 weights, activations int8 or int16 with the scales of a program. w8, w4: weights alone, in linear
#: int8 or int4; lut8, lut6, lut4: weights alone, palettized to 256, 64 or 16 values; activations of these are float.
#: int8-dynamic, w4a8-dynamic: int8 or int4 weights, activations quantized to int8 while the file runs.
Precision = Literal[
    "fp32", "fp16", "int8", "w8a16", "int8-dynamic", "w4a8-dynamic", "w8", "w4", "lut8", "lut6", "lut4"
]  # fmt: skip
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
WEIGHT_ONLY: tuple[Precision, ...] = ("w8", "w4", "lut8", "lut6", "lut4")
DYNAMIC: tuple[Precision, ...] = ("int8-dynamic", "w4a8-dynamic")
#: Made from a QDQ program, whose scales they keep; all others are made from the float program.
STATIC: tuple[Precision, ...] = ("int8", "w8a16")

#: "device": reaching it, what it is allowed to do, its state and its disk.
Stage = Literal["probe", "convert", "inspect", "load", "run", "device"]


class TargetError(Exception):
    """A cell of the matrix that cannot go on: which stage stopped, and why.

    Args:
        stage: where it stopped.
        cause: what happened, the value seen, and what to do next, in one line.
    """

    def __init__(self, stage: Stage, cause: str):
        super().__init__(f"{stage}: {cause}")
        self.stage: Stage = stage
        self.cause = cause


class Unavailable(TargetError):
    """The job cannot be done on this machine at all (no runtime, no SDK): not a failure, never a pass."""


@dataclass(frozen=True)
class Capability:
    """Whether something can be done here; `reason` says why not and how to get it."""

    available: bool
    reason: str = ""

    def __post_init__(self) -> None:
        if not self.available and not self.reason:
            raise ValueError("an unavailable capability needs a reason")


@dataclass(frozen=True)
class Probe:
    """What a target can do on this machine. `run` has one entry for each of its runtimes."""

    convert: Capability
    run: Mapping[str, Capability]
    versions: Mapping[str, str]


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of an artifact as stored in the file."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class PackageOptions:
    """What may be asked of a written file beyond its precision. A target refuses what its format does not have.

    Attributes:
        image_input: the file takes an RGB picture of 0..255 and gives probabilities (targets.boundary); the
            preprocessing below is folded in.
        mean, std: of the preprocessing, one for each channel, of pixels in 0..1; needed for `image_input`.
        class_labels: one for each logit, in the file for the app to read.
        crop_pct, interpolation: how a picture is brought to the file's size, for the app to read: the crop keeps this
            share of the resized picture. Empty: not told.
        deployment_target: oldest system that the file is for ("iOS17"); empty: the target's default.
        float32_operators: types or names of operators that compute in float32 in a half precision file.
        signed_weights: int8 weights are stored signed, which some systems were reported to decode wrongly; else
            unsigned with zero point 128 and the same values (targets.coreml.encodings).
        author, license: of the model, where the format has room for them.
        group_size: input channels that share a scale in a precision with int4 weights in groups (targets.target);
            None: the target's default.
    """

    image_input: bool = False
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    class_labels: tuple[str, ...] = ()
    crop_pct: float | None = None
    interpolation: str = ""
    deployment_target: str = ""
    float32_operators: tuple[str, ...] = ()
    signed_weights: bool = False
    author: str = ""
    license: str = ""
    group_size: int | None = None

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or any(s <= 0 for s in self.std):
            raise ValueError(f"mean {self.mean} and std {self.std}: one of each for a channel, std above 0")
        if self.image_input and not self.mean:
            raise ValueError("an image input needs the mean and std that the model was trained with")


@dataclass(frozen=True)
class ConvertRequest:
    """One conversion.

    Attributes:
        program: QDQ program for a precision of STATIC, else float program, images [B, 3, H, W] -> logits [B, classes],
            with a dynamic batch dimension; the QDQ program has unfolded weights (float -> quantize -> dequantize).
        precision: of the artifact. Those of STATIC take the scales from the program and learn none of their own.
        output: file (or .mlpackage folder) to write; the caller moves it into place after it was run.
        metadata: provenance strings for the file where the format has room for them.
        options: what else the user asked for.
    """

    program: ExportedProgram
    precision: Precision
    output: Path
    metadata: Mapping[str, str] = field(default_factory=dict)
    options: PackageOptions = PackageOptions()


@dataclass(frozen=True)
class QuantParams:
    """Scale and zero point of one quantized tensor; more than one entry means per-channel."""

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]


@dataclass(frozen=True)
class FactsRecord:
    """What the written file holds, read from the file itself, as far as it is stored.

    Attributes:
        size_bytes: of the file, or of all files of an .mlpackage.
        inputs, outputs: as stored; dtype int8 where the converter quantized the boundary.
        operators: every operator by name with its count, inside and outside delegates.
        delegated: operators inside delegates; None where the format cannot tell before it runs.
        fallback: operators outside any delegate by name; None likewise.
        partitions: delegate partitions; None likewise.
        int8_weights, float_weights: trained constants that feed Linear, convolution and matmul operators; rows of a
            mean and one-hot kernels are not counted (targets.match.is_trained).
        float_weight_names: of `float_weights`, for the error message.
        operators_by_dtype: "conv fp16" -> count, where the format tells what an operator computes in; else empty.
        weights_by_dtype: trained constants by how they are stored ("int8", "int4", "fp16", "lut4"); empty if not told.
        cautions: what is documented or known to go wrong or slow with this file on a device, one sentence each.
    """

    size_bytes: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    operators: Mapping[str, int]
    delegated: int | None
    fallback: Mapping[str, int] | None
    partitions: int | None
    int8_weights: int
    float_weights: int
    float_weight_names: tuple[str, ...]
    operators_by_dtype: Mapping[str, int] = field(default_factory=dict)
    weights_by_dtype: Mapping[str, int] = field(default_factory=dict)
    cautions: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class GraphFacts(FactsRecord):
    """All that the file tells: also scale and zero point of every quantized tensor in it, weights and activations."""

    quant_params: tuple[QuantParams, ...]

    @property
    def stored(self) -> FactsRecord:
        return FactsRecord(**{field.name: getattr(self, field.name) for field in fields(FactsRecord)})


RangeKind = Literal["saturated", "overflowed", "nan", "vanished"]


@dataclass(frozen=True)
class RangeEvent:
    """Numbers of one operator that left the range of their format, over all images that a session saw.

    Attributes:
        operator, op_type: name and type in the file.
        kind: clipped by an integer format; beyond the largest finite number of half precision; not a number; or not
            zero before they were rounded to half precision, and zero after.
    """

    operator: str
    op_type: str
    kind: RangeKind
    count: int


@dataclass(frozen=True)
class Samples:
    """Times of single inferences in milliseconds, in order.

    Attributes:
        wall_ms: by the clock on the wall: the latency.
        cpu_ms: processor time of the same calls; None where it was not measured or the runtime computes elsewhere.
        per_sample: inferences that each of them is the mean of; more than 1 where a tool tells no single ones.
    """

    wall_ms: list[float]
    cpu_ms: list[float] | None
    per_sample: int = 1


@dataclass(frozen=True)
class QuantizedTensor:
    """One int8 activation of an artifact while one image goes through it; real value: (values - zero_point) x scale.

    Attributes:
        name: in the file; formats make up their own.
        values: int8, in the layout of the file. Of a format that stores unsigned values, these less 128, and so the
            zero point.
    """

    name: str
    scale: float
    zero_point: int
    values: np.ndarray

    def __post_init__(self) -> None:
        if self.values.dtype.str != "|i1":
            raise ValueError(f"tensor {self.name!r} is {self.values.dtype}, not int8")


class Session(ABC):
    """A loaded artifact; what only some runtimes can tell is None where they cannot.

    Attributes:
        load_ms: how long the runtime took to open it, without the import of its own modules, on the clock of the
            device where it runs; None for a reference.
    """

    load_ms: float | None

    @abstractmethod
    def infer(self, batch: np.ndarray) -> np.ndarray:
        """Images [N, ...] as the file takes them -> float32 [N, classes]; the runtime sees one image at a time.

        Logits where the file gives them, else its probabilities (targets.boundary.Boundary).

        Raises:
            TargetError: stage "run".
        """

    @abstractmethod
    def samples(self, batch: np.ndarray, n: int) -> Samples:
        """`n` inferences of single images of `batch` in turn: times of the runtime's call alone, in order.

        Processor time is told where inferences run on the threads of the session's own process.
        """

    def time(self, batch: np.ndarray, n: int) -> list[float]:
        """The milliseconds of `samples` by the clock on the wall."""
        return self.samples(batch, n).wall_ms

    def peak_bytes(self, image: np.ndarray) -> int | None:
        """Largest resident set of the session's process, above what it had with its runtime and before any file.

        Loading and the inference of `image`, float32 [1, 3, H, W], are in it. None where it is not measured: outside of
        a worker, on systems that cannot tell, or where the process has opened more than this file.
        """
        return None

    def range_events(self) -> tuple[RangeEvent, ...] | None:
        """Which operators left the range of their number format, over all images so far."""
        return None

    def quantized_tensors(self, image: np.ndarray) -> tuple[QuantizedTensor, ...] | None:
        """The int8 tensors inside of the artifact for one image [1, ...] as the file takes it.

        Raises:
            TargetError: stage "run".
        """
        return None

    @abstractmethod
    def close(self) -> None: ...


def check_threads(threads: int) -> None:
    """
    Raises:
        TargetError: stage "load", no thread at all.
    """
    if threads < 1:
        raise TargetError("load", f"threads is {threads}: at least 1 is needed")


def check_batch(batch: np.ndarray, size: Sequence[int], name: str, is_open: bool, dtype: str = "float32") -> None:
    """
    Args:
        size: of one image as the artifact takes it: (3, H, W), or (H, W, 3).
        name: of the artifact.
        is_open: whether its session is.

    Raises:
        TargetError: stage "run", the session is closed or the images are not of this size and dtype.
    """
    if not is_open:
        raise TargetError("run", f"{name}: the session is closed")
    if batch.dtype != dtype or not batch.dtype.isnative or not len(batch) or batch.shape[1:] != tuple(size):
        inside = " (RGB pixels of 0 to 255; it normalises them itself)" if dtype == "uint8" else ""
        raise TargetError(
            "run", f"{name} takes {dtype} images of {list(size)}{inside}, not {batch.dtype} {list(batch.shape)}"
        )


class Stopwatch:
    """Times one call after the other.

    Processor time is that of all threads of the process. Where other programs want the same processor, a call waits for
    its turn: that is in the time on the wall, and not in this one.
    """

    def __init__(self) -> None:
        self._wall_ms: list[float] = []
        self._cpu_ms: list[float] = []

    def run(self, call: Callable[[], object]) -> None:
        cpu_ns, start_ns = time.process_time_ns(), time.perf_counter_ns()
        call()
        wall_ns, end_ns = time.perf_counter_ns() - start_ns, time.process_time_ns()
        self._wall_ms.append(wall_ns / 1e6)
        self._cpu_ms.append((end_ns - cpu_ns) / 1e6)

    @property
    def samples(self) -> Samples:
        """Without processor time where its clock is too coarse for one of the calls."""
        return Samples(self._wall_ms, self._cpu_ms if all(ms > 0 for ms in self._cpu_ms) else None)
