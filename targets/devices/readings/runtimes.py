"""Nothing in; which runtimes can open files on this machine, and what of each version, out."""

from __future__ import annotations

import platform
from collections.abc import Mapping

from targets import registry
from targets.types import Capability
from targets.versions import installed

#: What decides a result on a device; the converters' own packages do not.
PACKAGES = ("numpy", "ai-edge-litert", "tensorflow", "executorch", "torch", "coremltools")


def runtimes() -> Mapping[str, Capability]:
    """ "tflite litert" -> whether it works here. Imports every SDK that is installed, which takes seconds."""
    return {
        f"{name} {runtime}": capability
        for name in registry.variants()
        for runtime, capability in registry.get(name).probe().run.items()
    }


def versions() -> Mapping[str, str]:
    return {"python": platform.python_version(), **installed(*PACKAGES)}
