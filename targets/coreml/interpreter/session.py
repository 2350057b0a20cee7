"""A package and a rounding model in, a session that computes its logits on this machine out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from targets.coreml.interpreter.program import MilProgram, load_program
from targets.coreml.interpreter.rounding import ROUNDINGS, RangeCounts, Rounding
from targets.coreml.names import OUTPUT, REFERENCE_PREFIX
from targets.types import RangeEvent, TargetError, Unavailable


def load(path: Path, runtime: str, threads: int) -> ReferenceSession:
    """Open the package for `runtime`, one of `targets.coreml.names.SIMULATED`.

    Raises:
        TargetError: stage "load".
    """
    if threads < 1:
        raise TargetError("load", f"threads is {threads}: at least 1 is needed")
    if not path.is_dir():
        what = "is a file, not a package folder" if path.exists() else "does not exist"
        raise TargetError("load", f"{path.name} {what}: convert the model first")
    torch.set_num_threads(threads)
    rounding = {REFERENCE_PREFIX + model.name: model for model in ROUNDINGS}[runtime]
    return ReferenceSession(load_program(path), rounding)


class ReferenceSession:
    """A loaded program, [1, 3, H, W] -> [1, classes], under one rounding model."""

    def __init__(self, program: MilProgram, rounding: Rounding):
        if len(program.inputs) != 1 or OUTPUT not in program.outputs:
            wanted = f"one input and an output called {OUTPUT}"
            names = [value.name for value in program.inputs]
            raise TargetError("load", f"{program.name} has inputs {names} and outputs {program.outputs}, not {wanted}")
        self._program: MilProgram | None = program
        self._name = program.name
        self._rounding = rounding
        self._ranges = RangeCounts()

    def infer(self, batch: np.ndarray) -> np.ndarray:
        program = self._open()
        (image,) = program.inputs
        if batch.dtype != np.float32 or not len(batch) or batch.shape[1:] != image.shape[1:]:
            raise TargetError(
                "run",
                f"{self._name} takes float32 images of {list(image.shape[1:])}, not {batch.dtype} {list(batch.shape)}",
            )
        return np.concatenate([self._logits(program, image.name, picture[None]) for picture in self._pixels(batch)])

    def time(self, batch: np.ndarray, n: int) -> list[float]:
        raise Unavailable("run", "the MIL reference has no latency: what it takes says nothing of a device")

    def range_events(self) -> tuple[RangeEvent, ...]:
        """Of all images so far, in the order of the program."""
        counts = self._ranges.counts.items()
        return tuple(RangeEvent(name, op_type, kind, count) for (name, op_type, kind), count in counts)

    def close(self) -> None:
        self._program = None

    def _logits(self, program: MilProgram, name: str, image: np.ndarray) -> np.ndarray:
        return np.asarray(program.run({name: image}, self._rounding, self._ranges)[OUTPUT], dtype=np.float32)

    def _pixels(self, batch: np.ndarray) -> np.ndarray:
        """What the file takes: normalised images, or the pixels of 0 to 255 that they were made of."""
        from targets.coreml.preprocess import pixels, read

        folded = read(self._open().metadata)
        return batch if folded is None else pixels(batch, folded.mean, folded.std).astype(np.float32)

    def _open(self) -> MilProgram:
        if self._program is None:
            raise TargetError("run", f"{self._name}: the session is closed")
        return self._program
