"""The command line: `python main.py --help`."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

VENV = Path(__file__).resolve().parent / ".venv"


def use_environment() -> None:
    """Go on in the environment of `make setup` where this Python lacks the packages, as in a fresh shell."""
    missing = [name for name in ("typer", "torch") if find_spec(name) is None]
    if not missing:
        return
    python = VENV / "bin" / "python"
    if python.exists() and Path(sys.prefix).resolve() != VENV:
        os.execv(python, [str(python), *sys.orig_argv[1:]])
    sys.exit(
        f"error: {sys.executable} has no {' and no '.join(missing)}: run `make setup`, which makes .venv "
        "and is used from then on, or install this project into that Python with `pip install -c constraints.txt -e .`"
    )


if __name__ == "__main__":
    use_environment()
    from pipeline.commands import main

    main()
