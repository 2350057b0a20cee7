"""Whoever imports TensorFlow, in whatever process of this project: triton is loaded before it."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
#: Each is imported before all others once; all of them, and every module of targets, after it.
SDKS = (
    "tensorflow",
    "coremltools",
    "litert_torch",
    "ai_edge_litert.interpreter",
    "ai_edge_quantizer",
    "executorch.exir",
    "executorch.runtime",
    "torchao.quantization.pt2e.quantize_pt2e",
    "torchvision",
    "torch._inductor.compile_fx",
)
EVERYTHING = """
import importlib, pkgutil, sys
import targets
from calibration.torchvision_compat import ensure_torchvision
if sys.argv[1] == "torchvision":
    ensure_torchvision()
importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(targets.__path__, "targets."):
    importlib.import_module(module.name)
ensure_torchvision()
for sdk in sys.argv[2:]:
    importlib.import_module(sdk)
print("all imported")
"""


def run(program: str, *arguments: str, packages: Path | None = None) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(str(p) for p in (ROOT, packages) if p is not None)
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A folder with a triton, and with a TensorFlow that refuses to be loaded before it."""
    (tmp_path / "triton.py").write_text("")
    (tmp_path / "tensorflow.py").write_text("import sys\nassert 'triton' in sys.modules, 'TensorFlow came first'\n")
    return tmp_path


# The doors into this project: commands, the worker, what a device's worker and a counted process start with, tests.
@pytest.mark.parametrize(
    "door",
    [
        "pipeline.commands",
        "targets.worker.worker",
        "targets.devices.ssh.keeper",
        "targets.devices.arm64.counted",
        "targets",
    ],
)
def test_every_entry_loads_triton_before_tensorflow(door: str, packages: Path) -> None:
    ended = run(f"import sys; sys.path.insert(0, {str(packages)!r}); import {door}, tensorflow", packages=packages)
    assert ended.returncode == 0, ended.stderr[-2000:]


def test_the_stand_in_refuses_the_other_order(packages: Path) -> None:
    ended = run(f"import sys; sys.path.insert(0, {str(packages)!r}); import tensorflow, targets")
    assert "TensorFlow came first" in ended.stderr


def test_this_test_run_has_the_order_too() -> None:
    from targets import TritonFirst

    assert any(isinstance(finder, TritonFirst) for finder in sys.meta_path)


def test_the_command_line_starts_without_triton(packages: Path) -> None:
    assert run("import sys, pipeline.commands; sys.exit('triton' in sys.modules)", packages=packages).returncode == 0


def test_a_broken_triton_does_not_stop_tensorflow(packages: Path) -> None:
    (packages / "triton.py").write_text("raise ImportError('built for another system')")
    (packages / "tensorflow.py").write_text("")
    ended = run(f"import sys; sys.path.insert(0, {str(packages)!r}); import targets, tensorflow")
    assert ended.returncode == 0, ended.stderr[-2000:]


@pytest.mark.skipif(find_spec("triton") is None, reason="no triton here: torch is a CPU build, nothing can clash")
@pytest.mark.parametrize("first", SDKS)
def test_every_module_and_sdk_loads_after_each_sdk(first: str) -> None:
    ended = run(EVERYTHING, first, *SDKS)
    assert (ended.returncode, ended.stdout[-13:]) == (0, "all imported\n"), ended.stderr[-2000:]
