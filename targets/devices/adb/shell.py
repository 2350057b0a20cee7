"""Run commands in a phone's shell; their output counts only if the end mark of the same request came with it.

`adb shell` ends with 0 and no message when the link drops, so its exit code tells nothing. A script prints a random
mark when it begins, with its process number, and one when it ends, with the exit status: what lacks the second one
failed, whatever came before it.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import shlex
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

from targets.devices.adb.server import connection
from targets.types import Stage, TargetError
from targets.worker.host import tail

# What one request may print: a runner's log of thousands of inferences is below it.
MAX_OUTPUT_BYTES = 1 << 24
# To end what is left of a request that was given up.
KILL_LIMIT_S = 5.0


@dataclass(frozen=True)
class Ended:
    """A script that ran to its end: what it printed between its marks, and its exit status."""

    output: str
    status: int


def quoted(arguments: Sequence[str]) -> str:
    """One command of a POSIX shell (Android's is mksh) that gets exactly these arguments.

    Raises:
        ValueError: a NUL, which no argument can carry.
    """
    for argument in arguments:
        if "\0" in argument:
            raise ValueError(f"an argument with a NUL: {argument!r}")
    return shlex.join(arguments)


@dataclass(frozen=True)
class Shell:
    """The shell of one device.

    Attributes:
        limit_s: of each request.
    """

    serial: str
    limit_s: float

    def run(self, arguments: Sequence[str], stage: Stage = "device") -> Ended:
        """One command, with standard output and standard error together.

        Raises:
            TargetError: `stage`, it did not end, or the link was lost.
        """
        return self.script(quoted(arguments), stage)

    def checked(self, arguments: Sequence[str], what: str, stage: Stage = "device") -> str:
        """The output of a command that has to end with 0.

        Raises:
            TargetError: `stage`, as `run`, or another status.
        """
        ended = self.run(arguments, stage)
        if ended.status:
            raise TargetError(
                stage, f"adb:{self.serial}: {what} ended with status {ended.status}: {tail(ended.output)}"
            )
        return ended.output

    def script(self, text: str, stage: Stage = "device") -> Ended:
        """A script of quoted commands; errors as of `run`."""
        mark = secrets.token_hex(12)
        # In a subshell, so that an exit of the script does not take the end mark with it.
        whole = f"echo {mark} $$; (\n{text}\n) 2>&1; s=$?; echo; echo {mark} $s"
        deadline = time.monotonic() + self.limit_s
        received = bytearray()
        problem = ""
        try:
            with connection(self.serial, f"exec:{whole}", self.limit_s) as stream:
                while part := _receive(stream.conn, deadline):
                    received += part
                    if len(received) > MAX_OUTPUT_BYTES:
                        problem = f"it printed more than {MAX_OUTPUT_BYTES} bytes"
                        break
        except TimeoutError:
            problem = f"no answer within {self.limit_s:g} s"
        except OSError as error:
            problem = f"the link was lost ({error})"
        output = received.decode(errors="replace")
        ended = re.fullmatch(rf"{mark} \d+\n(.*)\n{mark} (\d+)\n", output, re.DOTALL)
        if ended is None or problem:
            self._kill(output, mark)
            problem = problem or "the link was lost before the end mark of the request came"
            raise TargetError(stage, f"adb:{self.serial}: {problem}; last lines: {tail(_without(output, mark))}")
        return Ended(ended[1], int(ended[2]))

    def _kill(self, output: str, mark: str) -> None:
        """End what is left of a request there, if the link lives."""
        begun = re.match(rf"{mark} (\d+)\n", output)
        if begun is None:
            return
        # Children first, found by their parent's number: the fourth field of stat, the second one behind the name.
        script = (
            'tree() { for f in /proc/[0-9]*/stat; do read -r l 2>/dev/null < "$f" || continue; r=${l##*) }; r=${r#* }; '
            'if [ "${r%% *}" = "$1" ]; then c=${f#/proc/}; tree "${c%/stat}"; fi; done; kill -9 "$1" 2>/dev/null; }; '
            f"tree {begun[1]}"
        )
        with (
            contextlib.suppress(TargetError, OSError),
            connection(self.serial, f"exec:{script}", KILL_LIMIT_S) as stream,
        ):
            deadline = time.monotonic() + KILL_LIMIT_S
            while _receive(stream.conn, deadline):
                pass


def _receive(link: socket.socket, deadline: float) -> bytes:
    """The next bytes, none at the end.

    Raises:
        TimeoutError: the deadline passed.
        OSError: the link was lost.
    """
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    link.settimeout(left_s)
    return link.recv(1 << 16)


def _without(output: str, mark: str) -> str:
    return "\n".join(line for line in output.splitlines() if mark not in line)
