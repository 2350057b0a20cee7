"""Run a `.pte` file for Core ML in ExecuTorch's own Python runtime, on a Mac whose build has the backend.

ExecuTorch's wheel for macOS links the Core ML backend, that for Linux does not. Never run by the authors, who have no
Mac: docs/coreml-on-a-mac.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

from targets.executorch import runner as executorch
from targets.types import Session, TargetError, Unavailable

RUNTIME = "executorch-coreml"
BACKEND = "CoreMLBackend"


def unavailable_reason() -> str:
    """Why the runtime cannot be used here; empty where it can."""
    if sys.platform != "darwin":
        return f"no Core ML runtime on {sys.platform}: take the .pte file to a Mac, and run validate there"
    return executorch.unavailable_reason(BACKEND)


def load(path: Path, runtime: str, threads: int) -> Session:
    """Open the file; Core ML compiles the model in it, and chooses its own threads.

    Raises:
        Unavailable: not this runtime, or not here.
        TargetError: stage "load", the runtime refuses the file.
    """
    if runtime != RUNTIME:
        raise Unavailable("load", f"the executorch-coreml target has no runtime {runtime!r} (known: {RUNTIME})")
    if not path.is_file():
        raise TargetError("load", f"{path} does not exist: convert the model first")
    if reason := unavailable_reason():
        raise Unavailable("load", reason)
    return executorch.open_session(path, threads, own_threads=False)
