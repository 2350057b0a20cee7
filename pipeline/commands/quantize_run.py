"""What `quantize` does with its options: a new run or a resumed one in, the finished run's summary out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pipeline.config import RunConfig
from pipeline.errors import UsageError
from pipeline.models.zoo import ZOO, check_name
from pipeline.rundir import Run, find_run, list_runs

Say = Callable[[str], None]


def new_run(config: RunConfig, runs_dir: Path, say: Say) -> Run:
    """Check everything, then quantize into a new run folder.

    Raises:
        UsageError: no model or an unknown one.
    """
    if not config.model:
        raise UsageError(f"name a model: {', '.join(ZOO)} or any timm classification model")
    check_name(config.model)
    if not config.weights:
        config = replace(config, weights=default_weights(config.model))
    from pipeline.qat.finetune import quantize, start

    run, subject = start(config, runs_dir)
    data = subject.data
    say(
        f"run {run.path}: {config.model}, weights {config.weights}, {len(data.train)} training and {len(data.val)} "
        f"validation images of {data.name} in {len(data.classes)} classes"
    )
    if subject.weights.head_replaced:
        say("the head was replaced: the weights are for other classes")
    quantize(run, config, subject, say)
    return run


def resumed_run(model: str | None, run: Path | None, runs_dir: Path, say: Say) -> Run:
    """Continue the given run, or the newest unfinished one (of `model`, if named).

    Raises:
        UsageError: there is none, it is finished, or it is of another model.
    """
    from pipeline.qat.finetune import quantize, reopen

    found = find_run(runs_dir, run) if run is not None else _newest_unfinished(model, runs_dir)
    if model is not None and found.model != model:
        raise UsageError(f"run {found.id} is of {found.model}, not of {model}")
    config, subject = reopen(found)
    say(f"resuming {found.path}")
    quantize(found, config, subject, say)
    return found


def default_weights(model: str) -> str:
    """`demo` where weights are bundled, else `pretrained`."""
    return "demo" if model in ZOO and ZOO[model].demo_file.is_file() else "pretrained"


def _newest_unfinished(model: str | None, runs_dir: Path) -> Run:
    unfinished = [
        r for r in list_runs(runs_dir) if r.manifest.get("status") == "unfinished" and model in (None, r.model)
    ]
    if not unfinished:
        raise UsageError(f"no unfinished run{f' of {model}' if model else ''} under {runs_dir}: nothing to resume")
    return unfinished[-1]
