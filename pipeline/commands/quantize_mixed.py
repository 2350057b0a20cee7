"""A quantized run and its options in; float layers found or taken out as they ask, and put into its recipe."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pipeline.config import RunConfig
from pipeline.errors import BelowBarError
from pipeline.rundir import Run, set_latest

if TYPE_CHECKING:
    from pipeline.reports.mixed_record import MixedRecord

#: Fact in the manifest of a run whose options ask for float layers after training.
MIXED_PRECISION = "mixed_precision"
PENDING, DONE, OVER_BUDGET = "pending", "done", "over budget"


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
        from pipeline.qat.layer_names import check_names, layer_names

        check_names(named, layer_names(config))


def announce(run: Run, config: RunConfig) -> None:
    """Say in the manifest that a finished training will not be the end; once it is said it stays so."""
    if (config.max_drop is not None or config.float_after_training) and MIXED_PRECISION not in run.manifest:
        run.record(facts={MIXED_PRECISION: PENDING})


def is_pending(run: Run) -> bool:
    """Whether the search was announced and did not end."""
    return bool(run.manifest.get(MIXED_PRECISION) == PENDING)


def is_trained(run: Run) -> bool:
    """Whether only the search is missing."""
    manifest = run.manifest
    return "checkpoint/quantization.json" in manifest["files"] and "provenance" in manifest


def finish(run: Run, config: RunConfig, say: Callable[[str], None]) -> None:
    """Take layers out where that was announced, and write the recipe with them; the run is then the latest one.

    Raises:
        BelowBarError: the budget cannot be held; the run is finished all the same, with all layers int8.
    """
    from pipeline.qat.recipe import write_recipe

    if not is_pending(run):
        return
    run.record(facts={"status": "unfinished"})
    try:
        record = _mix(run, config, say)
    except BelowBarError:
        write_recipe(run, config)
        _end(run, OVER_BUDGET)
        raise
    write_recipe(run, config, _measured(record), float_after_training=list(record.float_layers))
    _end(run, DONE)


def _mix(run: Run, config: RunConfig, say: Callable[[str], None]) -> MixedRecord:
    from pipeline.qat.subject import seed_everything
    from pipeline.stages.mixed_precision import mix
    from pipeline.stages.mixed_search import THREADS, MixedPlan
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
            threads=config.threads or THREADS,
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
    run.record(facts={MIXED_PRECISION: how, "status": "finished"})
    set_latest(run)
