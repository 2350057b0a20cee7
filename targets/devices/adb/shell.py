"""Talk to a phone: adb's server and its devices, one connection, and commands in its shell.

`adb shell` ends with 0 and no message when the link drops, so its exit code tells nothing. A script prints a random
mark when it begins, with its process number, and one when it ends, with the exit status: what lacks the second one
failed, whatever came before it.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shlex
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from targets.devices.address import Address
from targets.devices.device import Found
from targets.types import Stage, TargetError, Unavailable
from targets.worker.host import tail

if TYPE_CHECKING:
    from adbutils import AdbClient, AdbConnection


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

    def error(self, cause: str, stage: Stage = "device") -> TargetError:
        """What went wrong on this device."""
        return TargetError(stage, f"adb:{self.serial}: {cause}")

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
            raise self.error(f"{what} ended with status {ended.status}: {tail(ended.output)}", stage)
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
            said = "\n".join(line for line in output.splitlines() if mark not in line)
            raise self.error(f"{problem}; last lines: {tail(said)}", stage)
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


# Of the words of the adb server itself, which answers from memory.
SERVER_LIMIT_S = 3.0
INSTALL = "pip install adbutils, and Android's platform-tools, or the package adb of your system"
NONE_THERE = "adb sees no device: plug one in, switch on its USB debugging, or `adb connect HOST:PORT`"
#: Words of the server for a device that is there and cannot be used -> what to do.
STATES = {
    "unauthorized": "it has not allowed this computer: unlock it and accept the question about USB debugging",
    "offline": "it does not answer: plug it in again, or `adb reconnect`",
    "no permissions": "this user may not open its USB port: add a udev rule (android-sdk-platform-tools-common)",
    "authorizing": "it is being asked for permission: unlock it, accept, and try again",
    "connecting": "it is being connected: try again",
    "recovery": "it is in recovery: boot its system",
    "sideload": "it is in recovery, waiting for an update: boot its system",
    "bootloader": "it is in its boot loader: boot its system",
    "host": "it is another computer, not a device",
}


def require_adbutils() -> None:
    """
    Raises:
        Unavailable: stage "device".
    """
    try:
        import adbutils  # noqa: F401
    except ImportError as error:
        raise Unavailable("device", f"adb: adbutils does not import ({error}): {INSTALL}") from error


def connection(serial: str, service: str, limit_s: float) -> AdbConnection:
    """A stream to `service` ("exec:...", "sync:") of the device; its socket waits at most `limit_s` for each read.

    Raises:
        TargetError: stage "device", there is no server, or the device does not open it.
    """
    from adbutils import AdbError

    try:
        stream = _client().device(serial).open_transport(timeout=min(limit_s, SERVER_LIMIT_S))
        try:
            stream.send_command(service)
            stream.check_okay()
            stream.conn.settimeout(limit_s)
        except BaseException:
            stream.close()
            raise
        return stream
    except (AdbError, OSError, ValueError) as error:  # ValueError: adbutils on a stream that ends too early
        raise TargetError("device", f"adb:{serial}: {_why(serial, error)}") from error


def found() -> tuple[Found, ...]:
    """Every device that the server knows.

    Raises:
        TargetError: stage "device", there is no server and none can be started.
    """
    return tuple(
        Found(Address("adb", serial), "" if state == "device" else STATES.get(state, f"its state is {state!r}"))
        for serial, state in _listed()
    )


def only(serial: str) -> str:
    """The serial of the device that is meant: `serial`, or the only one that is there.

    Raises:
        TargetError: stage "device", it is not there, cannot be used, or there is not exactly one.
    """
    there = found()
    names = ", ".join(f"adb:{one.address.name}" for one in there)
    if not serial:
        if not there:
            raise TargetError("device", NONE_THERE)
        if len(there) > 1:
            raise TargetError("device", f"adb sees {len(there)} devices: name one of {names}")
        serial = there[0].address.name
    matching = [one for one in there if one.address.name == serial]
    if not matching:
        raise TargetError("device", f"adb:{serial} is not there: is it unplugged? adb sees {names or 'no device'}")
    if matching[0].problem:
        raise TargetError("device", f"adb:{serial}: {matching[0].problem}")
    return serial


def _listed() -> list[tuple[str, str]]:
    from adbutils import AdbError

    try:
        with _client().make_connection(timeout=SERVER_LIMIT_S) as stream:
            stream.send_command("host:devices")
            stream.check_okay()
            text = stream.read_string_block()
    except (AdbError, OSError, ValueError) as error:
        raise TargetError("device", f"no adb server, and none can be started ({error}): {INSTALL}") from error
    pairs = (line.partition("\t") for line in text.splitlines() if line.strip())
    return [(serial, "no permissions" if state.startswith("no permissions") else state) for serial, _, state in pairs]


def _client() -> AdbClient:
    import adbutils

    return adbutils.AdbClient(
        host=os.environ.get("ANDROID_ADB_SERVER_ADDRESS", "127.0.0.1"),
        port=int(os.environ.get("ANDROID_ADB_SERVER_PORT", "5037")),
        socket_timeout=SERVER_LIMIT_S,
    )


def _why(serial: str, error: Exception) -> str:
    """What the server knows of a device whose stream did not open; nothing, if the server itself is silent."""
    from adbutils import AdbTimeout

    if isinstance(error, AdbTimeout | TimeoutError):
        return f"adb's server did not answer within {SERVER_LIMIT_S:g} s"
    try:
        only(serial)
    except TargetError as known:
        return known.cause.removeprefix(f"adb:{serial}: ").removeprefix(f"adb:{serial} ")
    return f"it did not answer ({error or type(error).__name__})"
