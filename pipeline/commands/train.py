"""`train`: a float model from scratch or fine-tuned on your data, as one safetensors file for `quantize --weights`."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.commands.from_plans import Given, from_plans
from pipeline.commands.options import MODEL_HELP, say
from pipeline.progress import chief
from pipeline.training.plan import FloatRecipe, FloatTraining


@from_plans
def train(
    *,
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    training: Given[FloatTraining],
    recipe: FloatRecipe,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an interrupted training to the same --out.")
    ] = False,
) -> None:
    from pipeline.models.zoo import plain_name
    from pipeline.training.float_training import train_float

    trained = train_float(training.make(model=plain_name(model)), recipe, resume, say)
    if chief():
        print(f"{trained.file}: top-1 {100 * trained.right / trained.n:.2f} % ({trained.right} of {trained.n})")
