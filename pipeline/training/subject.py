"""What is trained: the model, its data and transforms; and the images that the logits of a run are of, opened again."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import nn

from pipeline.errors import RunError, UsageError
from pipeline.progress import progress
from pipeline.run.facts import read_config, read_subject
from pipeline.run.folder import Run
from pipeline.run.logits import StageLogits
from pipeline.training.distributed import wait, world
from targets.words import first

if TYPE_CHECKING:
    from torch import Tensor

    from calibration.dataset import DataSource, Split
    from calibration.preprocess import EvalTransform
    from pipeline.config import ImagesPlan
    from pipeline.models.build import ModelConfig
    from pipeline.models.weights import LoadedWeights, WeightsInfo
    from pipeline.run.facts import SubjectFacts


@dataclass(frozen=True)
class Subject:
    """A float model beside the data it is fine-tuned and judged on.

    Attributes:
        origins: where the preprocessing comes from, by field of the model's config.
        named: classes of the weights in label order, where they have names.
    """

    model: nn.Module
    model_config: ModelConfig
    data: DataSource
    transform: EvalTransform
    weights: LoadedWeights
    origins: Mapping[str, str] = field(default_factory=dict)
    named: tuple[str, ...] | None = None

    @property
    def input_size(self) -> tuple[int, int, int]:
        return self.model_config.input_size

    def facts(self) -> SubjectFacts:
        """What a report needs to know of it."""
        from pipeline.records.report import DataRecord
        from pipeline.run.facts import SubjectFacts

        data = self.data
        return SubjectFacts(
            model_config=self.model_config,
            parameters=sum(p.numel() for p in self.model.parameters()),
            classes=tuple(data.classes),
            data=DataRecord(data.name, len(data.train), len(data.val), data.train.digest(), data.val.digest()),
            weights=self.weights,
            transform_digest=self.transform.digest(),
            origins=self.origins,
        )

    def told(self) -> list[str]:
        """For the reader, before the work begins: how images are prepared, and what becomes of the classes."""
        from pipeline.models.preprocessing import told

        lines = [told(self.model_config, self.origins)]
        if self.weights.head_replaced:
            lines.append("the head was replaced: the weights are for other classes")
        if self.weights.source != "none":
            lines += classes_told(self.named, self.data.classes, self.weights.head_replaced)
        return lines


def load_data(spec: str, skip_bad: bool, val_only: bool = False) -> DataSource:
    """Open the data and look at every image before anything long begins.

    Args:
        val_only: look at the validation images only; the training split is not going to be read.

    Raises:
        DataError: unreadable images (one list of all of them), an empty class or split, no such data.
    """
    from calibration.audit import audit, images_to_check
    from calibration.sources import open_data

    source = _first_then_all(lambda: open_data(spec))
    with progress("checking images", images_to_check(source, val_only)) as bar:
        report = audit(source, val_only, bar.advance)
    if skip_bad:
        return report.without_bad(source)
    report.raise_if_bad()
    return source


T = TypeVar("T")
SHOWN = 5  # names of a list


def classes_told(theirs: Sequence[str] | None, ours: Sequence[str], head_replaced: bool) -> list[str]:
    """How the classes of weights differ from those of the data; nothing where they do not.

    Args:
        theirs: None: the weights name none.
    """
    if theirs is None:
        if head_replaced:
            return []
        return [f"the weights name no classes: their {len(ours)} outputs are taken for {first(ours, SHOWN)}, in order"]
    if tuple(theirs) == tuple(ours):
        return []
    if sorted(theirs) == sorted(ours):
        return [f"classes in another order: {first(theirs, SHOWN)} in the weights, {first(ours, SHOWN)} in the data"]
    both = set(theirs) & set(ours)
    alone = [
        f"only in the {where}: {first(names, SHOWN)}"
        for where, of in (("weights", theirs), ("data", ours))
        if (names := [name for name in of if name not in both])
    ]
    return [f"classes: {len(theirs)} in the weights, {len(ours)} in the data, {len(both)} in both; {'; '.join(alone)}"]


def look_ahead(images: ImagesPlan, weights: str, model: str, qk_scale: float | None = None) -> WeightsInfo:
    """Find out what is wrong with the place of the data, the weights and their preprocessing before an image is read.

    Raises:
        DataError: there is no such data.
        UsageError, WeightsError: as weights.peek.
    """
    from calibration.sources import check_spec
    from pipeline.models.weights import peek

    check_spec(images.data)
    return _first_then_all(lambda: peek(weights, model, qk_scale, images.preprocessing))


def _first_then_all(read: Callable[[], T]) -> T:
    """Of several processes the first one reads alone: what is kept of a download is then there for the others."""
    if world().chief:
        source = read()
        wait()
        return source
    wait()
    return read()


def load_subject(
    model: str,
    data: DataSource,
    weights: str,
    seed: int,
    img_size: int | None = None,
    qk_scale: float | None = None,
    given: Mapping[str, object] | None = None,
) -> Subject:
    """Build the model for the classes of `data` and load its float weights.

    Args:
        given: of preprocessing, before what the weights say.

    Raises:
        UsageError: unknown model, or an image size it does not take.
        WeightsError: the weights cannot be had or do not fit.
    """
    from pipeline.models.weights import load_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # the head, or all of the model, may start from random weights
        loaded = load_model(model, weights, data.classes, img_size, qk_scale, given)
    return Subject(
        model=loaded.model.eval(),
        model_config=loaded.config,
        data=data,
        transform=eval_transform(loaded.config),
        weights=loaded.record,
        origins=loaded.origins,
        named=loaded.classes,
    )


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one, else the CPU; of several processes on one machine each takes a GPU of its own.

    Raises:
        UsageError: a device that is not here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if name == "cuda":
            device = torch.device("cuda", torch.cuda.current_device())
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first = str(error).splitlines()[0]
        raise UsageError(f"--train-device {name!r} cannot be used here: {first} Use auto, cpu or cuda.") from error
    return device


def seed_everything(seed: int, threads: int) -> int:
    """Fix generators, deterministic algorithms and the thread count (0 keeps torch's); returns the threads in use."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    if threads:
        torch.set_num_threads(threads)
    return torch.get_num_threads()


def eval_transform(config: ModelConfig) -> EvalTransform:
    """The evaluation transform of a model."""
    from calibration.preprocess import EvalTransform

    return EvalTransform(**{field.name: getattr(config, field.name) for field in fields(EvalTransform)})


@dataclass(frozen=True)
class ScoredImages:
    """Images of the validation split.

    Attributes:
        indices: positions in `split` of those that were scored, in the order of the logits.
        workers: processes that read images.
    """

    split: Split
    transform: EvalTransform
    indices: tuple[int, ...]
    workers: int

    def batches(self, size: int, rows: Sequence[int] | None = None) -> Iterator[Tensor]:
        """Normalised float32 [B, 3, H, W] of all scored images, or of those at `rows` of the logits, in order."""
        return self._batches(size, rows, normalize=True)

    def pixels(self, size: int, rows: Sequence[int] | None = None) -> Iterator[np.ndarray]:
        """What `batches` are made of: uint8 RGB [B, H, W, 3] after resize and crop."""
        for images in self._batches(size, rows, normalize=False):
            yield np.ascontiguousarray(images.numpy().transpose(0, 2, 3, 1))

    def _batches(self, size: int, rows: Sequence[int] | None, normalize: bool) -> Iterator[Tensor]:
        from calibration.loader import eval_batches

        indices = self.indices if rows is None else [self.indices[row] for row in rows]
        for images, _, _ in eval_batches(self.split, self.transform, size, indices, self.workers, normalize):
            yield images


def scored_images(run: Run, reference: StageLogits) -> ScoredImages:
    """Open the run's data and compare it with what its checkpoint was scored on.

    Raises:
        RunError: they are other images.
        DataError: the data is gone or cannot be read.
    """

    config = read_config(run)
    data = load_data(config.data, config.skip_bad, val_only=True)
    transform = eval_transform(read_subject(run).model_config)
    digest = f"{data.val.digest()}-{transform.digest()}"
    if digest != reference.digest:
        raise RunError(
            f"the validation images of {config.data} are not those that run {run.id} scored in float "
            f"(digest {digest[:12]}, then {reference.digest[:12]}): the two are not comparable; quantize again"
        )
    return ScoredImages(data.val, transform, tuple(int(i) for i in reference.indices), config.workers)
