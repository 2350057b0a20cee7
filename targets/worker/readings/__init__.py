"""What the machine that this runs on is, and the state that it is in now; the worker reads it on a device."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace

from targets import registry
from targets.sdk import installed
from targets.types import Capability, TargetError
from targets.worker.facts import Conditions, DeviceFacts
from targets.worker.readings import linux, mac

#: What decides a result on a device; the converters' own packages do not.
PACKAGES = ("numpy", "ai-edge-litert", "tensorflow", "executorch", "torch", "coremltools")


def facts() -> DeviceFacts:
    """Model, chip, system, cores and runtimes; what is not known is "unknown" or None. Imports the runtimes."""
    machine = mac.facts() if sys.platform == "darwin" else linux.facts()
    versions = {"python": platform.python_version(), **installed(*PACKAGES)}
    return replace(machine, runtimes=runtimes(), versions=versions)


def runtimes() -> Mapping[str, Capability]:
    """ "tflite litert" -> whether it works here. Imports every SDK that is installed, which takes seconds."""
    return {
        f"{name} {runtime}": capability
        for name in registry.variants()
        for runtime, capability in registry.get(name).probe().run.items()
    }


def conditions() -> Conditions:
    """Its temperature, battery, governors and load now; what it does not tell is None."""
    return mac.conditions() if sys.platform == "darwin" else linux.conditions()


def bind(cpus: Sequence[int]) -> None:
    """Bind this process, and the threads that it starts from now on, to these cores.

    Raises:
        TargetError: stage "device", the system cannot, or has no such core.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise TargetError("device", f"{sys.platform} cannot bind a process to cores: leave --cpus out")
    usable = sorted(os.sched_getaffinity(0))
    if missing := sorted(set(cpus) - set(usable)):
        raise TargetError("device", f"no core {missing[0]} there: usable are {', '.join(map(str, usable))}")
    os.sched_setaffinity(0, cpus)
