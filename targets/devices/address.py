"""Addresses of devices as users type them: `host`, `adb:SERIAL`, `ssh:USER@HOST`, `qemu-arm64`."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["host", "adb", "ssh", "qemu-arm64"]
KINDS: tuple[Kind, ...] = get_args(Kind)
FORMS = "host, adb, adb:SERIAL, ssh:USER@HOST, ssh:USER@HOST:PORT, qemu-arm64"

# A name must not be taken for an option by a program that it is handed to, nor carry anything but itself.
_SERIAL = re.compile(r"[A-Za-z0-9._:\[\]%-]{1,255}")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,252})|\[[0-9A-Fa-f:.%a-z]{2,60}\]")


class BadAddress(ValueError):
    """What was typed is no address of a device; the message says which forms there are."""


@dataclass(frozen=True)
class Address:
    """One device.

    Attributes:
        name: the serial of adb, the host of ssh without user and port; empty for the only device that adb sees, and
            for kinds that have one device.
    """

    kind: Kind
    name: str = ""
    user: str = ""
    port: int | None = None

    @property
    def label(self) -> str:
        """As typed; the `device` of every cell that was measured there."""
        if self.kind == "ssh":
            return f"ssh:{self.user}@{self.name}" + (f":{self.port}" if self.port else "")
        return f"{self.kind}:{self.name}" if self.name else self.kind


def parse(text: str) -> Address:
    """The address in `text`.

    Raises:
        BadAddress: it is none; with the nearest form.
    """
    kind, _, rest = text.partition(":")
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise BadAddress(f"--on {text!r}: no such kind of device.{hint} Known: {FORMS}")
    if kind in ("host", "qemu-arm64"):
        if ":" in text:
            raise BadAddress(f"--on {text!r}: {kind} takes no name. Known: {FORMS}")
        return Address(kind)
    if kind == "adb":
        if ":" in text and (not _SERIAL.fullmatch(rest) or rest.startswith("-")):
            raise BadAddress(f"--on {text!r}: {rest!r} is no serial number; `python main.py devices` lists them")
        return Address("adb", rest)
    return _ssh(text, rest)


def _ssh(text: str, rest: str) -> Address:
    user, at, where = rest.rpartition("@")
    host, colon, port = where, "", ""
    if not where.endswith("]"):
        host, colon, port = where.rpartition(":") if ":" in where else (where, "", "")
    if not at or not _USER.fullmatch(user) or not _HOST.fullmatch(host):
        raise BadAddress(f"--on {text!r}: give ssh:USER@HOST or ssh:USER@HOST:PORT (IPv6 in square brackets)")
    if colon and not (port.isdecimal() and 0 < int(port) < 65536):
        raise BadAddress(f"--on {text!r}: port {port!r} is no number from 1 to 65535")
    return Address("ssh", host.strip("[]"), user, int(port) if colon else None)
