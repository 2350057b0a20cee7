"""Connect to a device over ssh, and ask its Python; questions are answered by targets.devices.ssh.there.

All connections of this process live in one event loop, which runs in a thread of its own.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import shlex
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from targets.devices.address import Address
from targets.devices.device import DeviceOptions
from targets.devices.ssh import there
from targets.types import TargetError, Unavailable
from targets.worker.host import tail

if TYPE_CHECKING:
    import asyncssh


T = TypeVar("T")

#: A host that is there answers and logs in within seconds; one that is not never does.
CONNECT_LIMIT_S = 20.0
# A silent peer is dropped after three of these. Requests have limits of their own, which end earlier or later; this
# one ends what waits for nothing but the peer, and leaves room for replies that wait behind a payload on a slow link.
KEEPALIVE_S, KEEPALIVES = 10, 3
_KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2", "/etc/ssh/ssh_known_hosts")


def require_asyncssh() -> None:
    """
    Raises:
        Unavailable: stage "device", the package is not installed here.
    """
    try:
        import asyncssh  # noqa: F401
    except ImportError as error:
        raise Unavailable("device", f"ssh devices need asyncssh ({error}): pip install asyncssh") from error


async def connect(address: Address, options: DeviceOptions) -> asyncssh.SSHClientConnection:
    """Log in with a key of the agent, of ~/.ssh or of `options`; ~/.ssh/config is followed but for its host keys.

    Nobody is asked for a password, and no host key is taken that is not in known_hosts.

    Raises:
        TargetError: stage "device".
    """
    import asyncssh

    class Client(asyncssh.SSHClient):
        """Keeps the fingerprint of a key that is in no known_hosts."""

        refused = ""

        def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
            self.refused = key.get_fingerprint()
            return False

    client = Client()
    files = known_hosts_files(options)
    limit_s = min(CONNECT_LIMIT_S, options.timeout_s)
    try:
        async with asyncio.timeout(limit_s):
            return await asyncssh.connect(
                address.name,
                address.port if address.port else (),
                username=address.user,
                client_factory=lambda: client,
                known_hosts=[str(file) for file in files] or b"",
                client_keys=[str(_existing(options.identity, "identity"))] if options.identity else (),
                password_auth=False,
                kbdint_auth=False,
                keepalive_interval=KEEPALIVE_S,
                keepalive_count_max=KEEPALIVES,
                login_timeout=limit_s,
            )
    except asyncssh.HostKeyNotVerifiable as error:
        raise TargetError("device", _host_key(address, files, client.refused, error.reason)) from error
    except asyncssh.PermissionDenied as error:
        advice = f"bring your key there with `ssh-copy-id`, check it with {by_hand(address)}, or name another identity"
        raise TargetError(
            "device", f"{address.label} refused the login ({error.reason}): {advice}; passwords are never asked for"
        ) from error
    except asyncssh.KeyImportError as error:
        name = options.identity or "a key of ~/.ssh"
        raise TargetError(
            "device", f"{name} cannot be used ({error}): unlock it with `ssh-add {name}`, and leave the identity out"
        ) from error
    except asyncssh.ConfigParseError as error:
        raise TargetError("device", f"~/.ssh/config cannot be read: {error}") from error
    except TimeoutError as error:
        raise TargetError(
            "device",
            f"{address.label} did not answer within {limit_s:g} s: check that it is on, and try {by_hand(address)}",
        ) from error
    except (OSError, asyncssh.Error, ValueError) as error:
        raise TargetError("device", f"cannot reach {address.label}: {_words(error)}; try {by_hand(address)}") from error


def known_hosts_files(options: DeviceOptions) -> list[Path]:
    """The file of `options`, else those of OpenSSH that are there.

    Raises:
        TargetError: the file of `options` is not there.
    """
    if options.known_hosts is not None:
        return [_existing(options.known_hosts, "known_hosts")]
    return [path for name in _KNOWN_HOSTS if (path := Path(name).expanduser()).is_file()]


@dataclass
class Deadline:
    """`passed`: the connection was cut because the limit was reached."""

    passed: bool = False


@contextmanager
def deadline(connection: asyncssh.SSHClientConnection, limit_s: float) -> Iterator[Deadline]:
    """Cut `connection` after `limit_s` seconds in this block.

    Cancelling alone does not end in time: what is cancelled closes its file or channel politely, and waits for a
    device that does not answer.
    """
    state = Deadline()

    def cut() -> None:
        state.passed = True
        connection.abort()

    timer = asyncio.get_running_loop().call_later(limit_s, cut)
    try:
        yield state
    finally:
        timer.cancel()


class Loop:
    """An event loop that runs until this process ends."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="ssh", daemon=True).start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Wait for it, and cancel it where the wait is interrupted; limits are the coroutine's own."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def soon(self, function: Callable[[], object]) -> None:
        """Call `function` in the loop, and do not wait for it."""
        self._loop.call_soon_threadsafe(function)


@cache
def loop() -> Loop:
    """The one loop of this process, started at the first call."""
    return Loop()


def _existing(path: Path, what: str) -> Path:
    if not path.is_file():
        raise TargetError("device", f"no {what} file {path}: name one that is there, or leave it out")
    return path


def _host_key(address: Address, files: list[Path], fingerprint: str, reason: str) -> str:
    import asyncssh

    read = ", ".join(map(str, files)) or "no known_hosts file: there is none"
    port = address.port if address.port not in (None, 22) else None
    lists = [str(file) for file in files] or b""
    known = asyncssh.match_known_hosts(lists, address.name, address.name, port)[0]
    if known:
        name = f"[{address.name}]:{port}" if port else address.name  # as known_hosts writes the host
        return (
            f"the host key of {address.label} is {fingerprint or 'of another type'}, not the one in {read} ({reason}): "
            "someone may be in between. If the device was set up anew, "
            f"run `ssh-keygen -R '{name}'` and then {by_hand(address)} once"
        )
    return (
        f"the host key of {address.label} is not known ({fingerprint or reason}; read: {read}): run {by_hand(address)} "
        "once and accept it after you compared the fingerprint, or add the line of `ssh-keyscan`"
    )


def _words(error: BaseException) -> str:
    return " ".join(str(getattr(error, "reason", "") or error).split()) or type(error).__name__


def by_hand(address: Address) -> str:
    """The command of OpenSSH that logs in at `address`."""
    port = f"-p {address.port} " if address.port else ""
    return f"`ssh {port}{address.user}@{address.name}`"


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
