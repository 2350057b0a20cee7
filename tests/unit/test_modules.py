"""Every module of the packages can be imported, by itself and whatever came before it."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import calibration
import pipeline
import targets

MODULES = [
    module.name
    for package in (calibration, pipeline, targets)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if not module.name.endswith("__main__")
]


@pytest.mark.parametrize("name", MODULES)
def test_every_module_can_be_imported(name: str) -> None:
    importlib.import_module(name)
