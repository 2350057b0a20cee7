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


def hanging(pids: Path, stopped: bool = False) -> list[str]:
    """A worker that starts a child, writes the numbers of both processes into the file `pids`, and never answers."""
    aside = f"{pids}.part"
    return [
        sys.executable,
        "-c",
        "import os, signal, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({aside!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        f"os.rename({aside!r}, {str(pids)!r})\n"
        + ("os.kill(os.getpid(), signal.SIGSTOP)\n" if stopped else "")
        + "time.sleep(600)",
    ]


def started(pids: Path, within_s: float = 120.0) -> tuple[int, int]:
    """The numbers that a worker of `hanging` wrote, once they are there."""
    end = time.monotonic() + within_s
    while not pids.exists() and time.monotonic() < end:
        time.sleep(0.02)
    worker, child = map(int, pids.read_text().split())
    return worker, child


def gone(pid: int, within_s: float = 120.0) -> bool:
    """Whether the process ends (a child that nobody waits for is a zombie, and counts as there)."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def ended(pid: int, within_s: float = 120.0) -> bool:
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
