"""What a user asks of the written files beyond their precision in, PackageOptions that fit the cells out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pipeline.errors import UsageError
from pipeline.records.keys import ArtifactKey
from pipeline.run.facts import read_subject
from pipeline.run.folder import Run
from targets.coreml import deployment
from targets.schemes import SCHEMES, group_size
from targets.types import PackageOptions, Precision

Say = Callable[[str], None]
#: Targets whose format has room for all of it.
HONOURED_BY = ("coreml",)
#: Precisions whose weights are stored as signed bytes.
SIGNED: tuple[Precision, ...] = ("int8", "w8")


@dataclass(frozen=True)
class Wishes:
    """Options of `convert`; what they need from the run is looked up by `options_by_target`.

    Attributes:
        class_labels: whether the file shall name the run's classes.
        group_size: input channels that share a scale of an int4 weight, in any target that has groups.
    """

    image_input: bool = False
    class_labels: bool = False
    deployment_target: str = ""
    float32_operators: tuple[str, ...] = ()
    unsigned_weights: bool = False
    author: str = ""
    license: str = ""
    group_size: int | None = None

    def given(self) -> list[str]:
        """The options that were used and that belong to HONOURED_BY, as a user types them."""
        values = {
            "--image-input": self.image_input,
            "--class-labels": self.class_labels,
            "--deployment-target": self.deployment_target,
            "--float32-op": self.float32_operators,
            "--unsigned-weights": self.unsigned_weights,
            "--author": self.author,
            "--license": self.license,
        }
        return [option for option, value in values.items() if value]


def check_wishes(wishes: Wishes, cells: Sequence[ArtifactKey], say: Say) -> None:
    """Refuse what none of the cells can do, before any work; tell which targets an option says nothing to.

    Raises:
        UsageError: no target with room for the option, a system that lacks what a precision needs, or float32 operators
            for files that have no others.
    """
    _check_group_size(wishes.group_size, cells)
    given = wishes.given()
    if not given:
        return
    options, plural = ", ".join(given), len(given) > 1
    belong = f"{'belong' if plural else 'belongs'} to {', '.join(HONOURED_BY)}"
    concerned = [cell for cell in cells if cell.target in HONOURED_BY]
    others = list(dict.fromkeys(cell.target for cell in cells if cell.target not in HONOURED_BY))
    if not concerned:
        raise UsageError(f"{options} {belong} alone: leave out, or add --target {HONOURED_BY[0]}")
    for cell in concerned:
        if reason := deployment.problem(cell.precision, wishes.deployment_target):
            raise UsageError(reason)
    if wishes.float32_operators and all(cell.precision == "fp32" for cell in concerned):
        raise UsageError(
            "--float32-op with --precision fp32: every operator of such a file computes in float32 already"
        )
    if wishes.unsigned_weights and not any(cell.precision in SIGNED for cell in concerned):
        raise UsageError(
            f"--unsigned-weights: only {' and '.join(SIGNED)} files of {HONOURED_BY[0]} have signed weights"
        )
    if others:
        say(f"{options} {belong}, and {'say' if plural else 'says'} nothing to {', '.join(others)}")


def _check_group_size(size: int | None, cells: Sequence[ArtifactKey]) -> None:
    """
    Raises:
        UsageError: none of the files has groups, or one of those that have cannot have this size.
    """
    if size is None:
        return
    grouped = [cell for cell in cells if SCHEMES[cell.precision][cell.target].group_sizes]
    if not grouped:
        made = ", ".join(
            f"{precision} of {target}"
            for precision, by_target in SCHEMES.items()
            for target, support in by_target.items()
            if support.group_sizes
        )
        raise UsageError(f"--group-size {size}: no file asked for has groups; those that have are {made}")
    for cell in grouped:
        try:
            group_size(cell.precision, cell.target, size)
        except ValueError as error:
            raise UsageError(f"--group-size {size}: {error}") from error


def options_by_target(run: Run, wishes: Wishes, cells: Sequence[ArtifactKey]) -> dict[ArtifactKey, PackageOptions]:
    """The wishes with mean, standard deviation and classes of the run, as far as each cell's format has room for them.

    Raises:
        RunError: the run has no record of them, or it changed.
    """
    subject = read_subject(run)
    everything = PackageOptions(
        image_input=wishes.image_input,
        mean=subject.model_config.mean,
        std=subject.model_config.std,
        class_labels=subject.classes if wishes.class_labels else (),
        deployment_target=wishes.deployment_target,
        float32_operators=wishes.float32_operators,
        unsigned_weights=wishes.unsigned_weights,
        author=wishes.author,
        license=wishes.license,
    )
    found = {}
    for cell in cells:
        size = wishes.group_size if SCHEMES[cell.precision][cell.target].group_sizes else None
        found[cell] = replace(everything if cell.target in HONOURED_BY else PackageOptions(), group_size=size)
    return found
