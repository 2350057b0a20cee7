"""Runs the worker on a device behind SSH, cleans up after it, and ends as it ended.

The worker shares this process's standard streams. It gets a temporary folder that is removed after it, and is killed
with its children when its input ends and it does not end by itself: a runtime that hangs outlives no link.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

# A worker ends by itself at the end of its input unless it hangs or is stopped.
GRACE_S = 2.0
# The kernel tells at once that the pipe was closed; where it does not, the death of the parent is looked for.
LOOK_EVERY_MS = 1000


def main(arguments: list[str]) -> None:
    """
    Args:
        arguments: a line to print before the worker has the output, so that what a login shell prints is told from
            what the worker says; the folder for temporary folders; the command, without one the worker of this project.
    """
    parent = os.getppid()
    mark, root = arguments[0], Path(arguments[1])
    command = arguments[2:] or [sys.executable, "-P", "-m", "targets.worker"]
    _sweep(root)
    folder = tempfile.mkdtemp(prefix=f"worker-{os.getpid()}-", dir=root)
    os.write(1, mark.encode() + b"\n")
    process = subprocess.Popen(
        command,
        env={**os.environ, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), folder)},
        start_new_session=True,  # a group of its own, so that its children can be killed too
    )
    ended = threading.Event()
    threading.Thread(target=_kill_without_input, args=(process, parent, ended), daemon=True).start()
    status = process.wait()
    ended.set()
    with contextlib.suppress(ProcessLookupError, PermissionError):  # the children that it left
        os.killpg(process.pid, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)
    if status < 0:
        _end_by(signal.Signals(-status))
    sys.exit(status)


def _kill_without_input(process: subprocess.Popen[bytes], parent: int, ended: threading.Event) -> None:
    poller = select.poll()
    poller.register(0, getattr(select, "POLLRDHUP", 0))  # never for what there is to read: that is the worker's
    while not poller.poll(LOOK_EVERY_MS) and os.getppid() == parent:
        pass
    if not ended.wait(GRACE_S):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _end_by(number: signal.Signals) -> None:
    """End as the worker did, so that the SSH server reports the signal; without a core file of this process."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _sweep(root: Path) -> None:
    """Remove the folders of keepers that were killed."""
    for folder in root.glob("worker-*-*"):
        try:
            os.kill(int(folder.name.split("-")[1]), 0)
        except ProcessLookupError:
            shutil.rmtree(folder, ignore_errors=True)
        except (ValueError, PermissionError, OverflowError):
            continue


if __name__ == "__main__":
    main(sys.argv[1:])
