"""`devices`: list what can be reached from here, with model, chip, system, cores, runtimes and state."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.commands.device_options import ListedDevices, address_of
from pipeline.commands.from_plans import from_plans
from pipeline.commands.options import say
from pipeline.errors import CellsFailedError


@from_plans
def devices(
    *,
    named: Annotated[
        list[str] | None,
        typer.Argument(help="Addresses, for example ssh:pi@board.  [default: this host, adb's phones, the emulator]"),
    ] = None,
    setup_arm64: Annotated[
        bool,
        typer.Option("--setup-arm64", help="Download what qemu-arm64 needs from Debian and PyPI into the cache first."),
    ] = False,
    access: ListedDevices,
) -> None:
    addresses = [address_of(text) for text in named or ()]
    like = next((address for address in addresses if address.kind == "ssh"), address_of("adb"))
    options = access.options(like)
    from pipeline.report.tables.latency import conditions_line, facts_lines
    from pipeline.stages.devices import look_at

    if setup_arm64:
        from targets.devices.arm64.setup import prepare

        say(f"qemu-arm64 is ready: {prepare(say)}")
    seen = look_at(addresses, options, say)
    for one in seen:
        print(one.address.label)
        if one.facts is None or one.conditions is None:
            print(f"  cannot be used: {one.problem}")
            continue
        for line in (*facts_lines(one.facts), f"now: {conditions_line(one.conditions)}"):
            print(f"  {line}")
    if failed := [one.address.label for one in seen if addresses and one.problem]:
        raise CellsFailedError(f"cannot use {', '.join(failed)}: see above")
