"""Every option has one owner: its default stands there and nowhere else, and the command line and documents agree."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from command_line import main_py

from pipeline import commands
from pipeline.commands.from_plans import Given, from_plans
from pipeline.config import RunConfig, ValidationPlan
from pipeline.options import Option, options_of
from pipeline.training.plan import LIGHT_LR, PAPER_LR, FloatRecipe

ROOT = Path(__file__).parents[2]
COMMANDS: dict[str, Any] = {name: commands.load(name) for name in commands.COMMANDS}


def is_plain(value: object) -> bool:
    """Switches, and what says "nothing" (empty, zero): a second one is no second default."""
    return isinstance(value, bool) or not value


def plans_of(command: Any) -> list[type]:
    return list(getattr(command.callback, "plans", {}).values())


ALL_PLANS = {plan for command in COMMANDS.values() for plan in plans_of(command)}
#: (class that declares the field, field) -> its own default.
OWNED = {
    (part, name): vars(part)[name]
    for plan in ALL_PLANS
    for part in plan.__mro__
    for name in options_of(plan)
    if name in vars(part).get("__annotations__", ()) and name in vars(part)
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_the_default_of_its_owner(name: str) -> None:
    command = COMMANDS[name]
    by_name = {parameter.name: parameter for parameter in command.params}
    for plan in plans_of(command):
        defaults = {field.name: field.default for field in dataclasses.fields(plan)}
        for field, declared in options_of(plan).items():
            parameter = by_name[field]
            assert (parameter.default or ()) == defaults[field] or parameter.default == defaults[field], declared.flag
            assert declared.flag in parameter.opts
            assert declared.option.help in parameter.help


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_types_an_option_of_a_plan_again(name: str) -> None:
    """What a command declares itself belongs to no plan that it, or another command, could have taken it from."""
    command = COMMANDS[name]
    from_its_plans = {field for plan in plans_of(command) for field in options_of(plan)}
    owners: dict[str, set[object]] = {}
    for (_, field), default in OWNED.items():
        owners.setdefault(field, set()).add(default)
    for parameter in command.params:
        if parameter.name not in from_its_plans and not is_plain(parameter.default):
            assert parameter.default not in owners.get(parameter.name, ()), parameter.name


def test_no_default_of_an_option_stands_twice() -> None:
    """Neither on two plans nor as a literal of a parameter or field of that name elsewhere in the program."""
    seen: dict[tuple[str, object], list[str]] = {}
    for (part, field), default in OWNED.items():
        if not is_plain(default):
            seen.setdefault((field, default), []).append(part.__name__)
    assert {key: parts for key, parts in seen.items() if len(parts) > 1} == {}
    again = [
        f"{path.relative_to(ROOT)}: {name} = {value}"
        for folder in ("pipeline", "targets", "calibration")
        for path in (ROOT / folder).rglob("*.py")
        for inside, name, value in literals(ast.parse(path.read_text(encoding="utf-8")))
        if not is_plain(value) and (name, value) in seen and inside not in seen[name, value]
    ]
    assert again == []


def literals(tree: ast.AST, inside: str = "") -> Iterator[tuple[str, str, object]]:
    """(class, name, value) of every parameter and annotated field with a literal default."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            if isinstance(node.value, ast.Constant):
                yield inside, node.target.id, node.value.value
        elif isinstance(node, ast.FunctionDef):
            positional = [*node.args.posonlyargs, *node.args.args]
            pairs = [*zip(positional[::-1], node.args.defaults[::-1], strict=False)]
            pairs += [(a, d) for a, d in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True) if d is not None]
            for argument, default in pairs:
                if isinstance(default, ast.Constant):
                    yield inside, argument.arg, default.value
        yield from literals(node, node.name if isinstance(node, ast.ClassDef) else inside)


