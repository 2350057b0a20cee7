"""`quantize`: from float weights to a run folder with one int8 checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.from_plans import Given, from_plans
from pipeline.commands.options import MODEL_HELP, RunsFolder, say
from pipeline.config import ACCURACY, RunConfig
from pipeline.errors import UsageError
from pipeline.progress import chief
from pipeline.run.folder import Run
from pipeline.run.layout import CHECKPOINT

STAGE_NAMES = {"float": "float", "fake_quant": "fake quantization", "qdq": "QDQ program"}


@from_plans
def quantize(
    *,
    model: Annotated[str | None, typer.Argument(help=MODEL_HELP)] = None,
    options: Given[RunConfig],
    ptq: Annotated[
        bool, typer.Option("--ptq", help="Post-training quantization: calibration only, the same outputs.")
    ] = False,
    recipe: Annotated[
        Path | None,
        typer.Option(
            help="Repeat the run that wrote this recipe.json; other options given beat it.", rich_help_panel=ACCURACY
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an interrupted run: --run, else the newest one.")
    ] = False,
    run: Annotated[Path | None, typer.Option("--run", help="With --resume: the run to continue.")] = None,
    runs: RunsFolder,
) -> None:
    from pipeline.stages.quantize import new_run, resumed_run

    if resume and recipe is not None:
        raise UsageError("--resume goes on with the options of its run: leave --recipe out")
    if resume:
        _show(resumed_run(model, run, runs.runs_dir, say))
        return
    if run is not None:
        raise UsageError("--run names a run to continue: add --resume, or leave it out")
    decided: dict[str, object] = {"epochs": _no_epochs(options)} if ptq else {}
    if recipe is None:
        _show(new_run(options.make(model=model or "", **decided), runs.runs_dir, say))
        return
    from pipeline.run.recipe import read_recipe

    read = read_recipe(recipe)
    if model is not None:
        decided["model"] = model
    named = {name: options.values[name] for name in options.named}
    _show(new_run(read.config(named | decided), runs.runs_dir, say, read))


def _no_epochs(options: Given[RunConfig]) -> int:
    """
    Raises:
        UsageError: epochs of QAT were asked for beside --ptq.
    """
    if "epochs" in options.named and options.values["epochs"]:
        raise UsageError(f"--ptq trains nothing and --epochs is {options.values['epochs']}: give one of the two")
    return 0


def _show(run: Run) -> None:
    """Top-1 of the torch stages, the folder and the next step; the trials for --max-drop, if there were any."""
    if not chief():
        return
    from pipeline.metrics.accuracy import accuracy
    from pipeline.report.tables.mixed import mixed_table
    from pipeline.report.tables.table import print_tables
    from pipeline.run.cells import load_mixed
    from pipeline.run.logits import load_logits

    logits = load_logits(run)
    for stage, values in logits.stages.items():
        scored = accuracy(values, logits.labels)
        print(f"{STAGE_NAMES[stage]}: top-1 {scored.top1_percent:.2f} % ({scored.top1} of {scored.n})")
    print(f"checkpoint: {run.path / CHECKPOINT}")
    print("next: python main.py convert --target all")
    if (record := load_mixed(run)) is not None:
        print_tables([mixed_table(run.model, record)])
