"""A hot device is waited for, a locked or drained one is refused, and both can be overruled."""

from __future__ import annotations

import pytest
from fake_device import FakeDevice

from pipeline.stages.devices import EntryLimits, enter, limits_of
from targets.types import TargetError
from targets.worker.facts import Conditions

LIMITS = EntryLimits(temperature_c=42.0, wait_s=60.0)


class Clock:
    """Time passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def __call__(self) -> float:
        return self.now


def entered(*states: Conditions, limits: EntryLimits = LIMITS) -> tuple[Conditions, Clock, list[str]]:
    clock, lines = Clock(), []
    found = enter(FakeDevice(states=list(states)), limits, lines.append, clock.sleep, clock)
    return found, clock, lines


def test_a_cool_device_is_entered_at_once() -> None:
    _, clock, lines = entered(Conditions(temperature_c=42.0, battery_percent=20.0, screen="on", low_power=False))
    assert (clock.now, lines) == (0.0, [])


def test_what_a_device_does_not_tell_refuses_nothing() -> None:
    assert entered(Conditions())[0] == Conditions()


def test_a_hot_device_is_waited_for_and_said() -> None:
    hot, cool = Conditions(temperature_c=45.0), Conditions(temperature_c=41.0)
    found, clock, lines = entered(hot, hot, cool)
    assert found == cool
    assert clock.now == 10.0
    assert "45.0 degrees Celsius, more than 42.0: waiting" in lines[0]


def test_a_device_that_stays_hot_is_refused_after_the_wait() -> None:
    with pytest.raises(TargetError, match=r"45\.0 degrees .* after 60 s .* --any-condition") as error:
        entered(Conditions(temperature_c=45.0))
    assert error.value.stage == "device"


@pytest.mark.parametrize("status", ["moderate", "severe", "critical", "emergency", "shutdown"])
def test_a_system_that_says_it_throttles_is_waited_for(status: str) -> None:
    with pytest.raises(TargetError, match=f"thermal status is {status}"):
        entered(Conditions(thermal_status=status))


@pytest.mark.parametrize("status", ["none", "light"])
def test_a_system_that_does_not_is_entered(status: str) -> None:
    assert entered(Conditions(thermal_status=status))[1].now == 0.0


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (Conditions(screen="off"), "screen is off"),
        (Conditions(screen="locked"), "screen is locked: unlock it"),
        (Conditions(low_power=True), "power saving mode is on"),
        (Conditions(battery_percent=19.0), "19 %, less than 20 %"),
        (Conditions(temperature_c=50.0, screen="locked"), "screen is locked"),
    ],
)
def test_what_waiting_does_not_mend_is_refused_at_once(state: Conditions, says: str) -> None:
    with pytest.raises(TargetError, match=says) as error:
        entered(state)
    assert "--any-condition" in str(error.value)


def test_any_condition_enters_and_keeps_what_it_was() -> None:
    state = Conditions(temperature_c=80.0, screen="locked", battery_percent=1.0)
    assert entered(state, limits=limits_of("adb", None, 60.0, enforced=False))[0] == state


def test_only_devices_that_can_be_too_hot_are_held_to_it() -> None:
    assert limits_of("adb", None, 1.0, True) == EntryLimits(42.0, 1.0, True)
    assert limits_of("ssh", 50.0, 1.0, True) == EntryLimits(50.0, 1.0, True)
    assert not limits_of("host", None, 1.0, True).enforced
    assert not limits_of("qemu-arm64", None, 1.0, True).enforced
