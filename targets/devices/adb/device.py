"""The device `adb:SERIAL`: an Android phone that runs the runtimes' own programs."""

from __future__ import annotations

from functools import cached_property

from targets.devices.adb import android
from targets.devices.adb.runners import RUNNERS, abi_of
from targets.devices.adb.session import AdbWorker, program_of
from targets.devices.adb.shell import NONE_THERE, Shell, only, require_adbutils
from targets.devices.adb.shell import found as listed
from targets.devices.address import Address
from targets.devices.device import Device, DeviceOptions, Found, Say
from targets.types import Capability, TargetError
from targets.worker.facts import Conditions, DeviceFacts


class AdbDevice:
    """A phone behind adb; the serial of the only one is filled in when it is first reached for."""

    times = True

    def __init__(self, address: Address, options: DeviceOptions, say: Say):
        self.address = address
        self._options = options
        self._say = say

    @cached_property
    def _shell(self) -> Shell:
        serial = only(self.address.name)
        self.address = Address("adb", serial)
        return Shell(serial, self._options.timeout_s)

    @cached_property
    def _parts(self) -> dict[str, str]:
        return android.parts_of(self._shell.script(android.script_of(android.FACTS)).output)

    @cached_property
    def _abis(self) -> tuple[str, ...]:
        return android.abis_of(android.properties(self._parts.get("getprop", "")))

    def facts(self) -> DeviceFacts:
        parts = self._parts
        props, cpuinfo = android.properties(parts.get("getprop", "")), parts.get("cpuinfo", "")
        return DeviceFacts(
            model=android.model_of(props),
            chip=android.chip_of(props, cpuinfo),
            system=android.system_of(props, parts.get("uname", "")),
            cores=android.cores_of(parts.get("cores", "")),
            runtimes={f"{target} {runner.runtime}": self._runs(target) for target, runner in RUNNERS.items()},
            versions={"abi": ", ".join(self._abis)} if self._abis else {},
            vector_extensions=android.extensions_of(cpuinfo),
        )

    def conditions(self) -> Conditions:
        output = self._shell.script(android.script_of(android.CONDITIONS)).output
        return android.conditions_of(android.parts_of(output))

    def runtimes(self, target: str, compute_units: str) -> tuple[str, ...]:
        return (RUNNERS[target].runtime,) if target in RUNNERS else ()

    def worker(self) -> AdbWorker:
        return AdbWorker(self._shell, self._options, self._abis, self._say)

    def close(self) -> None:
        """Nothing is kept open between requests."""

    def _runs(self, target: str) -> Capability:
        try:
            abi = abi_of(program_of(target, self._options))
        except (TargetError, ValueError, OSError) as error:
            return Capability(False, error.cause if isinstance(error, TargetError) else str(error))
        if abi not in self._abis:
            return Capability(False, f"{RUNNERS[target].option} is for {abi}, the phone runs {', '.join(self._abis)}")
        return Capability(True)


def device(address: Address, options: DeviceOptions, say: Say) -> Device:
    require_adbutils()
    return AdbDevice(address, options, say)


def found(options: DeviceOptions) -> tuple[Found, ...]:
    """Every device that adb sees; where there is none, or adb itself is missing, one entry that says so."""
    try:
        require_adbutils()
        return listed() or (Found(Address("adb"), NONE_THERE),)
    except TargetError as error:
        return (Found(Address("adb"), error.cause),)
