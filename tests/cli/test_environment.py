"""`python main.py` typed in a shell whose Python has none of our packages."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

MAIN = Path(__file__).resolve().parents[2] / "main.py"
BARE = [sys.executable, "-I", "-S"]  # no site-packages


def test_packages_that_are_not_installed_are_told_with_what_to_do(tmp_path: Path) -> None:
    shutil.copy(MAIN, tmp_path)
    ended = subprocess.run([*BARE, "main.py", "models"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "no typer and no torch: run `make setup`" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_environment_of_make_setup_is_used_where_there_is_one(tmp_path: Path) -> None:
    shutil.copy(MAIN, tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\nprintf '%s|' \"$@\"\n")
    python.chmod(0o755)
    command = [*BARE, "main.py", "convert", "--run", "a b"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "-I|-S|main.py|convert|--run|a b|"
