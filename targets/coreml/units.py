"""Names of the runtimes of Core ML packages: one for each choice of compute units, and the simulated ones.

Figures of one choice are never those of another: each has a runtime name of its own in every record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import coremltools as ct

ALL = "all"

#: Choice on the command line -> (runtime in the records, member of coremltools.ComputeUnit).
_CHOICES: dict[str, tuple[str, str]] = {
    ALL: ("coreml", "ALL"),
    "cpu-only": ("coreml-cpu-only", "CPU_ONLY"),
    "cpu-and-gpu": ("coreml-cpu-and-gpu", "CPU_AND_GPU"),
    "cpu-and-ne": ("coreml-cpu-and-ne", "CPU_AND_NE"),
}
#: Rounding models of the reference interpreter, as names of simulated runtimes.
REFERENCE_PREFIX = "mil-"
SIMULATED = ("mil-fp32", "mil-fp16", "mil-fp16-accumulate")


def choices() -> tuple[str, ...]:
    """What a user can ask for, the default first."""
    return tuple(_CHOICES)


def runtime_of(choice: str) -> str:
    """The runtime that runs on the chosen units.

    Raises:
        KeyError: no such choice.
    """
    return _CHOICES[choice][0]


def choice_of(runtime: str) -> str | None:
    """The choice behind a runtime's name; None if it is no Core ML runtime."""
    return next((choice for choice, (name, _) in _CHOICES.items() if name == runtime), None)


def compute_unit(choice: str) -> ct.ComputeUnit:
    """coremltools' constant for a choice.

    Raises:
        KeyError: no such choice.
    """
    import coremltools as ct

    return ct.ComputeUnit[_CHOICES[choice][1]]
