"""Names of the runtimes of Core ML packages: one for each choice of compute units, and the simulated ones.

Figures of one choice are never those of another: each has a runtime name of its own in every record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import coremltools as ct

ALL = "all"

#: Choice on the command line -> runtime in the records; the default first.
RUNTIMES = {
    ALL: "coreml",
    "cpu-only": "coreml-cpu-only",
    "cpu-and-gpu": "coreml-cpu-and-gpu",
    "cpu-and-ne": "coreml-cpu-and-ne",
}
#: Rounding models of the reference interpreter, as names of simulated runtimes.
REFERENCE_PREFIX = "mil-"
SIMULATED = ("mil-fp32", "mil-fp16", "mil-fp16-accumulate")


def compute_unit(choice: str) -> ct.ComputeUnit:
    """coremltools' constant for one of RUNTIMES: CPU_AND_NE for "cpu-and-ne"."""
    import coremltools as ct

    return ct.ComputeUnit[choice.upper().replace("-", "_")]
