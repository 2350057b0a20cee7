"""`convert`: a run's one checkpoint in, an artifact for each target and precision out."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.commands.from_plans import from_plans
from pipeline.commands.options import (
    BackendName,
    PrecisionName,
    RunChoice,
    TargetName,
    precisions_of,
    raise_if_failed,
    say,
    targets_of,
)  # fmt: skip

_CORE_ML = "Core ML packages"


@from_plans
def convert(
    *,
    target: TargetName = None,
    backend: BackendName = None,
    precision: PrecisionName = None,
    ptq: Annotated[
        bool, typer.Option("--ptq", help="int8 by calibrating the float model, without the trained scales.")
    ] = False,
    group_size: Annotated[
        int | None,
        typer.Option(
            help="Input channels that share a scale of an int4 weight; default 32.  --list-schemes tells the choices.",
            show_default=False,
        ),
    ] = None,
    list_schemes: Annotated[
        bool,
        typer.Option(
            "--list-schemes",
            help="Print which target is made in which precision, and why not in others.",
            is_eager=True,
        ),
    ] = False,
    image_input: Annotated[
        bool,
        typer.Option(
            "--image-input", help="Take an RGB picture, with the preprocessing inside.", rich_help_panel=_CORE_ML
        ),
    ] = False,
    class_labels: Annotated[
        bool,
        typer.Option("--class-labels", help="Give the run's class names beside the logits.", rich_help_panel=_CORE_ML),
    ] = False,
    deployment_target: Annotated[
        str,
        typer.Option(
            help="Oldest system: iOS15 to iOS18, iOS26, macOS12 to macOS15, macOS26; default iOS17, for w4 iOS18.",
            show_default=False,
            rich_help_panel=_CORE_ML,
        ),
    ] = "",
    float32_op: Annotated[
        list[str] | None,
        typer.Option(
            "--float32-op",
            metavar="TYPE_OR_NAME",
            help="Operators that compute in float32 in a half precision file; may be repeated.",
            rich_help_panel=_CORE_ML,
        ),
    ] = None,
    unsigned_weights: Annotated[
        bool,
        typer.Option(
            "--unsigned-weights",
            help="Store int8 weights as uint8, with the same values: some systems read signed ones wrongly.",
            rich_help_panel=_CORE_ML,
        ),
    ] = False,
    author: Annotated[
        str, typer.Option(help="Of the model, as Xcode shows it.", show_default=False, rich_help_panel=_CORE_ML)
    ] = "",
    license: Annotated[
        str, typer.Option(help="Likewise: a name or a text.", show_default=False, rich_help_panel=_CORE_ML)
    ] = "",
    where: RunChoice,
) -> None:
    """Convert, read the file back, run it in a fresh process, and only then put it into the run folder."""
    if list_schemes:
        from pipeline.report.tables.artifacts import show

        show()
        return
    targets, precisions = targets_of(target, backend), precisions_of(precision)
    from pipeline.stages.convert import convert_cells, plan_cells
    from pipeline.stages.package_options import Wishes, check_wishes

    cells = plan_cells(targets, precisions, ptq, say)
    wishes = Wishes(
        image_input=image_input,
        class_labels=class_labels,
        deployment_target=deployment_target,
        float32_operators=tuple(float32_op or ()),
        unsigned_weights=unsigned_weights,
        author=author,
        license=license,
        group_size=group_size,
    )
    check_wishes(wishes, cells, say)
    found = where.find()
    records = convert_cells(found, cells, say, wishes)
    for record in records:
        if record.path is not None:
            print(found.path / record.path)
    raise_if_failed("convert", ((f"{r.target} {r.precision}", r.outcome) for r in records))
