"""`quantize`: a float model in, a run folder with one int8 checkpoint out."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.options import (
    DATA_HELP,
    MODEL_HELP,
    RUNS,
    Amp,
    Device,
    RunsDir,
    SkipBad,
    Threads,
    Workers,
    say,
)
from pipeline.commands.summary import print_mixed, print_run
from pipeline.config import RunConfig
from pipeline.errors import UsageError
from pipeline.launch import chief
from pipeline.run.folder import Run

_DEFAULT = RunConfig(model="")
_RECIPE, _SPEED = "What keeps accuracy", "Speed and scale"


def quantize(
    context: typer.Context,
    model: Annotated[str | None, typer.Argument(help=MODEL_HELP)] = None,
    data: Annotated[str, typer.Option(help=DATA_HELP)] = _DEFAULT.data,
    weights: Annotated[
        str | None,
        typer.Option(
            help="demo, pretrained, none or a file (.safetensors, .pth, .pth.tar).  "
            "\\[default: demo where bundled, else pretrained]"
        ),
    ] = None,
    form: Annotated[
        str, typer.Option(help="deploy: T2T-ViT after exact rewrites, fast on phones; official: as published.")
    ] = _DEFAULT.form,
    epochs: Annotated[int, typer.Option(help="Epochs of QAT; 0: as --ptq.")] = _DEFAULT.epochs,
    ptq: Annotated[
        bool, typer.Option("--ptq", help="Post-training quantization: calibration only, the same outputs.")
    ] = False,
    float_epochs: Annotated[
        int | None,
        typer.Option(
            help="Epochs of float fine-tuning before.  \\[default: --epochs if the head was replaced, else 0]"
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images of one forward pass in one process.")] = _DEFAULT.batch_size,
    lr: Annotated[float, typer.Option(help="Peak learning rate of QAT.")] = _DEFAULT.lr,
    float_lr: Annotated[float, typer.Option(help="Peak learning rate of float fine-tuning.")] = _DEFAULT.float_lr,
    weight_decay: Annotated[float, typer.Option(help="AdamW weight decay.")] = _DEFAULT.weight_decay,
    label_smoothing: Annotated[float, typer.Option(help="Of the cross-entropy.")] = _DEFAULT.label_smoothing,
    clip_norm: Annotated[float, typer.Option(help="Largest global gradient norm.")] = _DEFAULT.clip_norm,
    max_steps: Annotated[int | None, typer.Option(help="Steps in an epoch at most.  \\[default: all]")] = None,
    observer: Annotated[str, typer.Option(help="moving-average, histogram or mse.")] = _DEFAULT.observer,
    observer_freeze: Annotated[
        float, typer.Option(help="Fraction of QAT after which activation scales stand still.")
    ] = _DEFAULT.observer_freeze,
    batch_norm_freeze: Annotated[
        float, typer.Option(help="Fraction of QAT after which BatchNorm statistics stand still.")
    ] = _DEFAULT.batch_norm_freeze,
    distill: Annotated[
        float,
        typer.Option(
            help="Share of the float model's logits in the objective; 0: labels alone.", rich_help_panel=_RECIPE
        ),
    ] = _DEFAULT.distill,
    temperature: Annotated[
        float, typer.Option(help="Of distillation.", rich_help_panel=_RECIPE)
    ] = _DEFAULT.temperature,
    distill_features: Annotated[
        float,
        typer.Option(help="Weight of the float model's features after each block.", rich_help_panel=_RECIPE),
    ] = _DEFAULT.distill_features,
    ema: Annotated[
        float,
        typer.Option(help="Decay of the moving average of weights; 0: the last weights.", rich_help_panel=_RECIPE),
    ] = _DEFAULT.ema,
    ranges: Annotated[
        str, typer.Option(help="Of activations: observed, learned or re-estimated.", rich_help_panel=_RECIPE)
    ] = _DEFAULT.ranges,
    dropout: Annotated[
        bool, typer.Option(help="Keep the model's dropout in training.", rich_help_panel=_RECIPE)
    ] = _DEFAULT.dropout,
    equalize: Annotated[
        bool, typer.Option(help="Even out channel ranges before, where that is exact.", rich_help_panel=_RECIPE)
    ] = _DEFAULT.equalize,
    bias_correction: Annotated[
        bool, typer.Option(help="After calibration, shift biases by their layer's mean error.", rich_help_panel=_RECIPE)
    ] = _DEFAULT.bias_correction,
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="Keep the fewest layers float so that no target drops more, in percentage points of top-1 "
            "(docs/mixed-precision.md).",
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    drop_targets: Annotated[
        list[str] | None,
        typer.Option(
            "--drop-target", help="That holds --max-drop; may be repeated.  \\[default: all]", rich_help_panel=_RECIPE
        ),
    ] = None,
    rank_images: Annotated[
        int, typer.Option(help="Images that the search for --max-drop ranks layers on.", rich_help_panel=_RECIPE)
    ] = _DEFAULT.rank_images,
    float_layers: Annotated[
        list[str] | None,
        typer.Option(
            "--float-layer", help="A layer that stays float, in training too; may be repeated.", rich_help_panel=_RECIPE
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            help="Repeat the run that wrote this recipe.json; other options given beat it.", rich_help_panel=_RECIPE
        ),
    ] = None,
    accumulate: Annotated[
        int, typer.Option(help="Forward passes whose gradients make one step.", rich_help_panel=_SPEED)
    ] = _DEFAULT.accumulate,
    channels_last: Annotated[
        bool, typer.Option("--channels-last", help="Memory layout in training.", rich_help_panel=_SPEED)
    ] = _DEFAULT.channels_last,
    compile: Annotated[
        bool, typer.Option("--compile", help="Train through torch.compile.", rich_help_panel=_SPEED)
    ] = _DEFAULT.compile,
    calibration_images: Annotated[
        int, typer.Option(help="Size of the class-balanced calibration subset.")
    ] = _DEFAULT.calibration_images,
    qk_scale: Annotated[
        float | None, typer.Option(help="Attention scale of T2T-ViT weights.  \\[default: what the weights need]")
    ] = None,
    img_size: Annotated[int | None, typer.Option(help="Side of the input in pixels.  \\[default: the model's]")] = None,
    limit_val: Annotated[int | None, typer.Option(help="Score so many validation images.  \\[default: all]")] = None,
    skip_bad: SkipBad = False,
    seed: Annotated[int, typer.Option(help="Of shuffling, augmentation, dropout and new weights.")] = _DEFAULT.seed,
    device: Device = _DEFAULT.device,
    amp: Amp = _DEFAULT.amp,
    threads: Threads = _DEFAULT.threads,
    workers: Workers = _DEFAULT.workers,
    checkpoint_steps: Annotated[
        int, typer.Option(help="A resume point at least every so many steps.")
    ] = _DEFAULT.checkpoint_steps,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an interrupted run: --run, else the newest one.")
    ] = False,
    run: Annotated[Path | None, typer.Option("--run", help="With --resume: the run to continue.")] = None,
    runs_dir: RunsDir = RUNS,
) -> None:
    """Quantization-aware fine-tuning: one int8 checkpoint from which all three runtimes are converted."""
    from pipeline.stages.quantize import new_run, resumed_run

    if resume and recipe is not None:
        raise UsageError("--resume goes on with the options of its run: leave --recipe out")
    if resume:
        _show(resumed_run(model, run, runs_dir, say))
        return
    if run is not None:
        raise UsageError("--run names a run to continue: add --resume, or leave it out")
    given = {field.name: context.params[field.name] for field in fields(RunConfig) if field.name in context.params}
    given |= {"model": model or "", "weights": weights or ""}
    if ptq:
        given["epochs"] = _no_epochs(context)
    if recipe is None:
        _show(new_run(RunConfig(**given), runs_dir, say))
        return
    from pipeline.run.recipe import read_recipe

    read = read_recipe(recipe)
    explicit = {name: value for name, value in given.items() if _is_given(context, name) or (ptq and name == "epochs")}
    _show(new_run(read.config(explicit), runs_dir, say, read))


def _is_given(context: typer.Context, name: str) -> bool:
    """On the command line or in the environment, not by default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT")


def _show(run: Run) -> None:
    if chief():
        print_run(run)
        print_mixed(run)


def _no_epochs(context: typer.Context) -> int:
    """
    Raises:
        UsageError: epochs of QAT were asked for beside --ptq.
    """
    source = context.get_parameter_source("epochs")
    if source is not None and source.name == "COMMANDLINE" and context.params["epochs"]:
        raise UsageError(f"--ptq trains nothing and --epochs is {context.params['epochs']}: give one of the two")
    return 0
