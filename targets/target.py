"""What every target declares and offers: runtimes, precisions, options, compute plans; each folder fills it in once.

Each target's folder has its table in `schemes.py`; targets.registry joins them. Every reason names where it comes
from: a source file of the SDK as pinned in pyproject.toml, or a run of our own.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from targets.boundary import Boundary, Gives
from targets.sdk import installed
from targets.types import (
    Capability,
    ConvertRequest,
    GraphFacts,
    PackageOptions,
    Precision,
    Probe,
    Session,
    TargetError,
)

#: Fields of PackageOptions that a file with an image input is made of.
IMAGE_OPTIONS = frozenset({"image_input", "mean", "std", "class_labels", "crop_pct", "interpolation"})


@dataclass(frozen=True)
class Target:
    """A runtime family: what it declares, and the functions of its folder. Listed in registry.py by its folder.

    `runtimes` are real; `simulated` are references that compute what a file says on any machine. Their logits are
    never shown as a runtime's, and they have no latency.

    Attributes:
        suffix: of its files, with the dot.
        schemes: the precisions that it is made in, or why not.
        scale_rtol: how exactly the format keeps a scale, as a relative error.
        cannot_convert: why nothing can be converted on this machine; empty where it can. Imports the SDK.
        cannot_run: why nothing can be run on this machine in one of `runtimes`; likewise.
        packages: that decide what is converted and run.
        convert: writes `request.output`. Raises TargetError, stage "convert"; unsupported operators are named.
        inspect: the facts of a file. Raises TargetError, stage "inspect", for a corrupt or foreign file.
        load: opens path, runtime, threads in this process (the worker's; see targets.worker.host for the parent's
            side). Raises Unavailable where there is no such runtime, TargetError with stage "load".
        roundings: rounding models of its reference -> simulated runtime that computes with each; the first is float32.
        compute_units: choices of hardware on the command line -> runtime that uses them; empty: there is no choice.
        options: fields of PackageOptions that its files have room for, beside `group_size`, which `schemes` tells.
        gives: outputs of its files with an image input.
        refusal: why a file of this precision cannot have these options; empty where it can.
        unused: why none of the files of these precisions would use an option; empty where each is used.
        plan: asks the framework which hardware runs each operation of a file, given the choice of compute units;
            None where it cannot be asked. Raises TargetError.
        shown_tensors: for the reader of figures of tensors inside a file: what they are of, if not what is timed.
    """

    name: str
    suffix: str
    runtimes: tuple[str, ...]
    schemes: Schemes
    scale_rtol: float
    cannot_convert: Callable[[], str]
    cannot_run: Callable[[str], str]
    packages: tuple[str, ...]
    convert: Callable[[ConvertRequest], None]
    inspect: Callable[[Path], GraphFacts]
    load: Callable[[Path, str, int], Session]
    roundings: Mapping[str, str] = field(default_factory=dict)
    compute_units: Mapping[str, str] = field(default_factory=dict)
    options: frozenset[str] = frozenset()
    gives: Gives = "both"
    refusal: Callable[[Precision, PackageOptions], str] = lambda precision, options: ""
    unused: Callable[[Collection[Precision], PackageOptions], str] = lambda precisions, options: ""
    plan: Callable[[Path, str], ComputePlan] | None = None
    shown_tensors: str = ""

    def probe(self) -> Probe:
        """What can convert and run on this machine; imports the SDKs, which takes seconds."""
        run = {runtime: _capability(self.cannot_run(runtime)) for runtime in self.runtimes}
        return Probe(_capability(self.cannot_convert()), run, installed(*self.packages))

    def boundary(self, options: PackageOptions, size: tuple[int, int]) -> Boundary:
        """Of a file with these options for images of this height and width."""
        if options.image_input:
            return Boundary.image(size, self.gives)
        return Boundary.tensor(size, options.mean, options.std)

    @property
    def simulated(self) -> tuple[str, ...]:
        return tuple(self.roundings.values())


def _capability(problem: str) -> Capability:
    return Capability(not problem, problem)


#: Input channels that share a scale where nothing else is asked for: the default of coremltools and of torchao.
GROUP_SIZE = 32
#: Schemes by the name that papers and other tools use, where that is not the precision's own.
ALIASES: dict[str, Precision] = {"w8a8": "int8", "w8a8-dynamic": "int8-dynamic"}


@dataclass(frozen=True)
class Support:
    """Whether and how.

    Attributes:
        made: whether `convert` makes such files.
        words: of a made file what it holds and where it is slow; otherwise the reason and its source.
        group_sizes: input channels that may share a scale of an int4 weight; empty where there is no choice.
    """

    made: bool
    words: str
    group_sizes: tuple[int, ...] = ()


def made(words: str, *group_sizes: int) -> Support:
    return Support(True, words, group_sizes)


def not_made(reason: str) -> Support:
    return Support(False, reason)


@dataclass(frozen=True)
class Schemes:
    """The table of one target. `convert --list-schemes` prints it, docs/convert.md repeats it.

    Attributes:
        by_precision: every precision there is.
    """

    target: str
    by_precision: Mapping[Precision, Support]

    def __getitem__(self, precision: Precision) -> Support:
        return self.by_precision[precision]

    @property
    def made(self) -> tuple[Precision, ...]:
        """The precisions that files are made in."""
        return tuple(precision for precision, support in self.by_precision.items() if support.made)

    def why_not(self, precision: Precision) -> str:
        """One sentence; empty where such files are made."""
        support = self[precision]
        return "" if support.made else f"{self.target} is not converted in {precision}: {support.words}"

    def group_size(self, precision: Precision, asked: int | None) -> int:
        """Input channels that share a scale.

        Raises:
            TargetError: stage "convert", `asked` is none that the target has, or there are no groups.
        """
        sizes = self[precision].group_sizes
        if asked is not None and asked not in sizes:
            known = f"one of {', '.join(map(str, sizes))}" if sizes else "no groups"
            raise TargetError("convert", f"group size {asked}: {self.target} has {known} in {precision}")
        return asked or GROUP_SIZE


Unit = Literal["cpu", "gpu", "neural engine"]
UNITS: tuple[Unit, ...] = get_args(Unit)
#: For an operation whose unit the framework does not tell.
NOT_TOLD = "not told"


@dataclass(frozen=True)
class PlannedOperation:
    """One operation of the program.

    Attributes:
        type: as the framework names it, with or without the version of its operator set ("ios17.conv").
        name: of its first output; empty where it has none.
        preferred: the unit that the framework means to run it on; None where it does not tell.
        supported: units that could run it; empty where it does not tell.
        cost: share of the whole program's estimated work, 0 to 1; None where it does not tell.
    """

    type: str
    name: str
    preferred: Unit | None
    supported: tuple[Unit, ...]
    cost: float | None

    def __post_init__(self) -> None:
        if self.cost is not None and not (math.isfinite(self.cost) and 0 <= self.cost <= 1):
            raise ValueError(f"{self.name}: cost {self.cost} is no share from 0 to 1")


@dataclass(frozen=True)
class ComputePlan:
    """The plan of one package on one machine.

    Attributes:
        units: the choice that it was loaded with (targets.coreml.units).
        load_ms: milliseconds that compiling and loading the package took before, by the wall clock. Core ML keeps what
            it compiled: the first load on a machine is the slow one.
        operations: of the main function in order, nested blocks included, constants left out.
    """

    units: str
    load_ms: float
    operations: tuple[PlannedOperation, ...]

    def __post_init__(self) -> None:
        if not (math.isfinite(self.load_ms) and self.load_ms > 0):
            raise ValueError(f"load_ms is {self.load_ms}")
        if not self.operations:
            raise ValueError("a compute plan without operations")

    def operations_by_unit(self) -> dict[str, int]:
        """How many operations each unit is preferred for, in the order of `UNITS`, then those not told."""
        counts = Counter(operation.preferred or NOT_TOLD for operation in self.operations)
        return {unit: counts[unit] for unit in (*UNITS, NOT_TOLD) if counts[unit]}

    def cost_by_unit(self) -> dict[str, float | None]:
        """Share of the estimated work on each unit of `operations_by_unit`; None where no operation tells its cost."""
        shares: dict[str, float | None] = {}
        for unit in self.operations_by_unit():
            told = [o.cost for o in self.operations if (o.preferred or NOT_TOLD) == unit and o.cost is not None]
            shares[unit] = math.fsum(told) if told else None
        return shares
