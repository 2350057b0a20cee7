"""Build the command line from plans: a parameter that is a plan becomes one option for each option of the plan."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, is_dataclass
from functools import wraps
from typing import Annotated, Any, Generic, TypeVar

import typer

from pipeline.commands.options import say
from pipeline.errors import UsageError
from pipeline.options import Declared, options_of

P = TypeVar("P")
_FORMER = "_former"  # ends the name of the parameter that takes an old spelling


@dataclass(frozen=True)
class Given(Generic[P]):
    """The options of a plan as the user gave them, not checked yet.

    Attributes:
        values: of all options.
        named: fields that were on the command line or in the environment, not left to their defaults.
    """

    plan: type[P]
    values: dict[str, Any]
    named: frozenset[str]

    def make(self, **others: Any) -> P:
        """The plan, with fields that are no options.

        Raises:
            UsageError: a value that it does not allow.
        """
        return self.plan(**{**self.values, **others})


def from_plans(command: Callable[..., None]) -> Callable[..., None]:
    """A Typer command whose options are declared on plans.

    A parameter of `command` annotated with a plan (a dataclass with options, pipeline.options) gets the checked plan;
    one annotated with `Given[plan]` gets what was typed. All other parameters are Typer's. `plans` of the result holds
    the plans by parameter.
    """
    hints = typing.get_type_hints(command, include_extras=True)
    plans = {name: plan for name, hint in hints.items() if (plan := _plan_in(hint)) is not None}
    parameters = [_parameter("context", typer.Context, inspect.Parameter.empty)]
    for name, parameter in inspect.signature(command).parameters.items():
        if name in plans:
            parameters += [made for declared in options_of(plans[name]).values() for made in _parameters(declared)]
        else:
            parameters.append(_parameter(name, hints[name], parameter.default))

    @wraps(command)
    def run(context: typer.Context, **values: Any) -> None:
        arguments: dict[str, Any] = {}
        for name, plan in plans.items():
            given: Given[Any] = _given(plan, context, values)
            arguments[name] = given if typing.get_origin(hints[name]) is Given else given.make()
        command(**values, **arguments)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.plans = plans  # type: ignore[attr-defined]
    return run


def _plan_in(hint: Any) -> type | None:
    if typing.get_origin(hint) is Given:
        return typing.cast(type, typing.get_args(hint)[0])
    return hint if isinstance(hint, type) and is_dataclass(hint) else None


def _parameter(name: str, kind: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


def _parameters(declared: Declared) -> Iterator[inspect.Parameter]:
    """The option, and the old spelling of it."""
    option = declared.option
    is_list = typing.get_origin(declared.kind) is tuple
    info = typer.Option(
        *declared.names,
        help=f"{option.help}  \\[default: {option.unset}]" if option.unset else option.help,
        show_default=not option.unset,
        envvar=option.environment or None,
        metavar=option.metavar or None,
        rich_help_panel=option.panel or None,
    )
    kind = list[str] | None if is_list else declared.kind
    yield _parameter(declared.name, Annotated[kind, info], None if is_list else declared.default)
    if option.former:
        old = typer.Option(option.former, hidden=True)
        yield _parameter(declared.name + _FORMER, Annotated[str | None, old], None)


def _given(plan: type[P], context: typer.Context, values: dict[str, Any]) -> Given[P]:
    """Takes the options of `plan` out of `values`."""
    taken: dict[str, Any] = {}
    named = set()
    for name, declared in options_of(plan).items():
        value = values.pop(name)
        taken[name] = tuple(value or ()) if typing.get_origin(declared.kind) is tuple else value
        source = context.get_parameter_source(name)
        if source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT"):
            named.add(name)
        former = values.pop(name + _FORMER) if declared.option.former else None
        if former is not None:
            old, flag = declared.option.former, declared.flag
            if name in named:
                raise UsageError(f"{old} is the old name of {flag}: give {flag} alone")
            say(f"hint: {old} is called {flag} now; the old name still works")
            taken[name] = former
            named.add(name)
    return Given(plan, taken, frozenset(named))
