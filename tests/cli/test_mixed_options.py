"""Options of mixed precision that cannot be: refused in one line, before a run folder is made."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import main_py


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-drop", "-1"], "--max-drop is -1.0: give percentage points"),
        (["--drop-target", "tflite"], "--drop-target says which targets hold --max-drop"),
        (["--max-drop", "1", "--drop-target", "tflit"], "unknown target 'tflit'; did you mean 'tflite'"),
        (["--max-drop", "1", "--rank-images", "0"], "--rank-images is 0: give at least 1"),
        (["--img-size", "64", "--float-layer", "readout.haed"], "Did you mean 'readout.head'"),
        (["--recipe", "gone.json"], "there is no recipe gone.json"),
        (["--recipe", "gone.json", "--resume"], "leave --recipe out"),
    ],
)
def test_wrong_options_are_refused_before_a_run_is_made(tmp_path: Path, options: list[str], message: str) -> None:
    ended = main_py("quantize", "t2t_vit_7", *options, "--runs-dir", tmp_path / "runs")
    assert ended.code == 2
    assert message in ended.err
    *before, error = ended.err.strip().splitlines()
    assert error.startswith("error: ")
    assert before in ([], ["no --weights given: demo"])
    assert not (tmp_path / "runs").exists()
