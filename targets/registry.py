"""A target's name in, the target out; no SDK is imported before a target is asked to do something."""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import TYPE_CHECKING

from targets.coreml import units

if TYPE_CHECKING:
    from targets.types import Target

# name -> (module, class without constructor arguments)
_TARGETS: dict[str, tuple[str, str]] = {
    "executorch": ("targets.executorch.target", "ExecuTorch"),
    "coreml": ("targets.coreml.target", "CoreML"),
    "tflite": ("targets.tflite.target", "TFLite"),
}
# Further files for a target's runtime family, made when asked for by name: not among `names`.
_VARIANTS: dict[str, tuple[str, str]] = {
    "executorch-coreml": ("targets.executorch_coreml.target", "ExecuTorchCoreML"),
}
# Target -> its delegate by name -> the target that makes files for it; the first is the default.
_BACKENDS: dict[str, dict[str, str]] = {"executorch": {"xnnpack": "executorch", "coreml": "executorch-coreml"}}


class UnknownTarget(ValueError):
    """A name that is not in the registry; the message carries the nearest one."""

    def __init__(self, name: str):
        near = difflib.get_close_matches(name.lower(), variants(), n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        super().__init__(f"unknown target {name!r}{hint} (known: {', '.join(names())})")


def names() -> tuple[str, ...]:
    """The targets that "all" means, in the order of the reports."""
    return tuple(_TARGETS)


def variants() -> tuple[str, ...]:
    """All target names, those included that are made only when asked for, in the order of the reports."""
    return (*_TARGETS, *_VARIANTS)


def backends(name: str) -> dict[str, str]:
    """The delegates that files of target `name` can be made for -> the target that makes them; empty: no choice."""
    return dict(_BACKENDS.get(name, {}))


def runtimes(name: str, compute_units: str = units.ALL) -> tuple[str, ...]:
    """The runtimes that files of target `name` run in.

    Args:
        compute_units: of Core ML (targets.coreml.units), whose choice is part of the runtime's name; no other target
            has them.

    Raises:
        UnknownTarget: no such name.
        KeyError: no such choice of units.
    """
    return (units.runtime_of(compute_units),) if name == "coreml" else get(name).runtimes


def get(name: str) -> Target:
    """The target called `name`.

    Raises:
        UnknownTarget: no such name.
    """
    known = {**_TARGETS, **_VARIANTS}
    if name not in known:
        raise UnknownTarget(name)
    module, attribute = known[name]
    target: Target = getattr(import_module(module), attribute)()
    return target
