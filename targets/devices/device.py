"""What every kind of device has (facts, conditions, workers that open files on it), and the one at an address."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

from targets.devices.address import Address, Kind
from targets.types import Session
from targets.worker.facts import Conditions, DeviceFacts

if TYPE_CHECKING:
    import numpy as np

#: kind -> the module that has `device(address, options, say)` and `found(options)`
_KINDS: dict[Kind, str] = {
    "host": "targets.devices.this_host",
    "adb": "targets.devices.adb.device",
    "ssh": "targets.devices.ssh.device",
    "qemu-arm64": "targets.devices.arm64.device",
}
#: A request to a device (one file, one chunk of images, one round) is given this long unless the user says else.
DEVICE_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class DeviceOptions:
    """What the user may say of how a device is used.

    Attributes:
        timeout_s: limit of each request: opening a file, a chunk of images, a round of samples.
        cpus: cores that inferences are bound to; empty: as the system likes. A device that cannot bind refuses.
        benchmark_model: LiteRT's benchmark_model for the device's processor, of adb.
        executor_runner: ExecuTorch's executor_runner, likewise.
        known_hosts, identity: of ssh; None: the user's own ~/.ssh/known_hosts, agent and keys.
        python: of ssh: the Python on the device that has the runtimes, a path or a name on its PATH.
    """

    timeout_s: float = DEVICE_TIMEOUT_S
    cpus: tuple[int, ...] = ()
    benchmark_model: Path | None = None
    executor_runner: Path | None = None
    known_hosts: Path | None = None
    identity: Path | None = None
    python: str = "python3"


@dataclass(frozen=True)
class Found:
    """A device that is there; `problem` says why it cannot be used as it is, and what to do; empty where it can."""

    address: Address
    problem: str = ""


class DeviceWorker(Protocol):
    """A fresh process on the device that opens files and keeps them open; a context manager.

    Every call that a fault of the device stops raises TargetError within 10 s after its limit.
    """

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    def open(self, target: str, path: Path, runtime: str, threads: int) -> Session:
        """Bring the file at `path` (on this machine) to the device, unless it is there, and open it.

        Raises:
            Unavailable: no such runtime there.
            TargetError: stage "device" (unreachable, disk full, not authorized, ...) or "load".
        """
        ...


class Device(Protocol):
    """One device. Making one does not reach for it yet; every other call does.

    Attributes:
        times: whether seconds mean something there; no latency is ever reported of a device where they do not.
    """

    address: Address
    times: bool

    def facts(self) -> DeviceFacts:
        """
        Raises:
            TargetError: stage "device".
        """
        ...

    def conditions(self) -> Conditions:
        """
        Raises:
            TargetError: stage "device".
        """
        ...

    def runtimes(self, target: str, compute_units: str) -> tuple[str, ...]:
        """Runtimes to try files of `target` in there; empty where files of it run in none of this kind of device."""
        ...

    def worker(self) -> DeviceWorker: ...

    def close(self) -> None: ...


#: Called with a line that the user should see while a device works (a push of 20 MB, a wait for it to cool down).
Say = Callable[[str], None]


@dataclass(frozen=True)
class InstructionCount:
    """How many instructions one inference takes, with the start of the process taken out.

    Attributes:
        per_inference: the middle of all repeats.
        repeats: counts, each from processes of their own.
        spread: largest less smallest of them.
        counted_by: emulator, its version, and the processor that it stands for.
    """

    per_inference: int
    repeats: int
    spread: int
    counted_by: str

    def __post_init__(self) -> None:
        if self.per_inference < 1 or self.repeats < 1 or self.spread < 0 or not self.counted_by:
            raise ValueError(f"{self}: not a count")


@runtime_checkable
class CountsInstructions(Protocol):
    """A device that counts what is executed."""

    def count_instructions(self, target: str, path: Path, runtime: str, image: np.ndarray) -> InstructionCount:
        """Of one inference of `image` [1, ...], as the file takes it, on one thread.

        Raises:
            Unavailable: what counts is not installed here; the message says how to get it.
            TargetError: stage "load" or "run".
        """
        ...


def device_at(address: Address, options: DeviceOptions, say: Say) -> Device:
    """The device at `address`, not reached for yet.

    Raises:
        Unavailable: stage "device", what this machine needs for this kind is not installed; the message says how.
        TargetError: stage "device", an option that this kind does not take.
    """
    device: Device = import_module(_KINDS[address.kind]).device(address, options, say)
    return device


def devices_found(options: DeviceOptions) -> tuple[Found, ...]:
    """What is there of every kind that can be listed: a host behind ssh has to be named."""
    return tuple(one for kind in _KINDS for one in import_module(_KINDS[kind]).found(options))
