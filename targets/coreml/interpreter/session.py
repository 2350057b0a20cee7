"""Run a package in the reference interpreter under one rounding model, as a session."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch

from targets.coreml.interpreter.arithmetic import ROUNDINGS, RangeCounts, Rounding
from targets.coreml.interpreter.program import MilProgram, load_program
from targets.coreml.package import OUTPUT, read
from targets.coreml.session import CoreMLSession, PackageInput
from targets.coreml.units import REFERENCE_PREFIX
from targets.types import QuantizedTensor, RangeEvent, Samples, TargetError, Unavailable


def load(path: Path, runtime: str, threads: int) -> ReferenceSession:
    """Open the package at `path` for `runtime`, one of `targets.coreml.units.SIMULATED`.

    Raises:
        TargetError: stage "load".
    """
    torch.set_num_threads(threads)
    rounding = {REFERENCE_PREFIX + model.name: model for model in ROUNDINGS}[runtime]
    program = load_program(path)
    try:
        return ReferenceSession(program, _takes(program), rounding)
    except ValueError as error:
        raise TargetError("load", f"{path.name} cannot be fed: {error}") from error


class ReferenceSession(CoreMLSession):
    """The session of Core ML with the reference behind it, under one rounding model."""

    def __init__(self, program: MilProgram, takes: PackageInput, rounding: Rounding):
        self._ranges = RangeCounts()
        self._program, self._rounding = program, rounding
        super().__init__(partial(program.predict, rounding=rounding, ranges=self._ranges), takes, program.name)

    def samples(self, batch: np.ndarray, n: int) -> Samples:
        raise Unavailable("run", "the MIL reference has no latency: what it takes says nothing of a device")

    def range_events(self) -> tuple[RangeEvent, ...]:
        """Of all images so far, in the order of the program."""
        counts = self._ranges.counts.items()
        return tuple(RangeEvent(name, op_type, kind, count) for (name, op_type, kind), count in counts)

    def quantized_tensors(self, image: np.ndarray) -> tuple[QuantizedTensor, ...]:
        """What the package's quantize operators give."""
        (value,) = self._values(image)
        shown: list[QuantizedTensor] = []
        self._program.predict({self._takes.name: value}, self._rounding, shown=shown)
        return tuple(shown)


def _takes(program: MilProgram) -> PackageInput:
    """
    Raises:
        ValueError: the program does not go from one image to logits.
    """
    if len(program.inputs) != 1 or OUTPUT not in program.outputs:
        names = [value.name for value in program.inputs]
        raise ValueError(
            f"it has inputs {names} and outputs {list(program.outputs)}, not one image and {OUTPUT!r}: convert it with "
            "this program"
        )
    (image,) = program.inputs
    shape = tuple(int(n or 0) for n in image.shape)  # a dimension that is not fixed is refused as 0
    return PackageInput(image.name, shape, read(program.metadata))
