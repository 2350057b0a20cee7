"""What `quantize` does with its options: a new run or a resumed one in, the finished run's summary out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.commands.quantize_mixed import announce, check_float_layers, finish, is_pending, is_trained
from pipeline.config import RunConfig
from pipeline.errors import UsageError
from pipeline.launch import chief
from pipeline.models.zoo import ZOO, check_name
from pipeline.rundir import Run, find_run, list_runs

if TYPE_CHECKING:
    from pipeline.qat.recipe import Recipe
    from pipeline.qat.subject import Subject

Say = Callable[[str], None]


def new_run(config: RunConfig, runs_dir: Path, say: Say, recipe: Recipe | None = None) -> Run:
    """Check everything, then quantize into a new run folder.

    Args:
        recipe: that `config` was made from; where data or weights are others, a line says so.

    Raises:
        UsageError: no model or an unknown one, or float layers that it has not.
        BelowBarError: max_drop cannot be held.
    """
    if not config.model:
        raise UsageError(f"name a model: {', '.join(ZOO)} or any timm classification model")
    check_name(config.model)
    if not config.weights:
        config = replace(config, weights=default_weights(config.model))
    check_float_layers(config)
    from pipeline.qat.distributed import joined
    from pipeline.qat.finetune import start
    from pipeline.qat.recipe import other_than

    with joined(config.device):
        run, subject = start(config, runs_dir)
        data = subject.data
        say(
            f"run {run.path}: {config.model}, weights {config.weights}, {len(data.train)} training and "
            f"{len(data.val)} validation images of {data.name} in {len(data.classes)} classes"
        )
        if subject.weights.head_replaced:
            say("the head was replaced: the weights are for other classes")
        if recipe is not None:
            for line in other_than(recipe, subject.facts()):
                say(line)
        _quantize(run, config, subject, say)
    if chief():
        finish(run, config, say)
    return run


def resumed_run(model: str | None, run: Path | None, runs_dir: Path, say: Say) -> Run:
    """Continue the given run, or the newest unfinished one (of `model`, if named).

    Raises:
        UsageError: there is none, it is finished, or it is of another model.
    """
    from pipeline.qat.distributed import joined
    from pipeline.qat.finetune import config_of, reopen

    found = find_run(runs_dir, run) if run is not None else _newest_unfinished(model, runs_dir)
    if model is not None and found.model != model:
        raise UsageError(f"run {found.id} is of {found.model}, not of {model}")
    if is_pending(found) and is_trained(found):
        config = RunConfig.from_dict(found.read_json("checkpoint/config.json"))
        say(f"resuming the search in {found.path}")
    else:
        with joined(config_of(found).device):
            config, subject = reopen(found)
            say(f"resuming {found.path}")
            _quantize(found, config, subject, say)
    if chief():
        finish(found, config, say)
    return found


def _quantize(run: Run, config: RunConfig, subject: Subject, say: Say) -> None:
    """Train; the run is the latest one now, or when its float layers were found."""
    from pipeline.qat.finetune import quantize

    if chief():
        announce(run, config)
    quantize(run, config, subject, say, latest=not chief() or not is_pending(run))


def default_weights(model: str) -> str:
    """`demo` where weights are bundled, else `pretrained`."""
    return "demo" if model in ZOO and ZOO[model].demo_file.is_file() else "pretrained"


def _newest_unfinished(model: str | None, runs_dir: Path) -> Run:
    unfinished = [
        r
        for r in list_runs(runs_dir)
        if (r.manifest.get("status") == "unfinished" or is_pending(r)) and model in (None, r.model)
    ]
    if not unfinished:
        raise UsageError(f"no unfinished run{f' of {model}' if model else ''} under {runs_dir}: nothing to resume")
    return unfinished[-1]
