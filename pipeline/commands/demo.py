"""`demo`: the whole job for one T2T-ViT and MobileNetV2 on the embedded digits, ending in a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.from_plans import from_plans
from pipeline.commands.options import RunsFolder, raise_if_failed, say
from pipeline.commands.report import report_on
from pipeline.config import RunConfig, ValidationPlan
from pipeline.records.keys import Outcome
from pipeline.run.folder import Run, set_latest
from targets import registry

CONTROL = "mobilenet_v2"
ROUNDINGS = ("fp16",)  # one of the MIL reference's three rounding models: all of them would be a third of the demo


@from_plans
def demo(
    *,
    model: Annotated[str, typer.Option(help="The model to set beside mobilenet_v2.")] = "t2t_vit_10",
    max_steps: Annotated[int, typer.Option(help="QAT steps for each model.")] = 20,
    runs: RunsFolder,
) -> None:
    """Quantize, convert to all targets, validate, explain, benchmark and report, with the bundled weights and data."""
    control, subject = (_quantize_and_convert(name, max_steps, runs.runs_dir) for name in (CONTROL, model))
    from pipeline.stages.benchmark import benchmark_run
    from pipeline.stages.explain import Explainer
    from pipeline.stages.timing import TimingPlan
    from pipeline.stages.validate import validate_run

    plan = ValidationPlan()
    outcomes: list[tuple[str, Outcome]] = []
    for run in (control, subject):
        explainer = Explainer(run, plan.limit, plan.explain_images) if run is subject else None
        validated = validate_run(
            run,
            registry.names(),
            plan.limit,
            plan.threads,
            say,
            roundings=ROUNDINGS,
            look=None if explainer is None else explainer.look,
        )
        outcomes += [(r.key.runtime, r.outcome) for r in validated]
        if explainer is not None:
            explainer.finish(say)
    for run, beside in ((control, None), (subject, control)):
        records = benchmark_run(run, beside, registry.names(), TimingPlan(), say)
        outcomes += [(r.key.runtime, r.outcome) for r in records]
    set_latest(subject)
    report_on(subject, runs.runs_dir)
    raise_if_failed("run", outcomes)


def _quantize_and_convert(model: str, max_steps: int, runs_dir: Path) -> Run:
    from pipeline.stages.convert import convert_cells, plan_cells
    from pipeline.stages.quantize import new_run

    say(f"\n=== {model}")
    run = new_run(RunConfig(model=model, max_steps=max_steps), runs_dir, say)
    records = convert_cells(run, plan_cells(registry.names(), ["int8"], from_float=False, say=say), say)
    raise_if_failed("convert", ((f"{r.target} {r.precision}", r.outcome) for r in records))
    return run
