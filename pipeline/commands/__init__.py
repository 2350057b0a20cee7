"""The command line: one file a command, loaded when it is asked for, so that `--help` stays instant."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from pipeline.errors import exit_code_of
from targets.sdk import quiet_sdks

#: Each command, a function of the module of its name, and what `--help` says of it.
COMMANDS = {
    "quantize": "Quantization-aware fine-tuning: one int8 checkpoint from which all three runtimes are converted.",
    "convert": "Convert, read the file back, run it in a fresh process, and only then put it into the run folder.",
    "inspect": "Operators and weights by dtype, and cautions, read from the files; exit code 6 if one cannot be read.",
    "validate": "Run every artifact in its real runtime, on this host or a device, on the images that scored the "
    "checkpoint.",
    "benchmark": "Time every artifact on a device against MobileNetV2 in the same runtime and precision, round by "
    "round.",
    "report": "Accuracy, drift, conversion facts and latency in one place.",
    "export-app": "Files, labels, preprocessing, Kotlin and Swift code, a model card and golden answers in one folder, "
    "for an app.",
    "check": "Hold a validated run against a committed baseline.",
    "compare": "Two runs side by side, cell by cell: paired where both saw the same images.",
    "train": "Train in float, from scratch or from given weights.",
    "models": "The models known by name; `quantize` also takes any timm classification model.",
    "devices": "List devices for --on: this host, phones behind adb, the Arm emulator, and ssh hosts that are named.",
    "doctor": "Look into each target in a process of its own; exit code 6 if one cannot convert or a probe crashed.",
    "demo": "Quantize, convert to all targets, validate, explain, benchmark and report, with the bundled weights and "
    "data.",
}


def load(name: str) -> Any:
    """The Typer command called `name`, with its options; imports its module."""
    alone = typer.Typer(add_completion=False)
    function = name.replace("-", "_")
    alone.command(name, help=COMMANDS[name])(getattr(import_module(f"{__name__}.{function}"), function))
    return typer.main.get_command(alone)


class OnDemand(TyperGroup):
    """Lists commands by name and help text, and loads the one that runs."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] in COMMANDS:
            self.commands[args[0]] = load(args[0])
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="edge-t2t",
    cls=OnDemand,
    help="From a float T2T-ViT to int8 on ExecuTorch, Core ML and TFLite, with proof at every step.",
    epilog="Exit codes: 0 done, 1 a bug, 2 usage, 3 data, 4 weights, 5 training, 6 cells failed, 7 damaged run, "
    "8 below your bar; of check: 9 regressed, 10 missing or not comparable, 11 inconclusive; 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _name, _help in COMMANDS.items():
    app.command(_name, help=_help)(lambda: None)  # OnDemand puts the real one in its place


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
