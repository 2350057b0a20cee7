"""A package and a rounding model in, a session that computes its logits on this machine out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from targets.coreml.interpreter.arithmetic import ROUNDINGS, RangeCounts, Rounding
from targets.coreml.interpreter.program import MilProgram, load_program
from targets.coreml.names import OUTPUT, REFERENCE_PREFIX
from targets.coreml.package import missing
from targets.coreml.preprocess import read
from targets.coreml.session import CoreMLSession, PackageInput
from targets.types import QuantizedTensor, RangeEvent, TargetError, Unavailable


def load(path: Path, runtime: str, threads: int) -> ReferenceSession:
    """Open the package for `runtime`, one of `targets.coreml.names.SIMULATED`.

    Raises:
        TargetError: stage "load".
    """
    if threads < 1:
        raise TargetError("load", f"threads is {threads}: at least 1 is needed")
    if reason := missing(path):
        raise TargetError("load", reason)
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
        super().__init__(_Rounded(program, rounding, self._ranges), takes, program.name)

    def time(self, batch: np.ndarray, n: int) -> list[float]:
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


class _Rounded:
    """A program under one rounding model, with Core ML's `predict`."""

    def __init__(self, program: MilProgram, rounding: Rounding, ranges: RangeCounts):
        self._program, self._rounding, self._ranges = program, rounding, ranges

    def predict(self, data: dict[str, Any]) -> Mapping[str, Any]:
        return self._program.predict(data, self._rounding, self._ranges)


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
    folded = read(program.metadata)
    shape = tuple(int(n or 0) for n in image.shape)  # a dimension that is not fixed is refused as 0
    return PackageInput(image.name, shape, *((folded.mean, folded.std) if folded else ()))
