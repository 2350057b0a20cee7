"""What the user types for a device, and what is refused before anything is reached for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.commands.device_options import DeviceChoice, cpus_of
from pipeline.errors import UsageError
from targets.devices.address import Address, BadAddress, parse
from targets.devices.device import DeviceOptions

GOOD = {
    "host": Address("host"),
    "adb": Address("adb"),
    "adb:0A1B2C3D": Address("adb", "0A1B2C3D"),
    "adb:192.168.1.5:5555": Address("adb", "192.168.1.5:5555"),
    "adb:emulator-5554": Address("adb", "emulator-5554"),
    "ssh:pi@raspberrypi.local": Address("ssh", "raspberrypi.local", "pi"),
    "ssh:me@10.0.0.2:2222": Address("ssh", "10.0.0.2", "me", 2222),
    "ssh:me@[fe80::1%eth0]": Address("ssh", "fe80::1%eth0", "me"),
    "qemu-arm64": Address("qemu-arm64"),
}


@pytest.mark.parametrize("text", GOOD)
def test_addresses(text: str) -> None:
    assert parse(text) == GOOD[text]


@pytest.mark.parametrize("text", [text for text in GOOD if "[" not in text])
def test_the_label_is_what_was_typed(text: str) -> None:
    assert parse(text).label == text


NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}", fullmatch=True)


@given(user=NAMES, name=NAMES, port=st.none() | st.integers(1, 65535))
def test_every_address_comes_back_from_its_label(user: str, name: str, port: int | None) -> None:
    for address in (Address("ssh", name, user, port), Address("adb", name)):
        assert parse(address.label) == address


@given(name=NAMES, at=st.integers(0, 9), odd=st.sampled_from(" ;$()|&<>'\"`\n\\*?"))
def test_a_character_that_a_shell_reads_is_refused(name: str, at: int, odd: str) -> None:
    bad = name[:at] + odd + name[at:]
    for text in (f"adb:{bad}", f"ssh:{bad}@host", f"ssh:me@{bad}"):
        with pytest.raises(BadAddress):
            parse(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no such kind of device"),
        ("qemu_arm64", "Did you mean qemu-arm64"),
        ("host:1", "host takes no name"),
        ("adb:", "is no serial number"),
        ("adb:-s", "is no serial number"),
        ("adb:a b", "is no serial number"),
        ("adb:$(reboot)", "is no serial number"),
        ("ssh:raspberrypi", "ssh:USER@HOST"),
        ("ssh:@host", "ssh:USER@HOST"),
        ("ssh:-oProxyCommand=x@host", "ssh:USER@HOST"),
        ("ssh:me@-host", "ssh:USER@HOST"),
        ("ssh:me@host;reboot", "ssh:USER@HOST"),
        ("ssh:me@host:0", "port '0'"),
        ("ssh:me@host:99999", "port '99999'"),
        ("ssh:me@host:", "port ''"),
    ],
)
def test_what_is_no_address_is_refused(text: str, says: str) -> None:
    with pytest.raises(BadAddress, match=says.replace("(", r"\(").replace("$", r"\$")):
        parse(text)


@pytest.mark.parametrize(
    ("text", "cores"), [("", ()), ("3", (3,)), ("4-7", (4, 5, 6, 7)), ("0,2", (0, 2)), ("6-7, 0, 6", (0, 6, 7))]
)
def test_cores(text: str, cores: tuple[int, ...]) -> None:
    assert cpus_of(text) == cores


@pytest.mark.parametrize("text", ["x", "1-", "-1", "7-4", "1,,2", "5000", "0x3"])
def test_what_is_no_core_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--cpus"):
        cpus_of(text)


def options_for(on: str, **values: Any) -> DeviceOptions:
    return DeviceChoice(on=on, **values).device_options()


def test_options_of_another_kind_are_refused() -> None:
    with pytest.raises(UsageError, match="--remote-python is for ssh, not for --on host"):
        options_for("host", remote_python="python3.12")
    with pytest.raises(UsageError, match="--device-timeout is 0"):
        options_for("adb", device_timeout=0)
    with pytest.raises(UsageError, match="--benchmark-model nowhere: no such file"):
        options_for("adb", benchmark_model=Path("nowhere"))


def test_a_device_has_less_time_than_this_host() -> None:
    assert options_for("adb").timeout_s < options_for("host").timeout_s
