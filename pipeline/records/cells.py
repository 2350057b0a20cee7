"""What is recorded of one artifact in one runtime: counts and samples, frozen; impossible combinations are refused."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Literal, get_args

from pipeline.metrics.accuracy import Accuracy
from pipeline.metrics.drift import Drift
from pipeline.metrics.latency import RoundRatios, round_ratios
from pipeline.metrics.throttling import Throttling, throttling
from targets.compute_plan import ComputePlan
from targets.devices.device import InstructionCount
from targets.types import PRECISIONS, STATIC, GraphFacts, Precision, RangeEvent, TargetError, TensorSpec, Unavailable
from targets.worker.facts import Conditions, DeviceFacts

Source = Literal["float", "ptq", "qat"]  # float program; int8 scales from calibration alone; int8 trained scales
SOURCES: tuple[Source, ...] = get_args(Source)
StageName = Literal["float", "fake_quant", "qdq"]
STAGES: tuple[StageName, ...] = get_args(StageName)
Rounds = tuple[tuple[float, ...], ...]  # samples in ms, by interleaved round
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
        if self.status not in ("ok", "unavailable", "failed"):
            raise ValueError(f"status {self.status!r} is not one of ok, unavailable, failed")
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


@dataclass(frozen=True)
class CellKey:
    """Which model, in which file, in which runtime, where. Hashable: records of one cell are joined by it."""

    model: str
    target: str
    runtime: str
    precision: Precision
    source: Source
    device: str

    def __post_init__(self) -> None:
        _check_precision(self.precision, self.source)

    @property
    def simulated(self) -> bool:
        """Whether this is no measurement of a runtime; `runtime` is then a rounding model of the reference."""
        return self.device == SIMULATED

    @property
    def label(self) -> str:
        """For a line of text: "tflite litert int8", "executorch int8 on adb:0A1B", "coreml cpu int8, simulated ..."."""
        source = " ptq" if self.source == "ptq" else ""
        place = self.target if self.runtime == self.target else f"{self.target} {self.runtime}"
        where = {HOST: "", SIMULATED: f", {SIMULATED}"}.get(self.device, f" on {self.device}")
        return f"{place} {self.precision}{source}{where}"


@dataclass(frozen=True)
class FactsRecord:
    """`targets.types.GraphFacts` without its quantization parameters; see there for the fields."""

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

    @classmethod
    def of(cls, facts: GraphFacts) -> FactsRecord:
        return cls(
            size_bytes=facts.size_bytes,
            inputs=facts.inputs,
            outputs=facts.outputs,
            operators=dict(facts.operators),
            delegated=facts.delegated,
            fallback=None if facts.fallback is None else dict(facts.fallback),
            partitions=facts.partitions,
            int8_weights=facts.int8_weights,
            float_weights=facts.float_weights,
            float_weight_names=facts.float_weight_names,
            operators_by_dtype=dict(facts.operators_by_dtype),
            weights_by_dtype=dict(facts.weights_by_dtype),
            cautions=facts.cautions,
        )


@dataclass(frozen=True)
class ConversionRecord:
    """One artifact.

    Attributes:
        path: relative to the run folder.
        scales_total, scales_found, scales_missing: trained scales of the program, how many are in the file, and the
            tensors whose scales are not. None where the program has none (float) or the file was not read.
        load_check: what the run in a fresh process before publication said.
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

    def __post_init__(self) -> None:
        _check_precision(self.precision, self.source)
        _check_seconds(self.seconds)
        if self.path is not None:
            _check_relative(self.path)
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


@dataclass(frozen=True)
class StageRecord:
    """Accuracy of one stage in PyTorch; `drift` is against the float stage, None for that stage itself."""

    stage: StageName
    accuracy: Accuracy
    drift: Drift | None

    def __post_init__(self) -> None:
        if self.stage == "float" and self.drift is not None:
            raise ValueError("the float stage is what drift is measured against, it has none itself")
        _check_same_n(self.accuracy, self.drift)


@dataclass(frozen=True)
class ValidationRecord:
    """One artifact in one runtime on the validation images; drift against the float and against the QDQ stage.

    Attributes:
        range_events: which operators left the range of their number format, in the order of the program; None where
            the runtime does not tell.
        device: what the device of `key` is; None for the host.
    """

    key: CellKey
    outcome: Outcome
    accuracy: Accuracy | None
    drift_float: Drift | None
    drift_qdq: Drift | None
    seconds: float | None
    range_events: tuple[RangeEvent, ...] | None = None
    device: DeviceFacts | None = None

    def __post_init__(self) -> None:
        _check_seconds(self.seconds)
        if (self.outcome.status == "ok") != (self.accuracy is not None):
            raise ValueError(f"a validation that is {self.outcome.status} with accuracy {self.accuracy}")
        if self.accuracy is None and (self.drift_float or self.drift_qdq):
            raise ValueError("drift without accuracy: both come from the same logits")
        _check_same_n(self.accuracy, self.drift_float, self.drift_qdq)


