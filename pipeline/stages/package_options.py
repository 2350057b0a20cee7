"""The options of `convert` beyond the precision: checked against what each target has room for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from pipeline.errors import UsageError
from pipeline.options import Option, options_of
from pipeline.progress import Say
from pipeline.records.keys import ArtifactKey
from pipeline.run.facts import read_subject
from pipeline.run.folder import Run
from targets import registry
from targets.types import PRECISIONS, PackageOptions

CORE_ML = "Core ML packages"  # heading in `--help`


@dataclass(frozen=True)
class Wishes:
    """Options of `convert`; what they need from the run is looked up by `options_by_target`.

    Attributes:
        class_labels: whether the file shall name the run's classes.
        group_size: input channels that share a scale of an int4 weight, in any target that has groups.
        others: as in targets.types.PackageOptions.
    """

    group_size: Annotated[
        int | None,
        Option("Input channels that share a scale of an int4 weight; default 32.  --list-schemes tells the choices."),
    ] = None
    image_input: Annotated[
        bool, Option("Take an RGB picture, with the preprocessing inside.", names=("--image-input",), panel=CORE_ML)
    ] = False
    class_labels: Annotated[
        bool, Option("Give the run's class names beside the logits.", names=("--class-labels",), panel=CORE_ML)
    ] = False
    deployment_target: Annotated[
        str,
        Option("Oldest system: iOS15 to iOS18, iOS26, macOS12 to macOS15, macOS26; default iOS17, for w4 iOS18.",
               panel=CORE_ML),
    ] = ""  # fmt: skip
    float32_operators: Annotated[
        tuple[str, ...],
        Option("Operators that compute in float32 in a half precision file; may be repeated.", names=("--float32-op",),
               metavar="TYPE_OR_NAME", panel=CORE_ML),
    ] = ()  # fmt: skip
    unsigned_weights: Annotated[
        bool,
        Option("Store int8 weights as uint8, with the same values: some systems read signed ones wrongly.",
               names=("--unsigned-weights",), panel=CORE_ML),
    ] = False  # fmt: skip
    author: Annotated[str, Option("Of the model, as Xcode shows it.", panel=CORE_ML)] = ""
    license: Annotated[str, Option("Likewise: a name or a text.", panel=CORE_ML)] = ""

    def of_the_file(self) -> PackageOptions:
        """What is known of the file before the run is read."""
        return PackageOptions(
            deployment_target=self.deployment_target,
            float32_operators=self.float32_operators,
            unsigned_weights=self.unsigned_weights,
            author=self.author,
            license=self.license,
        )


def check_wishes(wishes: Wishes, cells: Sequence[ArtifactKey], say: Say) -> None:
    """Refuse what none of the cells can do, before any work; tell which targets an option is ignored for.

    Raises:
        UsageError: no target with room for an option, a file that cannot have it, or one that no file would use.
    """
    _check_group_size(wishes.group_size, cells)
    rooms: dict[tuple[str, ...], list[str]] = {}
    for name, declared in options_of(Wishes).items():
        if name != "group_size" and getattr(wishes, name):
            room = tuple(target.name for target in registry.everyone() if name in target.options)
            rooms.setdefault(room, []).append(declared.flag)
    for room, given in rooms.items():
        _check_room(room, given, wishes, cells, say)


def _check_room(
    room: tuple[str, ...], given: list[str], wishes: Wishes, cells: Sequence[ArtifactKey], say: Say
) -> None:
    """
    Args:
        room: the targets whose files have room for the options `given`.
    """
    options, plural = ", ".join(given), len(given) > 1
    belong = f"{'belong' if plural else 'belongs'} to {', '.join(room)}"
    concerned = [cell for cell in cells if cell.target in room]
    others = list(dict.fromkeys(cell.target for cell in cells if cell.target not in room))
    if not concerned:
        raise UsageError(f"{options} {belong} alone: leave out, or add --target {room[0]}")
    for cell in concerned:
        if reason := registry.get(cell.target).refusal(cell.precision, wishes.of_the_file()):
            raise UsageError(reason)
    for name in dict.fromkeys(cell.target for cell in concerned):
        precisions = [cell.precision for cell in concerned if cell.target == name]
        if reason := registry.get(name).unused(precisions, wishes.of_the_file()):
            raise UsageError(reason)
    if others:
        say(f"{options} {belong}, and {'say' if plural else 'says'} nothing to {', '.join(others)}")


def _check_group_size(size: int | None, cells: Sequence[ArtifactKey]) -> None:
    """
    Raises:
        UsageError: none of the files has groups, or one of those that have cannot have this size.
    """
    if size is None:
        return
    grouped = [cell for cell in cells if registry.get(cell.target).schemes[cell.precision].group_sizes]
    if not grouped:
        made = ", ".join(
            f"{precision} of {target.name}"
            for precision in PRECISIONS
            for target in registry.everyone()
            if target.schemes[precision].group_sizes
        )
        raise UsageError(f"--group-size {size}: no file asked for has groups; those that have are {made}")
    for cell in grouped:
        try:
            registry.get(cell.target).schemes.group_size(cell.precision, size)
        except ValueError as error:
            raise UsageError(f"--group-size {size}: {error}") from error


def options_by_target(run: Run, wishes: Wishes, cells: Sequence[ArtifactKey]) -> dict[ArtifactKey, PackageOptions]:
    """The wishes with mean, standard deviation and classes of the run, as far as each cell's format has room for them.

    Raises:
        RunError: the run has no record of them, or it changed.
    """
    subject = read_subject(run)
    everything = replace(
        wishes.of_the_file(),
        image_input=wishes.image_input,
        mean=subject.model_config.mean,
        std=subject.model_config.std,
        class_labels=subject.classes if wishes.class_labels else (),
    )
    found = {}
    for cell in cells:
        target = registry.get(cell.target)
        kept = {field: getattr(everything, field) for field in target.options}
        size = wishes.group_size if target.schemes[cell.precision].group_sizes else None
        found[cell] = PackageOptions(**kept, group_size=size)
    return found
