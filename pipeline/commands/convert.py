"""`convert`: a run's one checkpoint in, an artifact for each target and precision out."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.commands.from_plans import from_plans
from pipeline.commands.options import PrecisionName, RunChoice, TargetChoice, precisions_of, say
from pipeline.config import Wishes
from pipeline.records.keys import raise_if_failed


@from_plans
def convert(
    *,
    choice: TargetChoice,
    precision: PrecisionName = None,
    ptq: Annotated[
        bool, typer.Option("--ptq", help="int8 by calibrating the float model, without the trained scales.")
    ] = False,
    baseline: Annotated[
        bool, typer.Option("--baseline/--no-baseline", help="Also make the float32 file, to compare the others with.")
    ] = True,
    wishes: Wishes,
    list_schemes: Annotated[
        bool,
        typer.Option(
            "--list-schemes",
            help="Print which target is made in which precision, and why not in others.",
            is_eager=True,
        ),
    ] = False,
    where: RunChoice,
) -> None:
    if list_schemes:
        from pipeline.report.tables.artifacts import show

        show()
        return
    targets, precisions = choice.names(), precisions_of(precision)
    from pipeline.stages.convert import baseline_of, check_wishes, convert_cells, plan_cells

    cells = plan_cells(targets, precisions, ptq, say)
    check_wishes(wishes, cells, say)
    if baseline:
        cells = list(dict.fromkeys([*cells, *(baseline_of(cell.target) for cell in cells)]))
    found = where.find()
    records = convert_cells(found, cells, say, wishes)
    for record in records:
        if record.path is not None:
            print(found.path / record.path)
    raise_if_failed("convert", ((f"{r.target} {r.precision}", r.outcome) for r in records))