@dataclass(frozen=True)
class LatencyRecord:
    """Raw samples of one artifact in one runtime, and of the control in the same interleaved rounds.

    Attributes:
        threads: of the runtime; 1 sample is 1 image.
        warmup_ms: samples before the rounds, kept apart from them.
        rounds_ms: None where nothing was measured.
        control: None where there is none; `control_note` then says why.
        control_rounds_ms: as many rounds as `rounds_ms`; None without a control.
        processes: fresh worker processes that the rounds are spread over, equally many in each and in order.
        float_key: the float32 artifact of the same model in the same runtime, timed in the same rounds; None where
            the run has none, or the artifact is not int8.
        float_rounds_ms: as many rounds as `rounds_ms`; None without `float_key`; `float_note` then says why.
        host: the machine (pipeline.run.provenance.host); empty in records of older versions.
        cpu_rounds_ms, control_cpu_rounds_ms, float_cpu_rounds_ms: processor time of the same inferences, for one
            thread only: it leaves out what waiting for a busy processor adds. None where it was not measured.
        sha256: of the artifact that was timed; None in records of older versions.
        device: what the device of `key` is; None for the host, which `host` describes.
        conditions: of the device before each process and after the last one; empty where nothing was read.
        cpus: cores that inferences were bound to; empty: not bound.
        load_ms: of opening the file as the first one of a fresh process, one for each; empty where it was not measured.
        steady: whether every warm-up ended because its time was steady; None where that was not looked at.
        inferences_per_sample: each sample is their mean, where a tool of a device tells no single ones.
    """

    key: CellKey
    outcome: Outcome
    threads: int
    warmup_ms: tuple[float, ...]
    rounds_ms: Rounds | None
    control: CellKey | None
    control_rounds_ms: Rounds | None
    control_note: str
    processes: int = 1
    float_key: CellKey | None = None
    float_rounds_ms: Rounds | None = None
    float_note: str = ""
    host: Mapping[str, str] = field(default_factory=dict)
    cpu_rounds_ms: Rounds | None = None
    control_cpu_rounds_ms: Rounds | None = None
    float_cpu_rounds_ms: Rounds | None = None
    sha256: str | None = None
    device: DeviceFacts | None = None
    conditions: tuple[Conditions, ...] = ()
    cpus: tuple[int, ...] = ()
    load_ms: tuple[float, ...] = ()
    steady: bool | None = None
    inferences_per_sample: int = 1

    @property
    def throttling(self) -> Throttling | None:
        """Whether all files that took turns became slower, by the clock on the wall; None below its fewest rounds."""
        if self.rounds_ms is None:
            return None
        beside = (self.control_rounds_ms, self.float_rounds_ms)
        return throttling([self.rounds_ms, *(rounds for rounds in beside if rounds is not None)])

    @property
    def to_control(self) -> RoundRatios | None:
        """Ratios to the control by round, of processor time where both have it; None without a control."""
        return self._ratios(self.control_rounds_ms, self.control_cpu_rounds_ms)

    @property
    def to_float(self) -> RoundRatios | None:
        """Likewise to the float32 file."""
        return self._ratios(self.float_rounds_ms, self.float_cpu_rounds_ms)

    def _ratios(self, wall_ms: Rounds | None, cpu_ms: Rounds | None) -> RoundRatios | None:
        if self.cpu_rounds_ms is not None and cpu_ms is not None:
            return round_ratios(self.cpu_rounds_ms, cpu_ms, self.processes)
        if self.rounds_ms is not None and wall_ms is not None:
            return round_ratios(self.rounds_ms, wall_ms, self.processes)
        return None

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ValueError(f"{self.threads} threads")
        if self.device is not None and self.device.emulated and self.rounds_ms is not None:
            raise ValueError(f"{self.key.label}: emulated instructions have no latency")
        if self.inferences_per_sample < 1 or not all(math.isfinite(ms) and ms > 0 for ms in self.load_ms):
            raise ValueError(f"{self.inferences_per_sample} inferences a sample, load_ms {self.load_ms}")
        if self.key.simulated or (self.control is not None and self.control.simulated):
            raise ValueError(f"{self.key.label}: a simulation has no latency")
        if (self.outcome.status == "ok") != (self.rounds_ms is not None):
            raise ValueError(f"a latency that is {self.outcome.status} with rounds_ms {_brief(self.rounds_ms)}")
        _check_rounds(self.rounds_ms)
        _check_cpu(self.rounds_ms, self.cpu_rounds_ms)
        _check_cpu(self.control_rounds_ms, self.control_cpu_rounds_ms)
        _check_cpu(self.float_rounds_ms, self.float_cpu_rounds_ms)
        _check_beside("control", self.control, self.control_rounds_ms, self.rounds_ms)
        _check_beside("float", self.float_key, self.float_rounds_ms, self.rounds_ms)
        if self.processes < 1 or (self.rounds_ms is not None and len(self.rounds_ms) % self.processes):
            raise ValueError(f"{_brief(self.rounds_ms)} do not spread evenly over {self.processes} processes")
        if self.rounds_ms is not None and self.control is None and not self.control_note:
            raise ValueError("a latency without a control needs a control_note that says why")
        if self.control is not None and _conditions(self.control) != _conditions(self.key):
            raise ValueError(f"control {self.control} was measured under other conditions than {self.key}")
        if self.float_key is not None:
            wanted = replace(self.key, precision="fp32", source="float")
            if self.key.precision != "int8" or self.float_key != wanted:
                raise ValueError(f"float artifact {self.float_key} beside {self.key}: int8 is timed beside {wanted}")


