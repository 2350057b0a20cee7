"""Options that say on which device to measure, and how; and the place that they become."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pipeline.commands.options import say
from pipeline.errors import UsageError
from pipeline.options import Option, check
from pipeline.stages.devices import TEMPERATURE_C, EntryLimits, limits_of
from targets.devices.address import FORMS, Address, BadAddress, parse
from targets.devices.device import DEVICE_TIMEOUT_S, DeviceOptions
from targets.worker.client import TIMEOUT_S

if TYPE_CHECKING:
    from pipeline.stages.devices import Place

PANEL = "On a device"
LONGEST_S = 86400
_SECONDS = f"seconds from 1 to {LONGEST_S}"


@dataclass(frozen=True, kw_only=True)
class DeviceAccess:
    """How a device is reached, and what runs there."""

    device_timeout: Annotated[
        float | None,
        Option("Seconds for one request to a device: a file, a batch, a round.",
               unset=f"{DEVICE_TIMEOUT_S:g}; {TIMEOUT_S:g} on this host", panel=PANEL, least=1, most=LONGEST_S,
               wanted=_SECONDS),
    ] = None  # fmt: skip
    benchmark_model: Annotated[
        Path | None,
        Option("LiteRT's benchmark_model for the phone (adb).", environment="EDGE_T2T_BENCHMARK_MODEL", panel=PANEL),
    ] = None
    executor_runner: Annotated[
        Path | None,
        Option(
            "ExecuTorch's executor_runner for the phone (adb).", environment="EDGE_T2T_EXECUTOR_RUNNER", panel=PANEL
        ),
    ] = None
    known_hosts: Annotated[
        Path | None, Option("Host keys to trust (ssh).", unset="~/.ssh/known_hosts", panel=PANEL)
    ] = None
    identity: Annotated[
        Path | None, Option("Private key (ssh).", unset="the agent's, and those in ~/.ssh", panel=PANEL)
    ] = None
    remote_python: Annotated[str, Option("Python on the device that has the runtimes (ssh).", panel=PANEL)] = (
        DeviceOptions.python
    )

    def __post_init__(self) -> None:
        check(self)

    def options(self, address: Address, cpus: tuple[int, ...] = ()) -> DeviceOptions:
        """
        Raises:
            UsageError: an option that the kind of device does not take, or a file that is not there.
        """
        of_ssh = {"--known-hosts": self.known_hosts, "--identity": self.identity}
        for option, path in of_ssh.items():
            if path is not None and address.kind != "ssh":
                raise UsageError(f"{option} is for ssh, not for --on {address.label}: leave it out")
        if self.remote_python != DeviceOptions.python and address.kind != "ssh":
            raise UsageError(f"--remote-python is for ssh, not for --on {address.label}: leave it out")
        programs = {"--benchmark-model": self.benchmark_model, "--executor-runner": self.executor_runner}
        wanted = of_ssh | (programs if address.kind == "adb" else {})
        for option, path in wanted.items():
            if path is not None and not path.is_file():
                raise UsageError(f"{option} {path}: no such file")
        default_s = TIMEOUT_S if address.kind == "host" else DEVICE_TIMEOUT_S
        return DeviceOptions(
            timeout_s=default_s if self.device_timeout is None else self.device_timeout,
            cpus=cpus,
            benchmark_model=self.benchmark_model,
            executor_runner=self.executor_runner,
            known_hosts=self.known_hosts,
            identity=self.identity,
            python=self.remote_python,
        )


@dataclass(frozen=True, kw_only=True)
class ListedDevices(DeviceAccess):
    """Devices that are looked at, and not worked on."""

    device_timeout: Annotated[
        float, Option("Seconds for one request to a device.", panel=PANEL, least=1, most=LONGEST_S, wanted=_SECONDS)
    ] = 30.0


@dataclass(frozen=True, kw_only=True)
class DeviceChoice(DeviceAccess):
    """The device that artifacts run on."""

    on: Annotated[str, Option(f"Where to run: {FORMS}. `devices` lists them.", former="--device", panel=PANEL)] = "host"
    cpus: Annotated[str, Option("Cores to bind inferences to, for example 4-7 or 0,2.", panel=PANEL)] = ""
    resume: Annotated[
        bool, Option("Leave out what was done there before, on this file and in this way.", names=("--resume",))
    ] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.device_options()

    @property
    def address(self) -> Address:
        """
        Raises:
            UsageError: `on` is no address.
        """
        return address_of(self.on)

    def device_options(self) -> DeviceOptions:
        """
        Raises:
            UsageError: no address, no list of cores, or see `options`.
        """
        return self.options(self.address, cpus_of(self.cpus))

    def place(self) -> Place:
        """
        Raises:
            TargetError: stage "device", this machine lacks what the kind of device needs.
        """
        from pipeline.stages.devices import Place

        return Place.at(self.address, self.device_options(), say, self._limits())

    def _limits(self) -> EntryLimits:
        """Conditions to enter by."""
        return limits_of(self.address.kind)


@dataclass(frozen=True, kw_only=True)
class TimedDevice(DeviceChoice):
    """The device that artifacts are timed on."""

    max_temperature: Annotated[
        float | None,
        Option("Degrees Celsius; a hotter device is left to cool down first.",
               unset=", ".join(f"{kind} {limit:g}" for kind, limit in TEMPERATURE_C.items()), panel=PANEL,
               above=0, below=120, wanted="degrees Celsius above 0 and below 120"),
    ] = None  # fmt: skip
    cool_down: Annotated[
        float,
        Option("Longest time in seconds to wait for that.", panel=PANEL, least=0, most=LONGEST_S,
               wanted=f"seconds from 0 to {LONGEST_S}"),
    ] = EntryLimits.wait_s  # fmt: skip
    any_condition: Annotated[
        bool, Option("Time hot, locked or drained devices as they are.", names=("--any-condition",), panel=PANEL)
    ] = False

    def _limits(self) -> EntryLimits:
        return limits_of(self.address.kind, self.max_temperature, self.cool_down, not self.any_condition)


def address_of(text: str) -> Address:
    """
    Raises:
        UsageError: it is no address.
    """
    try:
        return parse(text)
    except BadAddress as error:
        raise UsageError(str(error)) from None


def cpus_of(text: str) -> tuple[int, ...]:
    """ "4-7" -> (4, 5, 6, 7); nothing -> ().

    Raises:
        UsageError: it is no list of cores.
    """
    found: set[int] = set()
    for part in text.split(",") if text else ():
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(last) < int(first)):
            raise UsageError(f"--cpus {text!r}: {part.strip()!r} is no core and no range; write 4-7 or 0,2")
        if int(last if dash else first) > 1023:
            raise UsageError(f"--cpus {text!r}: no device has a core {last if dash else first}")
        found |= set(range(int(first), int(last if dash else first) + 1))
    return tuple(sorted(found))
