"""What is recorded of a run's waterfall: the same images at every stage, and what was lost between two of them.

Only counts and sums over images are stored; shares, intervals and tests are derived from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.metrics.accuracy import Accuracy, ClassCount
from pipeline.metrics.drift import StepRecord, check_finite
from pipeline.records.keys import CellKey

#: Torch stages in their order; artifacts follow. "trained" has the weights after QAT without any rounding.
TORCH_STAGES = ("official", "deploy", "trained", "fake_quant", "qdq")


@dataclass(frozen=True)
class WaterfallStage:
    """One stage.

    Attributes:
        name: one of TORCH_STAGES, or the label of `cell`.
        cell: the artifact and the runtime, None for a torch stage.
        previous: name of the stage that this one is made from; None for the first.
        to_previous, to_first: None for the first stage.
        per_class: right answers by class.
    """

    name: str
    cell: CellKey | None
    previous: str | None
    accuracy: Accuracy
    to_previous: StepRecord | None
    to_first: StepRecord | None
    per_class: tuple[ClassCount, ...]

    def __post_init__(self) -> None:
        if (self.previous is None) != (self.to_previous is None) or (self.previous is None) != (self.to_first is None):
            raise ValueError(f"stage {self.name!r} after {self.previous!r}: a first stage alone has no step")
        if (self.cell is None) != (self.name in TORCH_STAGES):
            raise ValueError(f"stage {self.name!r} with cell {self.cell}: torch stages are {', '.join(TORCH_STAGES)}")


@dataclass(frozen=True)
class ImageRecord:
    """One image that some stage answers otherwise than the first one, or that moved most.

    Attributes:
        index: position in the validation split.
        name: of its file, or of its place in the data set.
        label: its class number.
        classes: the top class at each stage, in the order of the stages; None where a logit is NaN.
        kl: from the first stage to the stage furthest from it, in nats; None where a logit is not finite.
        thumbnail: `data:` URL of a small picture; None where it was not kept.
    """

    index: int
    name: str
    label: int
    classes: tuple[int | None, ...]
    kl: float | None
    thumbnail: str | None

    def __post_init__(self) -> None:
        check_finite(self.kl)
        if self.thumbnail is not None and not self.thumbnail.startswith("data:image/"):
            raise ValueError(f"thumbnail {self.thumbnail[:20]!r} is no picture in a data: URL")


@dataclass(frozen=True)
class LayerRecord:
    """How far rounding takes the output of one int8 layer, over the images of the explanation.

    Attributes:
        name: of the layer in the model ("blocks.3.mlp.fc1").
        kind: "linear" or "conv2d".
        alone_db: SQNR of its output if this layer alone is rounded (weight, input and output).
        chained_db: SQNR of its output in the QDQ program, with the rounding of all layers before it.
        runtimes_db: SQNR to the QDQ program of the same tensor in an artifact, by the stage's name; runtimes that do
            not show their intermediate tensors are not in it. None everywhere: exact, or a signal of zero.
    """

    name: str
    kind: str
    alone_db: float | None
    chained_db: float | None
    runtimes_db: Mapping[str, float | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_finite(self.alone_db, self.chained_db, *self.runtimes_db.values())


@dataclass(frozen=True)
class FloatLayer:
    """One layer kept float in the QDQ program, all others int8.

    Attributes:
        kl_mean: to the trained stage, in nats over the images of the explanation.
        top1: right answers over those images.
    """

    name: str
    kl_mean: float
    top1: int

    def __post_init__(self) -> None:
        check_finite(self.kl_mean)


@dataclass(frozen=True)
class Explanation:
    """Which layers the loss is in.

    Attributes:
        images: how many images the search ran on.
        qdq_top1, trained_top1: right answers of the QDQ program and of the trained stage on them.
        kl_mean: of the QDQ program to the trained stage, in nats.
        layers: ranked by `alone_db`, worst first.
        kept_float: leave-one-float search, the layer that buys back most first.
        notes: runtimes that show no intermediate tensors, and why.
    """

    images: int
    qdq_top1: int
    trained_top1: int
    kl_mean: float
    layers: tuple[LayerRecord, ...]
    kept_float: tuple[FloatLayer, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class WaterfallRecord:
    """All stages of one run over the same `n` images.

    Attributes:
        digest: of the images and their transform.
        class_names: by class number.
        agreement: on how many images two stages give the same top class; [stages][stages], in their order.
        images: those that changed most, worst first.
        artifacts: sha256 of the artifact that each stage with a cell was computed by, by the stage's name.
    """

    digest: str
    n: int
    class_names: tuple[str, ...]
    stages: tuple[WaterfallStage, ...]
    agreement: tuple[tuple[int, ...], ...]
    images: tuple[ImageRecord, ...]
    explanation: Explanation | None = None
    artifacts: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        if len(set(names)) != len(names) or not names:
            raise ValueError(f"stages {names}: each once, at least one")
        for position, stage in enumerate(self.stages):
            if stage.previous is not None and stage.previous not in names[:position]:
                raise ValueError(f"stage {stage.name!r} comes after {stage.previous!r}, which is not before it")
            if stage.accuracy.n != self.n:
                raise ValueError(f"stage {stage.name!r} is over {stage.accuracy.n} images, not {self.n}")
        if len(self.agreement) != len(names) or any(len(row) != len(names) for row in self.agreement):
            raise ValueError(f"the agreement matrix does not fit {len(names)} stages")
        if any(len(image.classes) != len(names) for image in self.images):
            raise ValueError(f"an image has not one class for each of {len(names)} stages")

    def stage(self, name: str) -> WaterfallStage:
        """
        Raises:
            KeyError: there is no such stage.
        """
        return {stage.name: stage for stage in self.stages}[name]

    def chain(self, name: str) -> tuple[WaterfallStage, ...]:
        """The stages from the first to `name`, each made from the one before it.

        The images lost less those gained at each of its steps add up to those from the first stage to the last.
        """
        found = [self.stage(name)]
        while (previous := found[-1].previous) is not None:
            found.append(self.stage(previous))
        return tuple(reversed(found))
