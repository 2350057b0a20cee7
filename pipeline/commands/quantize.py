"""`quantize`: a float model in, a run folder with one int8 checkpoint out."""

from __future__ import annotations

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
from pipeline.commands.summary import print_run
from pipeline.config import RunConfig
from pipeline.errors import UsageError

_DEFAULT = RunConfig(model="")


def quantize(
    model: Annotated[str | None, typer.Argument(help=MODEL_HELP)] = None,
    data: Annotated[str, typer.Option(help=DATA_HELP)] = _DEFAULT.data,
    weights: Annotated[
        str | None,
        typer.Option(
            help="demo, pretrained, none or a file (.safetensors, .pth, .pth.tar).  "
            "[default: demo where bundled, else pretrained]"
        ),
    ] = None,
    form: Annotated[
        str, typer.Option(help="deploy: T2T-ViT after exact rewrites, fast on phones; official: as published.")
    ] = _DEFAULT.form,
    epochs: Annotated[int, typer.Option(help="Epochs of QAT; 0: calibration only.")] = _DEFAULT.epochs,
    float_epochs: Annotated[
        int | None,
        typer.Option(help="Epochs of float fine-tuning before.  [default: --epochs if the head was replaced, else 0]"),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images a step.")] = _DEFAULT.batch_size,
    lr: Annotated[float, typer.Option(help="Peak learning rate of QAT.")] = _DEFAULT.lr,
    float_lr: Annotated[float, typer.Option(help="Peak learning rate of float fine-tuning.")] = _DEFAULT.float_lr,
    weight_decay: Annotated[float, typer.Option(help="AdamW weight decay.")] = _DEFAULT.weight_decay,
    label_smoothing: Annotated[float, typer.Option(help="Of the cross-entropy.")] = _DEFAULT.label_smoothing,
    clip_norm: Annotated[float, typer.Option(help="Largest global gradient norm.")] = _DEFAULT.clip_norm,
    max_steps: Annotated[int | None, typer.Option(help="Steps in an epoch at most.  [default: all]")] = None,
    observer: Annotated[str, typer.Option(help="moving-average, histogram or mse.")] = _DEFAULT.observer,
    observer_freeze: Annotated[
        float, typer.Option(help="Fraction of QAT after which activation scales stand still.")
    ] = _DEFAULT.observer_freeze,
    batch_norm_freeze: Annotated[
        float, typer.Option(help="Fraction of QAT after which BatchNorm statistics stand still.")
    ] = _DEFAULT.batch_norm_freeze,
    calibration_images: Annotated[
        int, typer.Option(help="Size of the class-balanced calibration subset.")
    ] = _DEFAULT.calibration_images,
    qk_scale: Annotated[
        float | None, typer.Option(help="Attention scale of T2T-ViT weights.  [default: what the weights need]")
    ] = None,
    img_size: Annotated[int | None, typer.Option(help="Side of the input in pixels.  [default: the model's]")] = None,
    limit_val: Annotated[int | None, typer.Option(help="Score so many validation images.  [default: all]")] = None,
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
    from pipeline.commands.quantize_run import new_run, resumed_run

    if resume:
        print_run(resumed_run(model, run, runs_dir, say))
        return
    if run is not None:
        raise UsageError("--run names a run to continue: add --resume, or leave it out")
    config = RunConfig(
        model=model or "",
        data=data,
        weights=weights or "",
        form=form,
        epochs=epochs,
        float_epochs=float_epochs,
        batch_size=batch_size,
        lr=lr,
        float_lr=float_lr,
        weight_decay=weight_decay,
        label_smoothing=label_smoothing,
        clip_norm=clip_norm,
        max_steps=max_steps,
        observer=observer,
        observer_freeze=observer_freeze,
        batch_norm_freeze=batch_norm_freeze,
        calibration_images=calibration_images,
        qk_scale=qk_scale,
        img_size=img_size,
        limit_val=limit_val,
        skip_bad=skip_bad,
        seed=seed,
        device=device,
        amp=amp,
        threads=threads,
        workers=workers,
        checkpoint_steps=checkpoint_steps,
    )
    print_run(new_run(config, runs_dir, say))
