"""A program file of this machine in, the kind of processor that it is for out."""

from __future__ import annotations

import struct
from pathlib import Path

#: e_machine and class (32 or 64 bit) of the System V ABI -> Android's name (developer.android.com/ndk/guides/abis).
_ABIS = {(183, 2): "arm64-v8a", (40, 1): "armeabi-v7a", (62, 2): "x86_64", (3, 1): "x86"}
# Android's own abilist says what else a system runs; without it a name stands for itself.
_MAGIC = b"\x7fELF"


def abi_of(path: Path) -> str:
    """Android's name of the ABI that the program at `path` is for.

    Raises:
        ValueError: it is no ELF program, or for a processor that Android does not have.
    """
    with path.open("rb") as stream:
        head = stream.read(20)
    if len(head) < 20 or head[:4] != _MAGIC:
        raise ValueError(f"{path} is no program for a phone (no ELF header): give the one built for Android")
    order = {1: "<", 2: ">"}.get(head[5], "<")
    (machine,) = struct.unpack_from(f"{order}H", head, 18)
    try:
        return _ABIS[machine, head[4]]
    except KeyError:
        raise ValueError(f"{path} is for ELF machine {machine}, which no Android phone has") from None
