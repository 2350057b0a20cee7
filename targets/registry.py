"""A target's name in, the target out; no SDK is imported before a target is asked to do something."""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from targets.types import Target

# name -> (module, class without constructor arguments)
_TARGETS: dict[str, tuple[str, str]] = {
    "executorch": ("targets.executorch.target", "ExecuTorch"),
    "coreml": ("targets.coreml.target", "CoreML"),
    "tflite": ("targets.tflite.target", "TFLite"),
}


class UnknownTarget(ValueError):
    """A name that is not in the registry; the message carries the nearest one."""

    def __init__(self, name: str):
        near = difflib.get_close_matches(name.lower(), _TARGETS, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        super().__init__(f"unknown target {name!r}{hint} (known: {', '.join(_TARGETS)})")


def names() -> tuple[str, ...]:
    """All target names, in the order of the reports."""
    return tuple(_TARGETS)


def get(name: str) -> Target:
    """The target called `name`.

    Raises:
        UnknownTarget: no such name.
    """
    if name not in _TARGETS:
        raise UnknownTarget(name)
    module, attribute = _TARGETS[name]
    target: Target = getattr(import_module(module), attribute)()
    return target
