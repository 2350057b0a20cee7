"""Options that say on which device, and how, and the place that they become."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.commands.options import say
from pipeline.errors import UsageError
from targets.devices.address import FORMS, Address, BadAddress, parse

if TYPE_CHECKING:
    from pipeline.stages.devices import Place
    from targets.devices.device import DeviceOptions

PANEL = "On a device"
DeviceAddress = Annotated[
    str, typer.Option("--device", help=f"Where to run: {FORMS}. `devices` lists them.", rich_help_panel=PANEL)
]
DeviceTimeout = Annotated[
    float | None,
    typer.Option(
        help="Seconds for one request to a device: a file, a batch, a round.  \\[default: 120; 1800 on this host]",
        rich_help_panel=PANEL,
    ),
]
Cpus = Annotated[str, typer.Option(help="Cores to bind inferences to, for example 4-7 or 0,2.", rich_help_panel=PANEL)]
BenchmarkModel = Annotated[
    Path | None,
    typer.Option(help="LiteRT's benchmark_model for the phone (adb).", envvar="EDGE_T2T_BENCHMARK_MODEL",
                 rich_help_panel=PANEL),
]  # fmt: skip
ExecutorRunner = Annotated[
    Path | None,
    typer.Option(help="ExecuTorch's executor_runner for the phone (adb).", envvar="EDGE_T2T_EXECUTOR_RUNNER",
                 rich_help_panel=PANEL),
]  # fmt: skip
KnownHosts = Annotated[
    Path | None,
    typer.Option(help="Host keys to trust (ssh).  \\[default: ~/.ssh/known_hosts]", rich_help_panel=PANEL),
]
Identity = Annotated[
    Path | None,
    typer.Option(help="Private key (ssh).  \\[default: the agent's, and those in ~/.ssh]", rich_help_panel=PANEL),
]
RemotePython = Annotated[
    str, typer.Option(help="Python on the device that has the runtimes (ssh).", rich_help_panel=PANEL)
]
MaxTemperature = Annotated[
    float | None,
    typer.Option(
        help="Degrees Celsius; a hotter device is left to cool down first.  \\[default: adb 42, ssh 65]",
        rich_help_panel=PANEL,
    ),
]
CoolDown = Annotated[float, typer.Option(help="Seconds to wait for that at most.", rich_help_panel=PANEL)]
AnyCondition = Annotated[
    bool,
    typer.Option("--any-condition", help="Time hot, locked or drained devices as they are.", rich_help_panel=PANEL),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Leave out what was done there before, on this file and in this way.")
]
PYTHON = "python3"


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


def options_of(
    address: Address,
    timeout_s: float | None = None,
    cpus: str = "",
    benchmark_model: Path | None = None,
    executor_runner: Path | None = None,
    known_hosts: Path | None = None,
    identity: Path | None = None,
    python: str = PYTHON,
) -> DeviceOptions:
    """
    Raises:
        UsageError: an option that the kind of device does not take, a file that is not there, or a bad value.
    """
    from targets.devices.client import TIMEOUT_S
    from targets.devices.device import DEVICE_TIMEOUT_S, DeviceOptions

    if timeout_s is not None and not 1 <= timeout_s <= 86400:
        raise UsageError(f"--device-timeout is {timeout_s:g}: give seconds from 1 to 86400")
    of_ssh = {"--known-hosts": known_hosts, "--identity": identity}
    for option, path in of_ssh.items():
        if path is not None and address.kind != "ssh":
            raise UsageError(f"{option} is for ssh, not for --device {address.label}: leave it out")
    if python != PYTHON and address.kind != "ssh":
        raise UsageError(f"--remote-python is for ssh, not for --device {address.label}: leave it out")
    programs = {"--benchmark-model": benchmark_model, "--executor-runner": executor_runner}
    wanted = of_ssh | (programs if address.kind == "adb" else {})
    for option, path in wanted.items():
        if path is not None and not path.is_file():
            raise UsageError(f"{option} {path}: no such file")
    default_s = TIMEOUT_S if address.kind == "host" else DEVICE_TIMEOUT_S
    return DeviceOptions(
        timeout_s=default_s if timeout_s is None else timeout_s,
        cpus=cpus_of(cpus),
        benchmark_model=benchmark_model,
        executor_runner=executor_runner,
        known_hosts=known_hosts,
        identity=identity,
        python=python,
    )


def place_of(
    address: Address, options: DeviceOptions, temperature_c: float | None, wait_s: float, any_condition: bool
) -> Place:
    """
    Raises:
        UsageError: a bad value.
        TargetError: stage "device", this machine lacks what the kind of device needs.
    """
    from pipeline.stages.devices import Place

    if temperature_c is not None and not 0 < temperature_c < 120:
        raise UsageError(f"--max-temperature is {temperature_c:g}: give degrees Celsius above 0 and below 120")
    if not 0 <= wait_s <= 86400:
        raise UsageError(f"--cool-down is {wait_s:g}: give seconds from 0 to 86400")
    return Place.at(address, options, say, temperature_c, wait_s, not any_condition)
