"""`check`: hold a finished run against a committed baseline; a verdict for every cell and rule, and an exit code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.commands.from_plans import from_plans
from pipeline.commands.options import RunChoice, say
from pipeline.errors import CellsFailedError, RunError, UsageError
from pipeline.files import write_atomic
from pipeline.run.folder import Run
from targets.codec import RecordError

if TYPE_CHECKING:
    from pipeline.gate.settings import Settings

Junit = Annotated[Path | None, typer.Option(help="Also write JUnit XML there, one test case a cell and rule.")]
Json = Annotated[Path | None, typer.Option(help="Also write every figure as JSON there.")]
Markdown = Annotated[Path | None, typer.Option(help="Also append Markdown there, as $GITHUB_STEP_SUMMARY wants it.")]
#: Budgets on the command line: parameter -> rule and key in edge-t2t.toml.
BUDGETS = {
    "max_drop": ("drop", "max_pp"),
    "min_agreement": ("agreement", "min_percent"),
    "max_undelegated": ("undelegated", "max"),
    "max_partitions": ("partitions", "max"),
    "max_float_weights": ("float_weights", "max"),
    "max_lost_scales": ("scales", "max_more_lost"),
    "max_size_ratio": ("size", "max_ratio"),
    "max_memory_ratio": ("memory", "max_ratio"),
    "max_latency_ratio": ("latency", "max_ratio"),
    "other_processors": ("latency", "other_processors"),
    "max_int8_ratio": ("int8_speed", "max_ratio"),
    "max_instruction_ratio": ("instructions", "max_ratio"),
}


@from_plans
def check(
    *,
    baseline: Annotated[Path | None, typer.Option(help="The baseline file.  \\[default: that of the settings]")] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Write the baseline from this run, and judge nothing.")
    ] = False,
    allow_failed: Annotated[
        bool, typer.Option("--allow-failed", help="With --update: take a run with failed cells too.")
    ] = False,
    max_drop: Annotated[float | None, typer.Option(help="Points that top-1 may fall.  \\[default: 0.5]")] = None,
    min_agreement: Annotated[
        float | None, typer.Option(help="Percent of images.  \\[default: no fewer than in the baseline]")
    ] = None,
    max_undelegated: Annotated[int | None, typer.Option(help="Operators.  \\[default: as in the baseline]")] = None,
    max_partitions: Annotated[
        int | None, typer.Option(help="Of the delegate.  \\[default: as in the baseline]")
    ] = None,
    max_float_weights: Annotated[int | None, typer.Option(help="In an int8 file.  \\[default: 0]")] = None,
    max_lost_scales: Annotated[int | None, typer.Option(help="Beyond the baseline's.  \\[default: 0]")] = None,
    max_size_ratio: Annotated[float | None, typer.Option(help="Of the baseline's bytes.  \\[default: 1.02]")] = None,
    max_memory_ratio: Annotated[
        float | None, typer.Option(help="Of the baseline's peak memory.  \\[default: 1.10]")
    ] = None,
    max_latency_ratio: Annotated[
        float | None, typer.Option(help="Of the baseline's ratio to MobileNetV2.  \\[default: 1.10]")
    ] = None,
    max_int8_ratio: Annotated[float | None, typer.Option(help="int8 over float32 latency.  \\[default: 1.0]")] = None,
    max_instruction_ratio: Annotated[
        float | None, typer.Option(help="Of the baseline's instructions (qemu-arm64).  \\[default: 1.05]")
    ] = None,
    other_processors: Annotated[
        bool | None, typer.Option("--other-processors", help="Compare latency ratios of another processor.")
    ] = None,
    skip: Annotated[list[str] | None, typer.Option(help="A rule that is off; may be repeated.")] = None,
    warn: Annotated[list[str] | None, typer.Option(help="A rule that only warns; may be repeated.")] = None,
    inconclusive: Annotated[str | None, typer.Option(help="fail or pass.  \\[default: fail]")] = None,
    config: Annotated[
        Path | None, typer.Option(help="Settings.  \\[default: edge-t2t.toml in this folder, if there is one]")
    ] = None,
    show_settings: Annotated[bool, typer.Option("--show-settings", help="Print what is in force and end.")] = False,
    junit: Junit = None,
    json: Json = None,
    markdown: Markdown = None,
    where: RunChoice,
) -> None:
    given = locals()
    from pipeline.gate.settings import read_settings

    options = _options({name: given[name] for name in BUDGETS}, skip or [], warn or [])
    settings, folder = read_settings(config, options, inconclusive)
    if show_settings:
        _show_settings(settings)
        return
    path = baseline or (folder / settings.baseline if settings.baseline else None)
    if path is None:
        raise UsageError("no baseline: give --baseline FILE, or `baseline` in [check] of edge-t2t.toml")
    if allow_failed and not update:
        raise UsageError("--allow-failed belongs to --update: leave it out")
    found = where.find()
    if update:
        _update(found, path, allow_failed)
    else:
        _check(found, path, settings, junit, json, markdown)


def _check(
    found: Run, path: Path, settings: Settings, junit: Path | None, json: Path | None, markdown: Path | None
) -> None:
    from pipeline.gate import outputs
    from pipeline.gate.collect import facts_of, read_baseline
    from pipeline.gate.judge import error_of, judge

    base = read_baseline(path)
    if base.model != found.model:
        raise UsageError(f"{path} is a baseline of {base.model}, run {found.id} is of {found.model}: give its own")
    result = judge(facts_of(found), base, settings)
    error = error_of(result)
    outputs.show(result)
    if junit:
        write_atomic(junit, outputs.as_junit(result))
    if json:
        write_atomic(json, outputs.as_json(result, error.exit_code if error else 0))
    if markdown:
        markdown.parent.mkdir(parents=True, exist_ok=True)
        with markdown.open("a") as file:
            file.write(outputs.as_markdown(result))
    if error:
        raise error
    print(f"\ncheck: {result.verdict}")


def _update(found: Run, path: Path, allow_failed: bool) -> None:
    from pipeline.gate.collect import baseline_text, facts_of, read_baseline
    from pipeline.gate.tables import baseline_table
    from pipeline.report.tables.table import print_tables

    new = facts_of(found)
    failed = [cell for cell in new.cells if cell.outcome.status == "failed"]
    if failed and not allow_failed:
        lines = "\n  ".join(f"{c.key.label}: {c.outcome.stage}: {c.outcome.reason}" for c in failed)
        raise CellsFailedError(
            f"{len(failed)} cells of run {found.id} failed and would be no part of the baseline: repair them, or take "
            f"the others with --allow-failed\n  {lines}"
        )
    old = None
    try:
        old = read_baseline(path) if path.exists() else None
    except (RunError, RecordError) as error:  # it is about to be replaced
        say(f"the old baseline cannot be shown beside the new one: {error}")
    print_tables([baseline_table(old, new)])
    write_atomic(path, baseline_text(new))
    say(f"baseline: {path}: look at it, and commit it by itself")


def _show_settings(settings: Settings) -> None:
    print(f"[check]\ninconclusive = {settings.inconclusive!r}")
    print(f"baseline = {settings.baseline!r}\n" if settings.baseline else "# baseline is not set\n")
    print(settings.as_toml("check.rules", ""))
    for model in settings.models:
        print(settings.as_toml(f"check.models.{model}.rules", model))


def _options(budgets: dict[str, Any], skip: list[str], warn: list[str]) -> dict[str, dict[str, Any]]:
    options: dict[str, dict[str, Any]] = {}
    for name, value in budgets.items():
        if value is not None:
            rule, key = BUDGETS[name]
            options.setdefault(rule, {})[key] = value
    for rule in skip:
        options.setdefault(rule, {})["enabled"] = False
    for rule in warn:
        options.setdefault(rule, {})["severity"] = "warn"
    return options
