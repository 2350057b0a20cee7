"""Options that several commands share, and how their values become names that the stages take."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import UsageError, suggest
from targets import registry
from targets.types import PRECISIONS, Precision

RunsDir = Annotated[Path, typer.Option("--runs-dir", envvar="EDGE_T2T_RUNS", help="Folder that holds the runs.")]
RunDir = Annotated[Path | None, typer.Option("--run", help="A run folder or its name; default: the latest run.")]
TargetName = Annotated[
    list[str] | None,
    typer.Option("--target", "-t", help="executorch, coreml, tflite or all; may be repeated.  [default: all]"),
]
PrecisionName = Annotated[
    list[str] | None,
    typer.Option("--precision", "-p", help="fp32, fp16 or int8; may be repeated.  [default: int8]"),
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave unreadable images out instead of stopping.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Amp = Annotated[str, typer.Option(help="Mixed precision: auto (bfloat16 on CUDA), bf16 or off.")]
Threads = Annotated[int, typer.Option(help="CPU threads; 0: torch's choice.")]
Workers = Annotated[int, typer.Option(help="Processes that read images; 0: none beside this one.")]
RUNS = Path("runs")
MODEL_HELP = "t2t_vit_7, t2t_vit_10, t2t_vit_12, mobilenet_v2 or any timm model."
DATA_HELP = "digits, a folder with train/ and val/, or a timm data set name."


def targets_of(names: Sequence[str] | None) -> list[str]:
    """Target names in the order of the registry; `all` or nothing means all.

    Raises:
        UnknownTarget: with the nearest known name.
    """
    wanted = list(names or ["all"])
    for name in wanted:
        if name != "all":
            registry.get(name)
    return [n for n in registry.names() if "all" in wanted or n in wanted]


def precisions_of(names: Sequence[str] | None) -> list[Precision]:
    """Precisions without repeats, in the order given.

    Raises:
        UsageError: an unknown one.
    """
    chosen: list[Precision] = []
    for name in names or ["int8"]:
        known = [p for p in PRECISIONS if p == name]
        if not known:
            raise UsageError(f"--precision {name!r} is not one of {', '.join(PRECISIONS)}.{suggest(name, PRECISIONS)}")
        if known[0] not in chosen:
            chosen.append(known[0])
    return chosen


def say(line: str) -> None:
    """A line of progress for the reader, on stderr: stdout is for results."""
    print(line, file=sys.stderr, flush=True)
