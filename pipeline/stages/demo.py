"""The whole job on the embedded digits: two models from bundled weights to one report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.config import RunConfig, TimingPlan, ValidationPlan
from pipeline.progress import Say
from pipeline.records.keys import Outcome, raise_if_failed
from pipeline.records.report import Report
from pipeline.report.collect import make_report
from pipeline.run.facts import CONTROL_MODEL
from pipeline.run.folder import Run, set_latest
from pipeline.stages.benchmark import benchmark_run
from pipeline.stages.convert import convert_cells, plan_cells
from pipeline.stages.explain import Explainer
from pipeline.stages.quantize import new_run
from pipeline.stages.validate import validate_run
from targets import registry
from targets.types import Precision

ROUNDINGS = ("fp16",)  # one of the MIL reference's three rounding models: all of them would be a third of the demo


@dataclass(frozen=True)
class Demo:
    """What came of it.

    Attributes:
        run: of the model that is set beside MobileNetV2.
        outcomes: runtime and outcome of every cell that was validated or timed.
    """

    run: Run
    report: Report
    outcomes: tuple[tuple[str, Outcome], ...]


def run_demo(model: str, max_steps: int, runs_dir: Path, say: Say) -> Demo:
    """Quantize, convert, validate and time `model` and MobileNetV2, explain what `model` loses, and write its report.

    Args:
        max_steps: QAT steps for each model.

    Raises:
        CellsFailedError: a conversion failed; cells that fail later are in the outcomes.
    """
    control = _quantize_and_convert(CONTROL_MODEL, max_steps, runs_dir, say, baseline=False)
    subject = _quantize_and_convert(model, max_steps, runs_dir, say, baseline=True)
    outcomes: list[tuple[str, Outcome]] = []
    for run in (control, subject):
        outcomes += _validate(run, run is subject, say)
    for run, beside in ((control, None), (subject, control)):
        timed = benchmark_run(run, beside, registry.names(), TimingPlan(), say)
        outcomes += [(record.key.runtime, record.outcome) for record in timed]
    set_latest(subject)
    return Demo(subject, make_report(subject, runs_dir), tuple(outcomes))


def _quantize_and_convert(model: str, max_steps: int, runs_dir: Path, say: Say, baseline: bool) -> Run:
    """`baseline`: with the float32 files, which the control needs none of for its own figures."""
    say(f"\n=== {model}")
    run = new_run(RunConfig(model=model, max_steps=max_steps), runs_dir, say)
    precisions: list[Precision] = ["int8", "fp32"] if baseline else ["int8"]
    records = convert_cells(run, plan_cells(registry.names(), precisions, from_float=False, say=say), say)
    raise_if_failed("convert", ((f"{r.target} {r.precision}", r.outcome) for r in records))
    return run


def _validate(run: Run, explain: bool, say: Say) -> list[tuple[str, Outcome]]:
    plan = ValidationPlan(roundings=ROUNDINGS)
    explainer = Explainer(run, plan.limit, plan.explain_images) if explain else None
    look = None if explainer is None else explainer.look
    validated = validate_run(run, registry.names(), plan, say, look=look)
    if explainer is not None:
        explainer.finish(say)
    return [(record.key.runtime, record.outcome) for record in validated]
