"""Run an `.mlpackage` in Apple's Core ML, on a Mac; elsewhere there is no Core ML runtime.

Written after coremltools' documentation and source, and never run on a Mac by the authors: docs/coreml-on-a-mac.md.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from targets.coreml import units
from targets.coreml.convert import unavailable_reason
from targets.coreml.package import check_seal, missing
from targets.coreml.session import CoreMLSession, read_input
from targets.sdk import one_line, quieted
from targets.types import Session, TargetError, Unavailable, check_threads

RUNTIME = units.RUNTIMES[units.ALL]


def run_unavailable_reason() -> str:
    """Why nothing can be run here; empty on a Mac with coremltools."""
    if sys.platform != "darwin":
        return f"no Core ML runtime on {sys.platform}: take the .mlpackage to a Mac, and run validate there"
    return unavailable_reason()


def load(path: Path, runtime: str, threads: int) -> Session:
    """Compile and load the package for the units that `runtime` stands for; Core ML chooses its own threads.

    A simulated runtime is the reference interpreter.

    Raises:
        Unavailable: no such runtime, or not a Mac.
        TargetError: stage "load".
    """
    choice = next((choice for choice, name in units.RUNTIMES.items() if name == runtime), None)
    if choice is None and runtime not in units.SIMULATED:
        known = ", ".join(units.RUNTIMES.values())
        raise Unavailable("load", f"the coreml target has no runtime {runtime!r} (known: {known})")
    check_threads(threads)
    if reason := missing(path):
        raise TargetError("load", reason)
    if choice is None:
        from targets.coreml.interpreter import session

        return session.load(path, runtime, threads)
    if reason := run_unavailable_reason():
        raise Unavailable("load", reason)
    try:
        check_seal(path)
    except ValueError as error:
        raise TargetError("load", str(error)) from error
    model, load_ms = compiled(path, choice)
    try:
        return CoreMLSession(model.predict, read_input(model.get_spec()), path.name, load_ms)
    except ValueError as error:
        raise TargetError("load", f"{path.name} cannot be fed: {error}") from error


# Any: coremltools is untyped.
def compiled(path: Path, choice: str) -> tuple[Any, float]:
    """coremltools' MLModel, compiled and loaded for the chosen units, and the milliseconds that took.

    Raises:
        TargetError: stage "load", Core ML refuses the package.
    """
    import coremltools as ct

    start_ns = time.perf_counter_ns()
    try:
        with quieted():
            model = ct.models.MLModel(str(path), compute_units=units.compute_unit(choice))
    except Exception as error:  # the framework's errors come as RuntimeError, OSError and its own
        raise TargetError("load", f"Core ML refuses {path.name}: {one_line(error)}") from error
    load_ms = (time.perf_counter_ns() - start_ns) / 1e6
    # coremltools turns a refusal into a warning, and an unloaded model whose every prediction fails.
    if model.__proxy__ is None:
        version = model.get_spec().specificationVersion
        why = model._framework_error or f"this system is older than its specification version {version}"
        raise TargetError("load", f"Core ML refuses {path.name}: {one_line(why)}")
    return model, load_ms
