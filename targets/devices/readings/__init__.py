"""Nothing in; what this machine is, and the state that it is in, out. The worker reads it on the device it runs on."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from targets.devices.facts import Conditions, DeviceFacts
from targets.types import TargetError


def facts() -> DeviceFacts:
    """Model, chip, system, cores and runtimes of this machine; what it does not tell is "unknown" or None."""
    from targets.devices.readings import linux, mac

    return mac.facts() if sys.platform == "darwin" else linux.facts()


def conditions() -> Conditions:
    """Its temperature, battery, governors and load now; what it does not tell is None."""
    from targets.devices.readings import linux, mac

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
