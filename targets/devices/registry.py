"""An address in, its device out; and what can be found without being told an address."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from targets.devices.address import Address, Kind

if TYPE_CHECKING:
    from targets.devices.device import Device, DeviceOptions, Say

# kind -> the module that has `device(address, options, say)` and `found(options)`
_KINDS: dict[Kind, str] = {
    "host": "targets.devices.this_host",
    "adb": "targets.devices.adb.device",
    "ssh": "targets.devices.ssh.device",
    "qemu-arm64": "targets.devices.arm64.device",
}


@dataclass(frozen=True)
class Found:
    """A device that is there; `problem` says why it cannot be used as it is, and what to do; empty where it can."""

    address: Address
    problem: str = ""


def get(address: Address, options: DeviceOptions, say: Say) -> Device:
    """The device at `address`, not reached for yet.

    Raises:
        Unavailable: stage "device", what this machine needs for this kind is not installed; the message says how.
        TargetError: stage "device", an option that this kind does not take.
    """
    device: Device = import_module(_KINDS[address.kind]).device(address, options, say)
    return device


def found(options: DeviceOptions) -> tuple[Found, ...]:
    """What is there of every kind that can be listed: a host behind ssh has to be named."""
    return tuple(one for kind in _KINDS for one in import_module(_KINDS[kind]).found(options))
