"""TensorFlow and a CUDA build of torch in one process: each program dies of a segmentation fault without the order."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(find_spec("triton") is None, reason="no triton here: torch is a CPU build, nothing can clash")
@pytest.mark.parametrize("first", ["targets.coreml.convert", "targets.tflite.convert"])
def test_torchvision_loads_after_a_converter(first: str) -> None:
    program = f"import {first} as target; reason = target.unavailable_reason(); assert not reason; import torchvision"
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr[-2000:]


def test_without_triton_nothing_is_loaded() -> None:
    program = (
        "import sys; from targets.triton_first import load_triton_first; load_triton_first(); "
        "import importlib.util as u; sys.exit(('triton' in sys.modules) != (u.find_spec('triton') is not None))"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=300).returncode == 0
