"""`compare`: show two finished runs side by side, as tables, JSON, Markdown or HTML."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.from_plans import from_plans
from pipeline.commands.options import RunsFolder, say
from pipeline.errors import UsageError
from pipeline.files import write_atomic
from pipeline.run.folder import find_run
from targets.words import suggest

FORMATS = ("table", "json", "markdown", "html")


@from_plans
def compare(
    *,
    run_a: Annotated[Path, typer.Argument(metavar="RUN_A", help="The run before: a run folder or its name.")],
    run_b: Annotated[Path, typer.Argument(metavar="RUN_B", help="The run after.")],
    format: Annotated[str, typer.Option(help="table, json, markdown or html.")] = "table",
    output: Annotated[Path | None, typer.Option(help="File to write.  \\[default: stdout]")] = None,
    runs: RunsFolder,
) -> None:
    if format not in FORMATS:
        raise UsageError(f"--format {format!r} is not one of {', '.join(FORMATS)}.{suggest(format, FORMATS)}")
    a, b = find_run(runs.runs_dir, run_a), find_run(runs.runs_dir, run_b)
    from pipeline.compare import views
    from pipeline.compare.compare import compare_runs

    renderers: dict[str, Callable[..., str]] = {
        "table": views.text,
        "json": views.as_json,
        "markdown": views.markdown,
        "html": views.html,
    }
    comparison = compare_runs(a, b)
    if output is not None:
        write_atomic(output, renderers[format](comparison))
        say(f"written: {output}")
    elif format == "table":
        views.show(comparison)
    else:
        print(renderers[format](comparison), end="")
