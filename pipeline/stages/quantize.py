"""Quantize a model from its options to a finished run folder, or resume one; float layers included."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calibration.dataset import DIGITS
from pipeline.config import RunConfig, ValidationPlan
from pipeline.errors import BelowBarError, UsageError
from pipeline.models.zoo import ZOO, check_name, plain_name
from pipeline.progress import Say, chief
from pipeline.run.facts import read_config
from pipeline.run.folder import DONE, OVER_BUDGET, PENDING, SEARCH, Run, find_run, list_runs, set_latest

if TYPE_CHECKING:
    from pipeline.records.mixed import MixedRecord
    from pipeline.run.recipe import Recipe
    from pipeline.training.subject import Subject


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
    config = replace(config, model=plain_name(config.model))
    check_name(config.model)
    if not config.weights:
        config = replace(config, weights=default_weights(config.model, config.data))
        say(f"no --weights given: {config.weights}")
    check_float_layers(config)
    from pipeline.quantization.qat import start
    from pipeline.run.recipe import other_than
    from pipeline.training.distributed import joined

    with joined(config.device):
        run, subject = start(config, runs_dir)
        data = subject.data
        say(
            f"run {run.path}: {config.model}, weights {config.weights}, {len(data.train)} training and "
            f"{len(data.val)} validation images of {data.name} in {len(data.classes)} classes"
        )
        for line in subject.told():
            say(line)
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
    from pipeline.quantization.qat import config_of, subject_of
    from pipeline.training.distributed import joined

    found = find_run(runs_dir, run) if run is not None else _newest_unfinished(model, runs_dir)
    if model is not None and found.model != model:
        raise UsageError(f"run {found.id} is of {found.model}, not of {model}")
    if found.status == "searching":
        config = read_config(found)
        say(f"resuming the search in {found.path}")
    else:
        config = config_of(found)
        with joined(config.device):
            subject = subject_of(config)
            say(f"resuming {found.path}")
            _quantize(found, config, subject, say)
    if chief():
        finish(found, config, say)
    return found


def _quantize(run: Run, config: RunConfig, subject: Subject, say: Say) -> None:
    """Train; the run is the latest one now, or when its float layers were found."""
    from pipeline.quantization.qat import quantize

    if chief():
        announce(run, config)
    quantize(run, config, subject, say, latest=not chief() or not run.search_pending)


def default_weights(model: str, data: str) -> str:
    """`demo` if weights are bundled and the data are the digits they were trained on, else `pretrained`."""
    bundled = model in ZOO and ZOO[model].demo_file.is_file()
    return "demo" if bundled and data == DIGITS else "pretrained"


def _newest_unfinished(model: str | None, runs_dir: Path) -> Run:
    unfinished = [r for r in list_runs(runs_dir) if r.status != "finished" and model in (None, r.model)]
    if not unfinished:
        raise UsageError(f"no unfinished run{f' of {model}' if model else ''} under {runs_dir}: nothing to resume")
    return unfinished[-1]


def check_float_layers(config: RunConfig) -> None:
    """Before any long work.

    Raises:
        UsageError: a name that no layer of the model has, or an unknown target.
    """
    from targets import registry

    for target in config.drop_targets:
        registry.get(target)
    named = {*config.float_layers, *config.float_after_training}
    if named:
        from pipeline.quantization.float_layers import check_names, layer_names

        check_names(named, layer_names(config))


def announce(run: Run, config: RunConfig) -> None:
    """Say in the manifest that a finished training will not be the end; once it is said it stays so."""
    if (config.max_drop is not None or config.float_after_training) and SEARCH not in run.manifest:
        run.record(facts={SEARCH: PENDING})


def finish(run: Run, config: RunConfig, say: Say) -> None:
    """Take layers out where that was announced, and write the recipe with them; the run is then the latest one.

    Raises:
        BelowBarError: the budget cannot be held; the run is finished all the same, with all layers int8.
    """
    from pipeline.run.recipe import write_recipe

    if not run.search_pending:
        return
    run.mark("unfinished")
    try:
        record = _mix(run, config, say)
    except BelowBarError:
        write_recipe(run, config)
        _end(run, OVER_BUDGET)
        raise
    write_recipe(run, config, _measured(record), float_after_training=list(record.float_layers))
    _end(run, DONE)


def _mix(run: Run, config: RunConfig, say: Say) -> MixedRecord:
    from pipeline.mixed.search import MixedPlan
    from pipeline.stages.mixed_precision import mix
    from pipeline.training.subject import seed_everything
    from targets import registry

    seed_everything(config.seed, config.threads)
    targets = tuple(name for name in registry.variants() if name in (config.drop_targets or registry.names()))
    return mix(
        run,
        MixedPlan(
            given=config.float_after_training,
            budget_pp=config.max_drop,
            targets=targets,
            rank_images=config.rank_images,
            threads=config.threads or ValidationPlan.threads,
        ),
        say,
    )


def _measured(record: MixedRecord) -> dict[str, Any] | None:
    """For the recipe: counts of the result."""
    if record.budget_pp is None:
        return None
    cells = [cell for trial in record.chosen for cell in trial.cells]
    return {
        "budget_pp": record.budget_pp,
        "drops": [{"name": c.name, "n": c.n, "lost": c.lost, "gained": c.gained} for c in cells],
    }


def _end(run: Run, how: str) -> None:
    run.mark("finished", **{SEARCH: how})
    set_latest(run)
