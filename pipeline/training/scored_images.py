"""The images that the logits of a run's checkpoint are of, opened again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import RunError
from pipeline.run.facts import read_config, read_subject
from pipeline.run.folder import Run
from pipeline.run.logits import StageLogits

if TYPE_CHECKING:
    from torch import Tensor

    from calibration.dataset import Split
    from calibration.preprocess import EvalTransform


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
        """[B, 3, H, W] of all scored images, or of those at `rows` of the logits, in order."""
        from calibration.loader import eval_batches

        indices = self.indices if rows is None else [self.indices[row] for row in rows]
        for images, _, _ in eval_batches(self.split, self.transform, size, indices, self.workers):
            yield images


def scored_images(run: Run, reference: StageLogits) -> ScoredImages:
    """Open the run's data and compare it with what its checkpoint was scored on.

    Raises:
        RunError: they are other images.
        DataError: the data is gone or cannot be read.
    """
    from pipeline.training.subject import eval_transform, load_data

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
