"""What float training and QAT share: a subject and its device; scores and training phases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.config import ExecutionPlan
from pipeline.progress import Say, progress
from pipeline.run.layout import TENSORBOARD
from pipeline.run.logits import evenly
from pipeline.training.distributed import rows_of_all, world
from pipeline.training.loop import EpochRecord, Phase
from pipeline.training.plan import TrainPlan
from pipeline.training.subject import ScoredImages, Subject, choose_device
from pipeline.training.trainees import Precision, choose_precision

if TYPE_CHECKING:
    from calibration.augment import Augmentation
EVAL_BATCH = 32
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Setting:
    """A subject, the device it runs on, and the validation images it is scored on.

    Attributes:
        val_indices: positions in the validation split, in the order of all logits.
        precision: number format of the forward pass in training.
        workers: processes that read images.
    """

    subject: Subject
    device: torch.device
    precision: Precision
    val_indices: tuple[int, ...]
    workers: int
    checkpoint_steps: int
    say: Say

    @classmethod
    def of(cls, subject: Subject, plan: ExecutionPlan, limit_val: int | None, say: Say) -> Setting:
        """As the options want it; `limit_val` validation images, None: all."""
        device = choose_device(plan.device)
        return cls(
            subject=subject,
            device=device,
            precision=choose_precision(plan.amp, device),
            val_indices=evenly(len(subject.data.val), limit_val),
            workers=plan.workers,
            checkpoint_steps=plan.checkpoint_steps,
            say=say,
        )

    @property
    def labels(self) -> np.ndarray:
        """int64 [N] of the scored images."""
        return np.asarray(self.subject.data.val.labels)[list(self.val_indices)]

    def score(self, what: str, forward: Callable[[Tensor], Tensor], device: torch.device | None = None) -> np.ndarray:
        """Logits [N, classes] of the scored images, in every process; each process computes its part of them."""
        n, (rank, size) = len(self.val_indices), world().shard
        own = range(rank, n, size)
        indices = tuple(self.val_indices[position] for position in own)
        images = ScoredImages(self.subject.data.val, self.subject.transform, indices, self.workers)
        rows = collect_logits(f"scoring {what}", forward, images, device=device or self.device)
        return rows_of_all(rows, list(own), n)

    def phase(
        self,
        name: str,
        module: nn.Module,
        plan: TrainPlan,
        folder: Path,
        on_history: Callable[[list[EpochRecord]], None],
        on_logits: Callable[[np.ndarray], None] = lambda logits: None,
        augment: Augmentation | None = None,
    ) -> Phase:
        """A training phase of `module`; `folder` gets its resume point, `tensorboard/` beside it the curves.

        Args:
            on_logits: given those of the scored images after every epoch.
            augment: what the training images go through; None: crops and mirroring as of the plan.
        """

        def batches(epoch: int, first_step: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
            return training_batches(self.subject, plan, epoch, first_step, self.workers, augment)

        def evaluate() -> tuple[int, int]:
            logits, labels = self.score(f"{name} top-1", module), self.labels
            on_logits(logits)
            return int((logits.argmax(axis=1) == labels).sum()), len(labels)

        def on_epoch(history: list[EpochRecord]) -> None:
            if not world().chief:
                return
            record = history[-1]
            on_history(history)
            write_curves(folder.parent / TENSORBOARD, record)
            self.say(
                f"{name} epoch {record.epoch}/{plan.epochs}: loss {record.loss:.3f}, top-1 "
                f"{100 * record.top1 / record.n:.2f} % (n={record.n}), {record.images_per_second:.1f} images/s"
            )

        return Phase(
            name=name,
            folder=folder,
            images=len(self.subject.data.train),
            batches=batches,
            evaluate=evaluate,
            on_epoch=on_epoch,
            device=self.device,
            precision=self.precision,
            checkpoint_steps=self.checkpoint_steps,
            transform=self.subject.transform.digest(),
        )


def training_batches(
    subject: Subject, plan: TrainPlan, epoch: int, first_step: int, workers: int, augment: Augmentation | None = None
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """This process's augmented batches of one epoch from batch `first_step` on, whatever the number of workers."""
    from calibration.augment import Augmentation
    from calibration.loader import train_loader

    augment = augment or Augmentation(hflip=plan.hflip, scale_min=plan.scale_min)
    return train_loader(
        subject.data.train,
        augment.transform(subject.transform),
        plan.batch_size,
        seed=plan.seed,
        epoch=epoch,
        workers=workers,
        start_step=first_step,
        shard=world().shard,
        mix=augment.mixing(len(subject.data.classes), plan.label_smoothing),
    )


def write_curves(folder: Path, record: EpochRecord) -> None:
    """The figures of one epoch for TensorBoard."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder / record.phase)) as writer:
        writer.add_scalar("loss/train", record.loss, record.step)
        writer.add_scalar("accuracy/top1", record.top1 / record.n, record.step)
        writer.add_scalar("learning_rate", record.lr, record.step)
        writer.add_scalar("images_per_second", record.images_per_second, record.step)


def collect_logits(
    what: str,
    forward: Callable[[Tensor], Tensor],
    images: ScoredImages,
    batch_size: int = EVAL_BATCH,
    device: torch.device = CPU,
) -> np.ndarray:
    """Run `forward` over the images, without gradients.

    Returns:
        float32 [N, classes], one row an image in their order.
    """
    rows: list[np.ndarray] = []
    with torch.no_grad(), progress(what, len(images.indices)) as bar:
        for batch in images.batches(batch_size):
            rows.append(forward(batch.to(device)).float().cpu().numpy())
            bar.advance(len(batch))
    return np.concatenate(rows)
