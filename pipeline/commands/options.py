"""What several commands share: the run they work on, targets and precisions, progress lines."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import UsageError
from pipeline.options import Option
from pipeline.progress import chief
from pipeline.run.folder import Run, find_run
from targets import registry
from targets.target import ALIASES
from targets.types import PRECISIONS, Precision
from targets.words import suggest

ComputeUnits = Annotated[
    str, typer.Option(help="What Core ML may use on a Mac: all, cpu-only, cpu-and-gpu or cpu-and-ne.")
]
PrecisionName = Annotated[
    list[str] | None,
    typer.Option(
        "--precision",
        "-p",
        "--scheme",
        help="fp32, fp16, int8 (or w8a8), w8a16, int8-dynamic (or w8a8-dynamic), w4a8-dynamic; weights only: w8, w4, "
        "lut8, lut6, lut4 (repeatable). --list-schemes shows which target has which.  \\[default: int8]",
    ),
]
MODEL_HELP = "t2t_vit_7, t2t_vit_10, t2t_vit_12, mobilenet_v2 or any timm model."


@dataclass(frozen=True, kw_only=True)
class RunsFolder:
    """Where runs are kept."""

    runs_dir: Annotated[Path, Option("Folder that holds the runs.", environment="EDGE_T2T_RUNS")] = Path("runs")


@dataclass(frozen=True, kw_only=True)
class RunChoice(RunsFolder):
    """The run that a command works on."""

    run: Annotated[Path | None, Option("A run folder or its name.", unset="the latest run")] = None

    def find(self) -> Run:
        """
        Raises:
            UsageError: there is no such run.
        """
        return find_run(self.runs_dir, self.run)


@dataclass(frozen=True, kw_only=True)
class TargetChoice:
    """The targets that a command works for; none named: all."""

    target: Annotated[
        tuple[str, ...],
        Option("executorch, coreml, tflite or all; may be repeated.", names=("--target", "-t"), unset="all"),
    ] = ()
    backend: Annotated[
        tuple[str, ...], Option("Delegate of ExecuTorch: xnnpack or coreml; may be repeated.", unset="xnnpack")
    ] = ()

    def names(self) -> list[str]:
        """As of targets_of."""
        return targets_of(self.target, self.backend)


def targets_of(names: Sequence[str] | None, backends: Sequence[str] | None = None) -> list[str]:
    """Target names in the order of the registry; `all` or nothing means all.

    Args:
        backends: delegates of ExecuTorch that files are wanted for, each a target of its own name.

    Raises:
        UnknownTarget: with the nearest known name.
        UsageError: an unknown backend, or one for a target that has no choice of it.
    """
    wanted = list(names or ["all"])
    for name in wanted:
        if name != "all":
            registry.get(name)
    chosen = {*wanted, *(registry.names() if "all" in wanted else ())}
    if backends:
        chosen = _with_backends(chosen, backends)
    return [n for n in registry.variants() if n in chosen]


def _with_backends(chosen: set[str], backends: Sequence[str]) -> set[str]:
    """The targets with those that have a choice of delegates replaced by the ones chosen."""
    known = {b: (family, made_by) for family in registry.names() for b, made_by in registry.backends(family).items()}
    for backend in backends:
        if backend not in known:
            raise UsageError(f"--backend {backend!r} is not one of {', '.join(known)}.{suggest(backend, known)}")
    families = {known[backend][0] for backend in backends}
    if not families <= chosen:
        homes = ", ".join(sorted(families))
        raise UsageError(f"--backend is for --target {homes}, not for {', '.join(sorted(chosen))}: leave it out")
    return chosen - families | {known[backend][1] for backend in backends}


def compute_units_of(name: str, targets: Sequence[str]) -> str:
    """A choice of Core ML's compute units.

    Raises:
        UsageError: an unknown one, or a choice without Core ML among the targets.
    """
    having = [target for target in registry.everyone() if target.compute_units]
    known = list(dict.fromkeys(choice for target in having for choice in target.compute_units))
    if name not in known:
        raise UsageError(f"--compute-units {name!r} is not one of {', '.join(known)}.{suggest(name, known)}")
    if name != registry.ALL_UNITS and not any(target.name in targets for target in having):
        homes = ", ".join(target.name for target in having)
        raise UsageError(f"--compute-units is for --target {homes}, not for {', '.join(targets)}: leave it out")
    return name


def precisions_of(names: Sequence[str] | None) -> list[Precision]:
    """Precisions without repeats, in the order given.

    Raises:
        UsageError: an unknown one.
    """
    known: dict[str, Precision] = {**{precision: precision for precision in PRECISIONS}, **ALIASES}
    for name in names or ():
        if name not in known:
            raise UsageError(f"--precision {name!r} is not one of {', '.join(known)}.{suggest(name, known)}")
    return list(dict.fromkeys(known[name] for name in names or ("int8",)))


def say(line: str) -> None:
    """A line of progress for the reader, on stderr: stdout is for results. Of several processes the first one talks."""
    if chief():
        print(line, file=sys.stderr, flush=True)
