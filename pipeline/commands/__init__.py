"""The Typer app: one file a command, each parses its options, calls one stage and renders what came back."""

from __future__ import annotations

import sys

import typer

from pipeline.commands import (
    benchmark,
    check,
    compare,
    convert,
    demo,
    devices,
    doctor,
    inspect,
    models,
    quantize,
    report,
    train,
    validate,
)
from pipeline.errors import exit_code_of
from pipeline.process import quiet_sdks

app = typer.Typer(
    name="edge-t2t",
    help="From a float T2T-ViT to int8 on ExecuTorch, Core ML and TFLite, with proof at every step.",
    epilog="Exit codes: 0 done, 1 a bug, 2 usage, 3 data, 4 weights, 5 training, 6 cells failed, 7 damaged run, "
    "8 below your bar; of check: 9 regressed, 10 missing or not comparable, 11 inconclusive; 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    quantize,
    convert,
    inspect,
    validate,
    benchmark,
    report,
    check,
    compare,
    train,
    models,
    devices,
    doctor,
    demo,
):
    name = command.__name__.rsplit(".", 1)[-1]
    app.command(name)(getattr(command, name))


def main() -> None:
    """Run the app; an error that the user can act on becomes one message and its exit code."""
    quiet_sdks()
    try:
        app()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except Exception as error:  # anything without an exit code is a bug and keeps its traceback
        code = exit_code_of(error)
        if code is None:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(code)
