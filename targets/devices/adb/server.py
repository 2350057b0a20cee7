"""Ask adb's server which devices it has and what keeps each from being used, and connect to one of them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from targets.devices.address import Address
from targets.devices.device import Found
from targets.types import TargetError, Unavailable

if TYPE_CHECKING:
    from adbutils import AdbClient, AdbConnection

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
