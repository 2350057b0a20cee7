"""`train`: a float model from scratch or fine-tuned on your data, as one safetensors file for `quantize --weights`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.options import DATA_HELP, MODEL_HELP, Amp, Device, SkipBad, Threads, Workers, say


def train(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    out: Annotated[
        Path, typer.Option(help="The .safetensors file to write; FILE.training/ beside it keeps the curves.")
    ],
    data: Annotated[str, typer.Option(help=DATA_HELP)] = "digits",
    weights: Annotated[str, typer.Option(help="Where to start from: none, demo, pretrained or a file.")] = "none",
    epochs: Annotated[int, typer.Option(help="Passes over the training split.")] = 12,
    half_size_epochs: Annotated[
        int, typer.Option(help="How many of the first epochs see images of half the height and width.")
    ] = 0,
    batch_size: Annotated[int, typer.Option(help="Images a step.")] = 32,
    lr: Annotated[float, typer.Option(help="Peak learning rate of AdamW.")] = 5e-4,
    weight_decay: Annotated[float, typer.Option(help="AdamW weight decay.")] = 0.03,
    scale_min: Annotated[float, typer.Option(help="Smallest area of the random crop, as a fraction.")] = 0.6,
    hflip: Annotated[bool, typer.Option(help="Mirror half of the images.")] = True,
    max_steps: Annotated[int | None, typer.Option(help="Steps in an epoch at most.  [default: all]")] = None,
    half: Annotated[bool, typer.Option("--half", help="Write float16 (half the size; read back as float32).")] = False,
    img_size: Annotated[int | None, typer.Option(help="Side of the input in pixels.  [default: the model's]")] = None,
    skip_bad: SkipBad = False,
    seed: Annotated[int, typer.Option(help="Of weights, shuffling, augmentation and dropout.")] = 0,
    device: Device = "auto",
    amp: Amp = "auto",
    threads: Threads = 0,
    workers: Workers = 0,
    checkpoint_steps: Annotated[int, typer.Option(help="A resume point at least every so many steps.")] = 200,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an interrupted training to the same --out.")
    ] = False,
) -> None:
    """Train in float, from scratch or from given weights."""
    from pipeline.qat.float_training import FloatTraining, train_float
    from pipeline.qat.plan import TrainPlan

    plan = TrainPlan(
        epochs=epochs,
        half_size_epochs=half_size_epochs,
        batch_size=batch_size,
        lr=lr,
        weight_decay=weight_decay,
        scale_min=scale_min,
        hflip=hflip,
        max_steps=max_steps,
        seed=seed,
    )
    training = FloatTraining(
        model=model,
        data=data,
        weights=weights,
        out=out,
        half=half,
        img_size=img_size,
        skip_bad=skip_bad,
        device=device,
        amp=amp,
        threads=threads,
        workers=workers,
        checkpoint_steps=checkpoint_steps,
    )
    right, n = train_float(training, plan, resume, say)
    print(f"{out}: top-1 {100 * right / n:.2f} % ({right} of {n})")
