"""Declare an option where its value is kept: on the field of a plan, with its default, help text and allowed values.

A plan is a frozen dataclass whose fields are annotated with an `Option`. Commands (pipeline.commands.from_plans), the
configuration of a run and recipes read these fields; no default and no range is written anywhere else.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

from pipeline.errors import UsageError
from targets.words import suggest


@dataclass(frozen=True)
class Option:
    """How a field looks on the command line, and which values it takes.

    Attributes:
        help: one sentence for `--help`.
        unset: what happens without the option, in words, where the default alone does not say it.
        names: as typed; none: the name of the field. `--x/--no-x` has a negative, `--x` is a plain switch.
        former: an old name of the option that still works, with a hint.
        environment: a variable that sets it too.
        panel: heading in `--help`.
        metavar: what the value is called in `--help`; none: its type.
        choices: all allowed texts.
        above, least, below, most: bounds of a number; a bounded number is finite.
        wanted: the allowed values in words, for the message that refuses others.
    """

    help: str
    _: KW_ONLY
    unset: str = ""
    names: tuple[str, ...] = ()
    former: str = ""
    environment: str = ""
    panel: str = ""
    metavar: str = ""
    choices: tuple[str, ...] = ()
    above: float | None = None
    least: float | None = None
    below: float | None = None
    most: float | None = None
    wanted: str = ""

    def check(self, flag: str, value: object) -> None:
        """
        Raises:
            UsageError: the value is not allowed; says which are.
        """
        if self.choices and value not in self.choices:
            known = ", ".join(self.choices)
            raise UsageError(f"{flag} {value!r} is not one of {known}.{suggest(str(value), self.choices)}")
        if isinstance(value, int | float) and not self._allows(value):
            raise UsageError(f"{flag} is {value}: give {self.wanted or self._range()}")

    def _allows(self, value: float) -> bool:
        if self.above is self.least is self.below is self.most is None:
            return True
        return (
            math.isfinite(value)
            and (self.above is None or value > self.above)
            and (self.least is None or value >= self.least)
            and (self.below is None or value < self.below)
            and (self.most is None or value <= self.most)
        )

    def _range(self) -> str:
        if self.above is not None:
            return f"a number above {self.above:g}"
        if self.most is not None:
            return f"a number from {self.least} to {self.most}"
        return f"at least {self.least}" if isinstance(self.least, int) else f"a number of at least {self.least:g}"


@dataclass(frozen=True)
class Declared:
    """One option of a plan: the field that owns it.

    Attributes:
        kind: type of the field, without the option.
    """

    name: str
    kind: Any
    default: Any
    option: Option

    @property
    def names(self) -> tuple[str, ...]:
        return self.option.names or (f"--{self.name.replace('_', '-')}",)

    @property
    def flag(self) -> str:
        """As messages call it."""
        return self.names[0].partition("/")[0]


def options_of(plan: type) -> Mapping[str, Declared]:
    """The options of a plan by field: its own first, then those of the plans that it is composed of."""
    hints = typing.get_type_hints(plan, include_extras=True)
    defaults = {field.name: field.default for field in dataclasses.fields(plan)}
    names = dict.fromkeys(name for part in plan.__mro__ for name in vars(part).get("__annotations__", ()))
    found = {}
    for name in names:
        option = next((m for m in getattr(hints[name], "__metadata__", ()) if isinstance(m, Option)), None)
        if option is not None:
            found[name] = Declared(name, typing.get_args(hints[name])[0], defaults[name], option)
    return found


def check(plan: Any) -> None:
    """Check every option of a plan; None means that the option was not given.

    Raises:
        UsageError: names the option, the value and what is allowed.
    """
    for name, declared in options_of(type(plan)).items():
        value = getattr(plan, name)
        if value is not None:
            declared.option.check(declared.flag, value)
