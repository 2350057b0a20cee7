"""The targets by name. No SDK is imported before a target is asked to do something."""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from targets.target import Target

#: Name -> folder. To add a target, write its folder (docs/architecture.md says what belongs in it) and a line here.
_FOLDERS: dict[str, str] = {"executorch": "targets.executorch", "coreml": "targets.coreml", "tflite": "targets.tflite"}
#: Further files for a target's runtime family, made when asked for by name: not among `names`.
_VARIANTS: dict[str, str] = {"executorch-coreml": "targets.executorch_coreml"}
#: Target -> its delegate by name -> the target that makes files for it; the first is the default.
_BACKENDS: dict[str, dict[str, str]] = {"executorch": {"xnnpack": "executorch", "coreml": "executorch-coreml"}}
#: The default choice of compute units; every target with a choice has it.
ALL_UNITS = "all"


class UnknownTarget(ValueError):
    """A name that is not in the registry; the message carries the nearest one."""

    def __init__(self, name: str):
        near = difflib.get_close_matches(name.lower(), variants(), n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        super().__init__(f"unknown target {name!r}{hint} (known: {', '.join(names())})")


def names() -> tuple[str, ...]:
    """The targets that "all" means, in the order of the reports."""
    return tuple(_FOLDERS)


def variants() -> tuple[str, ...]:
    """All target names, those included that are made only when asked for, in the order of the reports."""
    return (*_FOLDERS, *_VARIANTS)


def backends(name: str) -> dict[str, str]:
    """The delegates that files of target `name` can be made for -> the target that makes them; empty: no choice."""
    return dict(_BACKENDS.get(name, {}))


def get(name: str) -> Target:
    """The target called `name`.

    Raises:
        UnknownTarget: no such name.
    """
    known = {**_FOLDERS, **_VARIANTS}
    if name not in known:
        raise UnknownTarget(name)
    target: Target = import_module(f"{known[name]}.target").TARGET
    return target


def everyone() -> tuple[Target, ...]:
    """All targets, in the order of `variants`."""
    return tuple(map(get, variants()))


def runtimes(name: str, compute_units: str = ALL_UNITS) -> tuple[str, ...]:
    """The runtimes that files of target `name` run in.

    Args:
        compute_units: in targets that have this choice, it is part of the runtime's name.

    Raises:
        UnknownTarget: no such name.
        KeyError: no such choice of units.
    """
    target = get(name)
    return (target.compute_units[compute_units],) if target.compute_units else target.runtimes
