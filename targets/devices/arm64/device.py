"""The device `qemu-arm64`: an emulated Arm processor, which gives numbers of Arm kernels and never a time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from targets.devices.address import Address
from targets.devices.arm64 import emulation as processor
from targets.devices.arm64 import setup
from targets.devices.arm64.emulation import EXECUTORCH, LITERT, Arm64Worker, Emulation, capability, wheel_versions
from targets.devices.arm64.instructions import count
from targets.devices.device import Device, DeviceOptions, Found, InstructionCount, Say
from targets.types import TargetError, Unavailable
from targets.worker.facts import Conditions, DeviceFacts

if TYPE_CHECKING:
    import numpy as np

_RUNTIMES = {"tflite": (LITERT,), "executorch": (EXECUTORCH,)}


class Arm64Device:
    """What targets.devices.arm64.setup prepared.

    Raises:
        Unavailable: stage "device", nothing is prepared; the message says how.
        TargetError: stage "device", an option that makes no sense here.
    """

    times = False

    def __init__(self, address: Address, options: DeviceOptions):
        if reason := setup.ready():
            raise Unavailable("device", f"qemu-arm64: {reason}")
        if options.cpus:
            raise TargetError("device", "qemu-arm64 measures no time, so that cores are not chosen: leave --cpus out")
        self.address = address
        self._emulation = Emulation(setup.folder())
        self._timeout_s = options.timeout_s

    def facts(self) -> DeviceFacts:
        with self.worker() as worker:
            hello = worker.hello()
        return DeviceFacts(
            model="QEMU user mode emulation",
            chip=f"{processor.CHIP}, emulated",
            system=f"Linux aarch64 under qemu {self._emulation.version()} ({self._emulation.cpu})",
            cores=int(hello["cpus"]),
            runtimes={
                f"{target} {runtime}": capability(self._emulation, runtime)
                for target, runtimes in _RUNTIMES.items()
                for runtime in runtimes
            },
            versions={"python": hello["versions"]["python"], **wheel_versions(self._emulation.folder)},
            vector_extensions=processor.VECTOR_EXTENSIONS,
            emulated=True,
        )

    def conditions(self) -> Conditions:
        """Nothing of this host's state matters where no time is measured."""
        return Conditions()

    def runtimes(self, target: str, compute_units: str) -> tuple[str, ...]:
        return tuple(runtime for runtime in _RUNTIMES.get(target, ()) if capability(self._emulation, runtime).available)

    def worker(self) -> Arm64Worker:
        return Arm64Worker(self._emulation, self._timeout_s)

    def count_instructions(self, target: str, path: Path, runtime: str, image: np.ndarray) -> InstructionCount:
        """As targets.devices.device.CountsInstructions."""
        if runtime not in self.runtimes(target, ""):
            raise Unavailable("load", f"qemu-arm64 has no {runtime} for {target} files")
        return count(self._emulation, target, path, runtime, image, self._timeout_s)

    def close(self) -> None:
        """Nothing is kept open between workers."""


def device(address: Address, options: DeviceOptions, say: Say) -> Device:
    return Arm64Device(address, options)


def found(options: DeviceOptions) -> tuple[Found, ...]:
    return (Found(Address("qemu-arm64"), setup.ready()),)
