"""`demo`: the whole job for one T2T-ViT and MobileNetV2 on the embedded digits, ending in a report."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.commands.from_plans import from_plans
from pipeline.commands.options import RunsFolder, say
from pipeline.records.keys import raise_if_failed


@from_plans
def demo(
    *,
    model: Annotated[str, typer.Option(help="The model to set beside mobilenet_v2.")] = "t2t_vit_10",
    max_steps: Annotated[int, typer.Option(help="QAT steps for each model.")] = 20,
    runs: RunsFolder,
) -> None:
    from pipeline.commands.report import show
    from pipeline.stages.demo import run_demo

    made = run_demo(model, max_steps, runs.runs_dir, say)
    show(made.run, made.report)
    raise_if_failed("run", made.outcomes)
