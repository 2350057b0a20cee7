"""What is recorded of one artifact in one runtime: counts and samples, frozen; impossible combinations are refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pipeline.metrics.latency import RoundRatios, round_ratios
from pipeline.metrics.throttling import Throttling, throttling
from pipeline.records.keys import CellKey, Outcome, check_sha256
from targets.devices.device import InstructionCount
from targets.target import ComputePlan
from targets.worker.facts import Conditions, DeviceFacts

Rounds = tuple[tuple[float, ...], ...]  # samples in ms, by interleaved round


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
        _check_rounds(self.rounds_ms, self.cpu_rounds_ms)
        _check_beside("control", self.control, self.control_rounds_ms, self.control_cpu_rounds_ms, self.rounds_ms)
        _check_beside("float", self.float_key, self.float_rounds_ms, self.float_cpu_rounds_ms, self.rounds_ms)
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


def _check_beside(what: str, key: CellKey | None, wall: Rounds | None, cpu: Rounds | None, own: Rounds | None) -> None:
    """Rounds of another artifact that were measured in turn with the own ones."""
    if (key is None) != (wall is None):
        raise ValueError(f"a {what} and its rounds_ms come together")
    _check_rounds(wall, cpu)
    if wall is not None and len(wall) != len(own or ()):
        raise ValueError(f"{_brief(own)} beside {_brief(wall)} of the {what}")


def _check_rounds(wall: Rounds | None, cpu: Rounds | None) -> None:
    """Processor time is that of the very inferences that were timed."""
    for rounds in (wall, cpu):
        if rounds is not None and (not rounds or not all(rounds)):
            raise ValueError("rounds_ms is empty or has an empty round: what was not measured is None")
        if rounds is not None and not all(math.isfinite(ms) and ms > 0 for samples in rounds for ms in samples):
            raise ValueError("rounds_ms has a sample that is no positive time")
    if cpu is not None and list(map(len, cpu)) != list(map(len, wall or ())):
        raise ValueError(f"{_brief(wall)} beside {_brief(cpu)} of processor time: they are of other inferences")


def _conditions(key: CellKey) -> tuple[str, str, str, str]:
    return key.target, key.runtime, key.precision, key.device


def _brief(rounds: Rounds | None) -> str:
    return "None" if rounds is None else f"{len(rounds)} rounds"


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
