"""What a message of this kind of device tells its user to do next."""

from __future__ import annotations

from targets.devices.address import Address

PYTHON = "3.11"
_BOARD = "on a board: `python3.11 -m venv ~/edge-t2t && ~/edge-t2t/bin/pip install numpy ai-edge-litert`"
_MAC = "on a Mac: `python3.11 -m venv ~/edge-t2t && ~/edge-t2t/bin/pip install numpy coremltools`"
#: How a Python that has what the worker needs comes onto the device.
INSTALL = f"{_BOARD}; {_MAC}; then add --remote-python '~/edge-t2t/bin/python'"
#: Where everything of this project lies on a device, below the home folder of the user who logs in.
FOLDER = ".cache/edge-t2t"


def by_hand(address: Address) -> str:
    """The command of OpenSSH that logs in at `address`."""
    port = f"-p {address.port} " if address.port else ""
    return f"`ssh {port}{address.user}@{address.name}`"


def known_hosts_name(address: Address) -> str:
    """As known_hosts writes the host."""
    return f"[{address.name}]:{address.port}" if address.port not in (None, 22) else address.name
