"""`train`: a float model from scratch or fine-tuned on your data, as one safetensors file for `quantize --weights`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.options import DATA_HELP, MODEL_HELP, Amp, Device, SkipBad, Threads, Workers, say
from pipeline.launch import chief

_AUGMENTATION, _SPEED = "Augmentation, where it should differ from --augment", "Speed and scale"


def train(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    data: Annotated[str, typer.Option(help=DATA_HELP)] = "digits",
    out: Annotated[
        Path | None,
        typer.Option(
            help="The .safetensors file to write; FILE.training/ beside it keeps the curves.",
            show_default="weights/MODEL-DATA.safetensors, if that is not there yet",
        ),
    ] = None,
    weights: Annotated[str, typer.Option(help="Where to start from: none, demo, pretrained or a file.")] = "none",
    augment: Annotated[
        str | None,
        typer.Option(
            help="The recipe: paper (T2T-ViT's), light (crops and mirroring, for few images or epochs) or none.",
            show_default="paper; light for the digits",
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the training split.", show_default="paper 300, else 12")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Images of a forward pass in each process.", show_default="paper 64, else 32")
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(
            help="Peak learning rate of AdamW.",
            show_default="paper 1e-3 for 512 images a step, with the square root for others; else 5e-4",
        ),
    ] = None,
    warmup_epochs: Annotated[
        float | None, typer.Option(help="Epochs in which it rises.", show_default="10, at most a tenth of all")
    ] = None,
    weight_decay: Annotated[float, typer.Option(help="AdamW weight decay.")] = 0.03,
    label_smoothing: Annotated[float, typer.Option(help="Of the cross-entropy.")] = 0.1,
    ema: Annotated[
        float | None,
        typer.Option(
            "--ema",
            "--ema-decay",
            help="Decay of the moving average of weights; 0: the last weights.",
            show_default="paper 0.99996, else 0",
        ),
    ] = None,
    drop_path: Annotated[
        float | None,
        typer.Option(help="Stochastic depth at the last block.", show_default="paper 0.1 for T2T-ViT, else 0"),
    ] = None,
    auto_augment: Annotated[
        str | None,
        typer.Option(
            help="A policy in timm's notation; '' for none.",
            show_default="paper rand-m9-mstd0.5-inc1, else none",
            rich_help_panel=_AUGMENTATION,
        ),
    ] = None,
    reprob: Annotated[
        float | None,
        typer.Option(help="Random erasing.", show_default="paper 0.25, else 0", rich_help_panel=_AUGMENTATION),
    ] = None,
    mixup: Annotated[
        float | None,
        typer.Option(help="Alpha of mixup.", show_default="paper 0.8, else 0", rich_help_panel=_AUGMENTATION),
    ] = None,
    cutmix: Annotated[
        float | None,
        typer.Option(help="Alpha of CutMix.", show_default="paper 1.0, else 0", rich_help_panel=_AUGMENTATION),
    ] = None,
    color_jitter: Annotated[
        float | None,
        typer.Option(help="Colour jitter.", show_default="light 0.2, else 0", rich_help_panel=_AUGMENTATION),
    ] = None,
    scale_min: Annotated[
        float | None,
        typer.Option(
            help="Smallest area of the random crop, as a fraction.",
            show_default="paper 0.08, light 0.6, digits 0.8",
            rich_help_panel=_AUGMENTATION,
        ),
    ] = None,
    hflip: Annotated[
        bool | None,
        typer.Option(
            "--hflip/--no-hflip",
            help="Mirror half of the images.",
            show_default="yes, but the digits",
            rich_help_panel=_AUGMENTATION,
        ),
    ] = None,
    half_size_epochs: Annotated[
        int,
        typer.Option(
            help="How many of the first epochs see images of half the height and width.", rich_help_panel=_SPEED
        ),
    ] = 0,
    max_steps: Annotated[
        int | None, typer.Option(help="Steps in an epoch at most.", show_default="all", rich_help_panel=_SPEED)
    ] = None,
    accumulate: Annotated[
        int, typer.Option(help="Forward passes whose gradients make one step.", rich_help_panel=_SPEED)
    ] = 1,
    channels_last: Annotated[
        bool, typer.Option("--channels-last", help="Memory layout in training.", rich_help_panel=_SPEED)
    ] = False,
    compile: Annotated[
        bool, typer.Option("--compile", help="Train through torch.compile.", rich_help_panel=_SPEED)
    ] = False,
    epoch_images: Annotated[
        int | None,
        typer.Option(
            help="Training images of a stream (hfids/) that does not tell their number.", show_default="its own"
        ),
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Write float16 (half the size; read back as float32).")] = False,
    img_size: Annotated[
        int | None, typer.Option(help="Side of the input in pixels.", show_default="the model's")
    ] = None,
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
    from pipeline.training.float_plan import FloatRecipe
    from pipeline.training.float_training import FloatTraining, train_float

    recipe = FloatRecipe(
        augment=augment,
        epochs=epochs,
        batch_size=batch_size,
        accumulate=accumulate,
        lr=lr,
        warmup_epochs=warmup_epochs,
        weight_decay=weight_decay,
        label_smoothing=label_smoothing,
        ema=ema,
        drop_path=drop_path,
        auto_augment=auto_augment,
        reprob=reprob,
        color_jitter=color_jitter,
        mixup=mixup,
        cutmix=cutmix,
        scale_min=scale_min,
        hflip=hflip,
        half_size_epochs=half_size_epochs,
        max_steps=max_steps,
        seed=seed,
    )
    training = FloatTraining(
        model=model,
        data=data,
        weights=weights,
        out=out,
        epoch_images=epoch_images,
        half=half,
        img_size=img_size,
        skip_bad=skip_bad,
        device=device,
        amp=amp,
        channels_last=channels_last,
        compile=compile,
        threads=threads,
        workers=workers,
        checkpoint_steps=checkpoint_steps,
    )
    trained = train_float(training, recipe, resume, say)
    if chief():
        print(f"{trained.file}: top-1 {100 * trained.right / trained.n:.2f} % ({trained.right} of {trained.n})")
