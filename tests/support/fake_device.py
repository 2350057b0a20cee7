"""Stands for a device in tests of the stages: faults come where the test wants them, nothing is reached for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from fake_workers import FakeWorkers

from pipeline.stages.devices import EntryLimits, Place
from targets.devices.address import Address, parse
from targets.types import TargetError
from targets.worker.facts import Conditions, DeviceFacts

FACTS = DeviceFacts("Made-up phone", "Made-up chip", "Android 0 aarch64", 8, vector_extensions=("asimddp",))


@dataclass
class FakeDevice:
    """A phone that runs tflite files in litert and executorch files.

    Attributes:
        states: what `conditions` answers, one after the other; the last one again and again.
        logits: what each image answers with, by the name of the file: [N, 3, H, W] -> [N, classes].
        unplugged: after so many workers every call fails.
    """

    address: Address = field(default_factory=lambda: parse("adb:MADEUP"))
    times: bool = True
    known: DeviceFacts = FACTS
    states: list[Conditions] = field(default_factory=lambda: [Conditions(temperature_c=30.0)])
    logits: Callable[[np.ndarray], np.ndarray] | None = None
    unplugged: int | None = None
    workers: FakeWorkers = field(default_factory=FakeWorkers)
    closed: bool = False

    def facts(self) -> DeviceFacts:
        self._reach()
        return self.known

    def conditions(self) -> Conditions:
        self._reach()
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]

    def runtimes(self, target: str, compute_units: str) -> tuple[str, ...]:
        return {"tflite": ("litert",), "executorch": ("executorch",)}.get(target, ())

    def worker(self) -> Any:
        worker = self.workers()
        return worker if self.logits is None else _Answering(self, worker)

    def close(self) -> None:
        self.closed = True

    def _reach(self) -> None:
        if self.unplugged is not None and self.workers.processes >= self.unplugged:
            raise TargetError("device", "adb:MADEUP is not there: is it unplugged?")


@dataclass
class _Answering:
    device: FakeDevice
    inner: FakeWorkers

    def __enter__(self) -> _Answering:
        return self

    def __exit__(self, *error: object) -> None: ...

    def open(self, target: str, path: Path, runtime: str, threads: int) -> Any:
        self.device._reach()
        return _AnsweringSession(self.device)


@dataclass
class _AnsweringSession:
    device: FakeDevice
    load_ms: float | None = None

    def infer(self, batch: np.ndarray) -> np.ndarray:
        self.device._reach()
        assert self.device.logits is not None
        return self.device.logits(batch)

    def peak_bytes(self, image: np.ndarray) -> None:
        return None

    def range_events(self) -> None:
        return None


def place(device: FakeDevice, limits: EntryLimits | None = None, cpus: tuple[int, ...] = ()) -> Place:
    return Place(device, cpus, limits or EntryLimits(42.0, 0.0), lambda line: None)
