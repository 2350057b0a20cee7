"""Every fatal error of the program with its exit code; pipeline.commands.main prints it as one message on stderr.

Exit codes: 0 done; 1 unexpected (a bug: traceback shown); 2 usage (wrong option, model, target, run or folder);
3 data; 4 weights; 5 training; 6 one or more cells failed; 7 a run folder that cannot be trusted; 8 measured, and under
the bar that was asked for; of `check`: 9 regressed, 10 missing or not comparable, 11 inconclusive; 130 interrupted.
"""

from __future__ import annotations

from calibration.dataset import DataError
from targets.codec import RecordError
from targets.registry import UnknownTarget
from targets.types import TargetError


class EdgeT2TError(Exception):
    """An error that the user can act on: what happened, the value seen, what to do next."""

    exit_code = 1


class UsageError(EdgeT2TError):
    """A wrong option, model, target, run or folder, found before any work began."""

    exit_code = 2


class WeightsError(EdgeT2TError):
    """A weights file or download that does not fit the model or cannot be trusted."""

    exit_code = 4


class TrainingError(EdgeT2TError):
    """Training that cannot go on; the last good checkpoint is kept."""

    exit_code = 5


class CellsFailedError(EdgeT2TError):
    """One or more cells of the model x target x precision matrix failed; the others were finished and recorded."""

    exit_code = 6


class RunError(EdgeT2TError):
    """A run folder with missing, changed or unfinished parts."""

    exit_code = 7


class BelowBarError(EdgeT2TError):
    """Everything ran, and an artifact is under the bar that the user set, or nothing was measured against it."""

    exit_code = 8


class RegressedError(EdgeT2TError):
    """The gate found a cell that is worse than its baseline by more than its budget."""

    exit_code = 9


class NotComparableError(EdgeT2TError):
    """The gate found nothing worse, but a cell of the baseline is missing or may not be compared with it."""

    exit_code = 10


class InconclusiveError(EdgeT2TError):
    """The gate found nothing worse, but too few images or too much noise to say that all is within the budget."""

    exit_code = 11


#: Errors of the packages below the pipeline, which do not know it.
FOREIGN: dict[type[Exception], int] = {DataError: 3, RecordError: 7, UnknownTarget: 2, TargetError: 6}


def exit_code_of(error: BaseException) -> int | None:
    """The exit code of an error that the user can act on; None for a bug."""
    if isinstance(error, EdgeT2TError):
        return error.exit_code
    return next((code for kind, code in FOREIGN.items() if isinstance(error, kind)), None)
