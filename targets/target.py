"""What every target offers: the class that each folder fills in once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from targets.compute_plan import ComputePlan
from targets.schemes import Schemes
from targets.types import Artifact, ConvertRequest, GraphFacts, PackageOptions, Precision, Probe, Session


@dataclass(frozen=True)
class Target:
    """A runtime family: what it declares, and the functions of its folder. Listed in registry.py by its folder.

    `runtimes` are real; `simulated` are references that compute what a file says on any machine. Their logits are
    never shown as a runtime's, and they have no latency.

    Attributes:
        suffix: of its files, with the dot.
        schemes: the precisions that it is made in, or why not.
        scale_rtol: how exactly the format keeps a scale, as a relative error.
        probe: what can convert and run on this machine; imports the SDKs, which takes seconds.
        convert: writes `request.output`. Raises TargetError, stage "convert"; unsupported operators are named.
        inspect: the facts of a file. Raises TargetError, stage "inspect", for a corrupt or foreign file.
        load: opens path, runtime, threads in this process (the worker's; see targets.worker.host for the parent's
            side). Raises Unavailable where there is no such runtime, TargetError with stage "load".
        roundings: rounding models of its reference -> simulated runtime that computes with each; the first is float32.
        compute_units: choices of hardware on the command line -> runtime that uses them; empty: there is no choice.
        options: fields of PackageOptions that its files have room for, beside `group_size`, which `schemes` tells.
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
    probe: Callable[[], Probe]
    convert: Callable[[ConvertRequest], Artifact]
    inspect: Callable[[Path], GraphFacts]
    load: Callable[[Path, str, int], Session]
    roundings: Mapping[str, str] = field(default_factory=dict)
    compute_units: Mapping[str, str] = field(default_factory=dict)
    options: frozenset[str] = frozenset()
    refusal: Callable[[Precision, PackageOptions], str] = lambda precision, options: ""
    unused: Callable[[Collection[Precision], PackageOptions], str] = lambda precisions, options: ""
    plan: Callable[[Path, str], ComputePlan] | None = None
    shown_tensors: str = ""

    def __post_init__(self) -> None:
        if unknown := self.options - {f.name for f in fields(PackageOptions)}:
            raise ValueError(f"{self.name}: {', '.join(sorted(unknown))} are no fields of PackageOptions")

    @property
    def simulated(self) -> tuple[str, ...]:
        return tuple(self.roundings.values())

    @property
    def precisions(self) -> tuple[Precision, ...]:
        return self.schemes.made