def test_documents_name_the_defaults() -> None:
    quantization = (ROOT / "docs" / "quantization.md").read_text(encoding="utf-8")
    defaults = quantization[quantization.index("**Defaults**") :]
    for said in (
        f"`--distill {RunConfig.distill:g}`",
        f"`--ranges {RunConfig.ranges}`",
        f"a learning rate of {RunConfig.lr:.0e}".replace("e-0", "e-"),
        f"`--ema {RunConfig.ema:g}`",
        f"freezing at {RunConfig.observer_freeze:g}",
    ):
        assert said in defaults, said
    training = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    rows = {cells[-2].strip(): cells[2:-2] for line in training.splitlines() if len(cells := line.split("|")) == 7}
    assert [float(cell) for cell in rows["`--weight-decay`"]] == [FloatRecipe.weight_decay] * 3
    assert [float(cell) for cell in rows["`--label-smoothing`"]] == [FloatRecipe.label_smoothing] * 3
    assert [float(cell.split()[0]) for cell in rows["`--lr`"]] == [PAPER_LR, LIGHT_LR, LIGHT_LR]
    assert f"`--float-lr` (default {RunConfig.float_lr:.0e})".replace("e-0", "e-") in training


@pytest.mark.parametrize(
    ("arguments", "now"),
    [
        ("quantize t2t_vit_7 --weights none --device cuda:77", "--train-device"),
        ("train t2t_vit_7 --out x.safetensors --device cuda:77", "--train-device"),
        ("validate --device hots", "--on"),
        ("benchmark --device hots", "--on"),
    ],
)
def test_the_old_spelling_of_device_works_with_one_hint(
    arguments: str, now: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = main_py(*arguments.split())
    hint, error = ended.err.strip().splitlines()[:2]
    assert ended.code == 2
    assert hint == f"hint: --device is called {now} now; the old name still works"
    assert error.startswith(f"error: {now} ")
    assert ended.out == ""
    new = main_py(*arguments.replace("--device", now).split())
    assert (new.code, new.err.strip()) == (2, ended.err.strip().split("\n", 1)[1])
    both = main_py(*arguments.split(), now, "cpu")
    assert both.code == 2
    assert f"--device is the old name of {now}: give {now} alone" in both.err


@pytest.mark.parametrize("command", ["quantize", "train", "validate", "benchmark"])
def test_the_old_spelling_is_not_offered(command: str) -> None:
    assert "--device " not in main_py(command, "--help").out


def test_a_plan_gets_what_was_given_and_what_was_not_stays_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[Any] = []

    @from_plans
    def command(*, plan: ValidationPlan, options: Given[FloatRecipe]) -> None:
        got.extend((plan, options))

    small = typer.Typer()
    small.command()(command)
    small(["--limit", "3", "--rounding", "fp16", "--no-simulate", "--lr", "0.5"], standalone_mode=False)
    plan, options = got
    assert plan == ValidationPlan(limit=3, roundings=("fp16",), simulate=False)
    assert options.named == {"lr"}
    assert options.make(seed=4) == FloatRecipe(lr=0.5, seed=4)


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        (Option("x", above=0), 0.0, "--x is 0.0: give a number above 0"),
        (Option("x", above=0), float("nan"), "--x is nan"),
        (Option("x", least=2), 1, "--x is 1: give at least 2"),
        (Option("x", least=0.0), -0.5, "--x is -0.5: give a number of at least 0"),
        (Option("x", least=0.0), float("inf"), "--x is inf"),
        (Option("x", least=0.0, most=1.0), 1.5, "--x is 1.5: give a number from 0.0 to 1.0"),
        (Option("x", least=0, below=1, wanted="less"), 1.0, "--x is 1.0: give less"),
        (Option("x", choices=("one", "two")), "tow", "--x 'tow' is not one of one, two. Did you mean 'two'"),
    ],
)
def test_bounds_and_choices(option: Option, value: object, says: str) -> None:
    from pipeline.errors import UsageError

    with pytest.raises(UsageError, match=says.replace(".", r"\.")):
        option.check("--x", value)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        (Option("x", above=0), 1e-9),
        (Option("x", least=2), 2),
        (Option("x", least=0.0, most=1.0), 1.0),
        (Option("x", least=0, below=1), 0),
        (Option("x"), float("inf")),
        (Option("x", choices=("one",)), "one"),
    ],
)
def test_values_at_the_bounds_are_allowed(option: Option, value: object) -> None:
    option.check("--x", value)
