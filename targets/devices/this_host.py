"""The device `host`: this machine, whose workers are child processes."""

from __future__ import annotations

from targets import registry
from targets.devices.address import Address
from targets.devices.device import Device, DeviceOptions, Found, Say
from targets.worker import readings
from targets.worker.facts import Conditions, DeviceFacts
from targets.worker.host import HostWorker


class ThisHost:
    """Workers of this machine."""

    times = True

    def __init__(self, address: Address, options: DeviceOptions):
        self.address = address
        self._options = options

    def facts(self) -> DeviceFacts:
        with HostWorker(self._options.timeout_s) as worker:  # it imports the runtimes, which may abort
            return worker.facts()

    def conditions(self) -> Conditions:
        return readings.conditions()

    def runtimes(self, target: str, compute_units: str) -> tuple[str, ...]:
        return registry.runtimes(target, compute_units)

    def worker(self) -> HostWorker:
        return HostWorker(self._options.timeout_s, cpus=self._options.cpus)

    def close(self) -> None:
        """Nothing is kept open between workers."""


def device(address: Address, options: DeviceOptions, say: Say) -> Device:
    return ThisHost(address, options)


def found(options: DeviceOptions) -> tuple[Found, ...]:
    return (Found(Address("host")),)
