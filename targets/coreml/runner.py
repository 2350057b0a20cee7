"""An `.mlpackage` in, a session of Apple's Core ML out, on a Mac; elsewhere there is no Core ML runtime."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from targets.coreml.convert import INPUT, OUTPUT, unavailable_reason
from targets.types import Session, TargetError, Unavailable

RUNTIME = "coreml"


def run_unavailable_reason() -> str:
    """Why nothing can be run here; empty on a Mac with coremltools."""
    if sys.platform != "darwin":
        return f"no Core ML runtime on {sys.platform}: take the .mlpackage to a Mac, and run validate there"
    return unavailable_reason()


def load(path: Path, runtime: str, threads: int) -> Session:
    """Compile and load the package; Core ML chooses its own threads and units.

    Raises:
        Unavailable: not a Mac.
        TargetError: stage "load".
    """
    if runtime != RUNTIME:
        raise Unavailable("load", f"the coreml target has no runtime {runtime!r} (known: {RUNTIME})")
    if threads < 1:
        raise TargetError("load", f"threads is {threads}: at least 1 is needed")
    if not path.is_dir():
        raise TargetError("load", f"{path} does not exist: convert the model first")
    if reason := run_unavailable_reason():
        raise Unavailable("load", reason)
    import coremltools as ct

    try:
        return CoreMLSession(ct.models.MLModel(str(path), compute_units=ct.ComputeUnit.ALL), path.name)
    except Exception as error:  # the framework's errors come as RuntimeError, OSError and its own
        raise TargetError("load", f"Core ML refuses {path.name}: {error}") from error


class CoreMLSession:
    """A loaded package; never run by the authors, who have no Mac: see docs/limits.md."""

    # Any: coremltools is untyped.
    def __init__(self, model: Any, name: str):
        self._model = model
        self._name = name

    def infer(self, batch: np.ndarray) -> np.ndarray:
        return np.concatenate([self._predict(image[None]) for image in batch])

    def time(self, batch: np.ndarray, n: int) -> list[float]:
        """Includes the copy of the image into and of the logits out of Core ML: `predict` does not part them."""
        samples_ms = []
        for i in range(n):
            image = np.ascontiguousarray(batch[i % len(batch)][None])
            start_ns = time.perf_counter_ns()
            self._predict(image)
            samples_ms.append((time.perf_counter_ns() - start_ns) / 1e6)
        return samples_ms

    def close(self) -> None:
        self._model = None

    def _predict(self, image: np.ndarray) -> np.ndarray:
        if self._model is None:
            raise TargetError("run", f"{self._name}: the session is closed")
        try:
            logits = self._model.predict({INPUT: image.astype(np.float32)})[OUTPUT]
        except Exception as error:
            raise TargetError("run", f"{self._name}: {error}") from error
        return np.asarray(logits, dtype=np.float32)
