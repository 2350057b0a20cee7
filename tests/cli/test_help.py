"""`--help` tells what an option does when it is not given."""

from __future__ import annotations

import importlib
import inspect
import re

import pytest
from command_line import main_py

from pipeline.options import options_of


@pytest.mark.parametrize("command", ["quantize", "convert", "validate", "benchmark", "check", "compare"])
def test_help_shows_the_defaults_that_are_words(command: str) -> None:
    """Rich takes [default: ...] for markup, and leaves it out."""
    ended = main_py(command, "--help")
    assert ended.code == 0
    assert "[default: " in ended.out
    module = importlib.import_module(f"pipeline.commands.{command}")
    meant = len(re.findall(r"\\\\\[default: ", inspect.getsource(module)))
    for plan in getattr(module, command).plans.values():
        meant += sum(bool(declared.option.unset) for declared in options_of(plan).values())
    assert ended.out.count("default: ") >= meant
