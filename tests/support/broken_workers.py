"""Programs that stand for workers that crash, hang or lie, and what became of their processes."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

# A worker whose behaviour on the first request is the program's own.
PREFIX = "import os, signal, subprocess, sys, time\nline = sys.stdin.buffer.readline()\n"


def broken(program: str) -> list[str]:
    return [sys.executable, "-c", PREFIX + program]


def gone(pid: int, within_s: float = 10.0) -> bool:
    """Whether the process ends (a child that nobody waits for is a zombie, and counts as there)."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def ended(pid: int, within_s: float = 10.0) -> bool:
    """Gone, or a zombie of another parent."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        status = Path(f"/proc/{pid}/stat")
        try:
            if status.read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False
