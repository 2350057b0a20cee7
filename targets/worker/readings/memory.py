"""Peak memory of this process above a mark: what a file takes beside the runtime that runs it."""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path

_PROCESS = Path("/proc/self")
#: Written to clear_refs it sets the peak back to what is resident now (the kernel's proc(5), Linux 4.0).
_RESET_PEAK = "5"


def mark() -> int | None:
    """Bytes that are resident now, from which on the peak is counted anew; None where the system cannot do that.

    Memory that the allocator holds and nobody uses is given back first: a file that were loaded into it would seem to
    take nothing.
    """
    with contextlib.suppress(OSError, AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)
    try:
        (_PROCESS / "clear_refs").write_text(_RESET_PEAK)
    except OSError:  # no Linux, or not allowed
        return None
    return _status_bytes("VmRSS")


def above(idle_bytes: int | None) -> int | None:
    """The largest resident set since the mark, beyond the mark; None without one, or where the kernel sees no rise."""
    peak = _status_bytes("VmHWM") if idle_bytes else None
    return peak - idle_bytes if peak and idle_bytes and peak > idle_bytes else None


def _status_bytes(name: str) -> int | None:
    for line in (_PROCESS / "status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024  # told in kB, which are KiB
    return None
