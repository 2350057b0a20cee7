"""Make the device that an address names, and list the devices that can be found without one."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from targets.devices.address import Address, Kind
from targets.devices.device import Found

if TYPE_CHECKING:
    from targets.devices.device import Device, DeviceOptions, Say

# kind -> the module that has `device(address, options, say)` and `found(options)`
_KINDS: dict[Kind, str] = {
    "host": "targets.devices.this_host",
    "adb": "targets.devices.adb.device",
    "ssh": "targets.devices.ssh.device",
    "qemu-arm64": "targets.devices.arm64.device",
}


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