def _check_beside(what: str, key: CellKey | None, rounds: Rounds | None, own: Rounds | None) -> None:
    """Rounds of another artifact that were measured in turn with the own ones."""
    if (key is None) != (rounds is None):
        raise ValueError(f"a {what} and its rounds_ms come together")
    _check_rounds(rounds)
    if rounds is not None and len(rounds) != len(own or ()):
        raise ValueError(f"{_brief(own)} beside {_brief(rounds)} of the {what}")


def _check_cpu(wall: Rounds | None, cpu: Rounds | None) -> None:
    """Processor time is that of the very inferences that were timed."""
    _check_rounds(cpu)
    if cpu is not None and [len(samples) for samples in cpu] != [len(samples) for samples in wall or ()]:
        raise ValueError(f"{_brief(wall)} beside {_brief(cpu)} of processor time: they are of other inferences")


def _check_rounds(rounds: Rounds | None) -> None:
    if rounds is not None and (not rounds or not all(rounds)):
        raise ValueError("rounds_ms is empty or has an empty round: what was not measured is None")
    if rounds is not None and not all(math.isfinite(ms) and ms > 0 for samples in rounds for ms in samples):
        raise ValueError("rounds_ms has a sample that is no positive time")


def _check_precision(precision: str, source: str) -> None:
    if precision not in PRECISIONS or source not in SOURCES:
        raise ValueError(f"precision {precision!r}, source {source!r}: known are {PRECISIONS} and {SOURCES}")
    if (precision in STATIC) == (source == "float"):
        static = ", ".join(STATIC)
        raise ValueError(f"precision {precision} from source {source}: {static} are qat or ptq, the others are float")


def _check_seconds(seconds: float | None) -> None:
    if seconds is not None and not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError(f"{seconds} seconds")


def _check_relative(path: str) -> None:
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts or "\\" in path:
        raise ValueError(f"path {path!r} is not inside the run folder")


def _check_same_n(accuracy: Accuracy | None, *drifts: Drift | None) -> None:
    counts = {r.n for r in (accuracy, *drifts) if r is not None}
    if len(counts) > 1:
        raise ValueError(f"accuracy and drift over different numbers of images: {sorted(counts)}")


def _conditions(key: CellKey) -> tuple[str, str, str, str]:
    return key.target, key.runtime, key.precision, key.device


def _brief(rounds: Rounds | None) -> str:
    return "None" if rounds is None else f"{len(rounds)} rounds"


def check_sha256(digest: str) -> None:
    """Refuse what is not 64 hex digits."""
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise ValueError(f"sha256 {digest!r} is not 64 hex digits")


@dataclass(frozen=True)
class InstructionRecord:
    """`count` is None where nothing was counted; the outcome then says why. `sha256` is of the file."""

    key: CellKey
    outcome: Outcome
    sha256: str
    count: InstructionCount | None

    def __post_init__(self) -> None:
        check_sha256(self.sha256)
        if (self.outcome.status == "ok") != (self.count is not None):
            raise ValueError(f"a count that is {self.outcome.status}: {self.count}")
        if self.key.simulated:
            raise ValueError(f"{self.key.label}: a simulation executes nothing of a device")


@dataclass(frozen=True)
class PlanRecord:
    """`plan` is None where none could be read; the outcome then says why."""

    key: CellKey
    outcome: Outcome
    plan: ComputePlan | None

    def __post_init__(self) -> None:
        if (self.outcome.status == "ok") != (self.plan is not None):
            raise ValueError(
                f"a compute plan that is {self.outcome.status} {'with' if self.plan else 'without'} a plan"
            )
