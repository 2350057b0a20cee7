"""Files of /proc and /sys in, facts and conditions of a Linux machine out."""

from __future__ import annotations

import os
import platform

from targets.devices.facts import UNKNOWN, Conditions, DeviceFacts


def facts() -> DeviceFacts:
    return DeviceFacts(
        model=UNKNOWN,
        chip=UNKNOWN,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    )


def conditions() -> Conditions:
    return Conditions(load_1min=os.getloadavg()[0])
