"""Questions to the Python of a device, answered by targets.devices.ssh.there, whose text is sent along."""

from __future__ import annotations

import json
import secrets
import shlex
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from targets.devices.ssh import there
from targets.devices.ssh.connection import deadline
from targets.types import TargetError
from targets.worker.host import tail

if TYPE_CHECKING:
    import asyncssh

PYTHON = "3.11"
_BOARD = "on a board: `python3.11 -m venv ~/edge-t2t && ~/edge-t2t/bin/pip install numpy ai-edge-litert`"
_MAC = "on a Mac: `python3.11 -m venv ~/edge-t2t && ~/edge-t2t/bin/pip install numpy coremltools`"
#: How a Python that has what the worker needs comes onto the device.
INSTALL = f"{_BOARD}; {_MAC}; then add --remote-python '~/edge-t2t/bin/python'"
#: Where everything of this project lies on a device, below the home folder of the user who logs in.
FOLDER = ".cache/edge-t2t"

# Runs on any Python of the last fifteen years; only one that is new enough sees the rest.
_FIRST = (
    "import sys\n"
    "if sys.version_info < (3, 11): sys.stdout.write({mark!r} + '\"' + sys.version.split()[0] + '\"')\n"
    "else: exec(compile({text!r}, 'there', 'exec'), {{'__name__': '__main__'}})\n"
)
_NOT_FOUND = 127  # of a shell, POSIX 2.8.2


def python_word(python: str) -> str:
    """The device's Python as a word of its shell; ~/ at its start is the home folder there."""
    return '"$HOME"/' + shlex.quote(python[2:]) if python.startswith("~/") else shlex.quote(python)


async def ask(
    connection: asyncssh.SSHClientConnection, label: str, python: str, limit_s: float, op: str, **request: Any
) -> dict[str, Any]:
    """What `op` of targets.devices.ssh.there replies.

    Raises:
        TargetError: stage "device", no reply within `limit_s` (the connection is cut), no usable Python, or what went
            wrong there.
    """
    import asyncssh

    mark = secrets.token_hex(8)  # what a login shell prints of its own is no reply
    program = _FIRST.format(mark=mark, text=_text())
    argument = json.dumps({"op": op, "mark": mark, **request})
    command = f"exec {python_word(python)} -c {shlex.quote(program)} {shlex.quote(argument)}"
    with deadline(connection, limit_s) as limit:
        try:
            done = await connection.run(command, encoding=None, request_pty=False, stdin=asyncssh.DEVNULL)
        except (asyncssh.Error, OSError) as error:
            raise TargetError("device", f"{label}: {_why(limit.passed, op, limit_s)}: {error}") from error
    output, errors = (_decoded(stream) for stream in (done.stdout, done.stderr))
    if done.exit_status is None and done.exit_signal is None:  # its end was not seen, whatever it had said
        raise TargetError("device", f"{label}: {_why(limit.passed, op, limit_s)}")
    if mark not in output:
        if done.exit_status == _NOT_FOUND:
            raise TargetError("device", f"{label} has no {python!r}: {INSTALL}")
        raise TargetError(
            "device", f"{label}: {python!r} ended with status {done.exit_status} at {op!r}: {tail(errors)}"
        )
    try:
        reply = json.loads(output.rsplit(mark, 1)[1])
    except ValueError as error:
        raise TargetError("device", f"{label}: the reply to {op!r} was cut off") from error
    if isinstance(reply, str):
        raise TargetError(
            "device", f"{python!r} of {label} is Python {reply}, and {PYTHON} or later is needed; {INSTALL}"
        )
    if "error" in reply:
        raise TargetError("device", f"{label}: {reply['error']}")
    return dict(reply)


def _why(late: bool, op: str, limit_s: float) -> str:
    return f"{op!r} was not done within {limit_s:g} s" if late else f"the connection was lost during {op!r}"


def _decoded(output: bytes | str | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


@cache
def _text() -> str:
    return Path(there.__file__).read_text()
