"""One training phase: a trainee, a plan and the training split in, the trained module and its history out.

The same loop trains in float and with fake quantization. It is deterministic given seed, device and thread count,
and a phase that was interrupted resumes to the same result as one that was not.
"""

from __future__ import annotations

import contextlib
import math
import signal
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import RunError, TrainingError
from pipeline.progress import progress
from pipeline.qat.nonfinite import first_nonfinite
from pipeline.qat.plan import TrainPlan
from pipeline.rundir import write_atomic

RESUME_FILE = "resume.pt"
Batches = Callable[[int, int], Iterator[tuple[Tensor, Tensor, Tensor]]]
"""(epoch, first step) -> batches of images [B, 3, H, W], labels [B], indices [B]."""


class Trainee(Protocol):
    """What is trained, and how it changes mode."""

    @property
    def module(self) -> nn.Module: ...

    def begin_step(self, epoch: int, done_fraction: float, images: Tensor) -> Tensor:
        """Enter training mode as the schedule wants it after `done_fraction` of all steps; may resize the images."""
        ...

    def begin_evaluation(self) -> None: ...


@dataclass(frozen=True)
class EpochRecord:
    """One line of metrics.jsonl. `loss` is the mean over the epoch's images; `top1`/`n` on the validation split."""

    phase: str
    epoch: int
    step: int
    loss: float
    lr: float
    top1: int
    n: int
    images_per_second: float


@dataclass
class _State:
    """Where training stands; all that a resume needs beside module, optimizer and generator state."""

    epoch: int = 0
    step_in_epoch: int = 0
    loss_sum: float = 0.0
    images: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Phase:
    """One call of `fit`.

    Attributes:
        name: "float" or "qat".
        folder: receives `resume.pt` while the phase is unfinished.
        images: size of the training split.
        evaluate: returns (right, n) on the validation split.
        on_epoch: given the history so far after every epoch (metrics file, TensorBoard, a line for the reader).
        amp: bfloat16 autocast. float16 is not offered: the Performer's exponentials overflow it.
        checkpoint_steps: a resume point at least this often.
    """

    name: str
    folder: Path
    images: int
    batches: Batches
    evaluate: Callable[[], tuple[int, int]]
    on_epoch: Callable[[list[EpochRecord]], None]
    device: torch.device
    amp: bool = False
    checkpoint_steps: int = 200


def fit(trainee: Trainee, plan: TrainPlan, phase: Phase) -> list[EpochRecord]:
    """Train to the end of `plan`, from `phase.folder/resume.pt` where there is one.

    Raises:
        TrainingError: the loss or a gradient is not finite; the last good resume point is kept.
        KeyboardInterrupt: after a resume point was written, on SIGINT or SIGTERM.
    """
    steps_per_epoch = plan.steps_per_epoch(phase.images)
    if plan.epochs and not steps_per_epoch:
        raise TrainingError(f"{phase.images} training images make no batch: training needs at least 2")
    # Dropout draws from torch's global generator: it is forked, seeded, saved and restored.
    devices = [phase.device] if phase.device.type == "cuda" else []
    with torch.random.fork_rng(devices), _stop_signal() as stop:
        torch.manual_seed(plan.seed)
        loop = _Loop(trainee, plan, phase, steps_per_epoch)
        loop.restore()
        while loop.state.epoch < plan.epochs:
            loop.run_epoch(stop)
        return loop.history()


class _Loop:
    def __init__(self, trainee: Trainee, plan: TrainPlan, phase: Phase, steps_per_epoch: int):
        self.trainee, self.plan, self.phase = trainee, plan, phase
        self.steps_per_epoch = steps_per_epoch
        self.total_steps = max(1, steps_per_epoch * plan.epochs)
        self.optimizer = torch.optim.AdamW(_parameter_groups(trainee.module, plan.weight_decay), lr=plan.lr)
        self.state = _State()
        self.resume_file = phase.folder / RESUME_FILE

    def run_epoch(self, stop: Callable[[], bool]) -> None:
        state, phase = self.state, self.phase
        first = state.step_in_epoch
        title = f"{phase.name} epoch {state.epoch + 1}/{self.plan.epochs}"
        with progress(title, self.steps_per_epoch * self.plan.batch_size) as bar:
            for images, labels, _ in phase.batches(state.epoch, first):
                lr = self.step(images.to(phase.device), labels.to(phase.device))
                bar.advance(len(images))
                bar.note(f"loss {state.loss_sum / state.images:.3f}  lr {lr:.1e}")
                if state.step_in_epoch >= self.steps_per_epoch:
                    break
                if stop():
                    self.save()
                    raise KeyboardInterrupt
                if state.step_in_epoch % phase.checkpoint_steps == 0:
                    self.save()
            seconds = bar.seconds
            done = bar.done
        self.trainee.begin_evaluation()
        right, n = phase.evaluate()
        record = EpochRecord(
            phase=phase.name,
            epoch=state.epoch + 1,
            step=self.steps_per_epoch * (state.epoch + 1),
            loss=state.loss_sum / state.images,
            lr=lr,
            top1=right,
            n=n,
            images_per_second=done / seconds,
        )
        state.history.append(asdict(record))
        state.epoch, state.step_in_epoch, state.loss_sum, state.images = state.epoch + 1, 0, 0.0, 0
        self.save()
        phase.on_epoch(self.history())
        if stop() and state.epoch < self.plan.epochs:
            raise KeyboardInterrupt

    def history(self) -> list[EpochRecord]:
        return [EpochRecord(**record) for record in self.state.history]

    def step(self, images: Tensor, labels: Tensor) -> float:
        """One optimizer step; returns the learning rate."""
        state, phase = self.state, self.phase
        done = state.epoch * self.steps_per_epoch + state.step_in_epoch
        lr = self.plan.lr_at(done, self.total_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        images = self.trainee.begin_step(state.epoch, done / self.total_steps, images)
        with torch.autocast(phase.device.type, dtype=torch.bfloat16, enabled=phase.amp):
            logits = self.trainee.module(images)
            loss = F.cross_entropy(logits.float(), labels, label_smoothing=self.plan.label_smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        value = loss.item()
        if math.isfinite(value):
            loss.backward()
            norm = nn.utils.clip_grad_norm_(self.trainee.module.parameters(), self.plan.clip_norm)
        if not math.isfinite(value) or not math.isfinite(norm.item()):
            self.stop_nonfinite(done, value, images)
        self.optimizer.step()
        state.step_in_epoch += 1
        state.loss_sum += value * len(labels)
        state.images += len(labels)
        return lr

    def stop_nonfinite(self, step: int, loss: float, images: Tensor) -> None:
        where = first_nonfinite(self.trainee.module, images)
        if where:
            what = f"loss {loss}; the first output that is not finite is that of {where}"
        elif math.isfinite(loss):
            bad = [
                name
                for name, p in self.trainee.module.named_parameters()
                if p.grad is not None and not bool(torch.isfinite(p.grad).all())
            ]
            what = f"the loss is {loss:.4g} but {len(bad)} gradients are not finite, the first that of {bad[0]}"
        else:
            what = f"loss {loss} from finite logits: a label outside the classes?"
        kept = f"the last good checkpoint is kept ({self.resume_file.name})" if self.resume_file.exists() else ""
        raise TrainingError(
            f"{self.phase.name} training stopped at step {step} of {self.total_steps}: {what}. "
            f"Try a smaller --lr (now {self.plan.lr:g}). {kept}".strip()
        )

    def save(self) -> None:
        """Write the resume point: temp file, fsync, rename."""
        import io

        buffer = io.BytesIO()
        cuda = self.phase.device.type == "cuda"
        torch.save(
            {
                "plan": asdict(self.plan),
                "state": asdict(self.state),
                "module": self.trainee.module.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "rng": torch.get_rng_state(),
                "cuda_rng": torch.cuda.get_rng_state(self.phase.device) if cuda else None,
            },
            buffer,
        )
        write_atomic(self.resume_file, buffer.getvalue())

    def restore(self) -> None:
        """Continue from the resume point if there is one.

        Raises:
            RunError: it belongs to another plan, or is damaged.
        """
        if not self.resume_file.exists():
            return
        try:
            saved = torch.load(self.resume_file, weights_only=True, map_location=self.phase.device)
        except Exception as error:  # torch.load raises whatever its unpickler meets
            raise RunError(f"{self.resume_file} cannot be read ({error}): start the run again") from error
        if saved["plan"] != asdict(self.plan):
            changed = [k for k, v in asdict(self.plan).items() if saved["plan"].get(k) != v]
            raise RunError(f"{self.resume_file} was written with other settings of {', '.join(changed)}")
        self.trainee.module.load_state_dict(saved["module"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.state = _State(**saved["state"])
        torch.set_rng_state(saved["rng"].cpu())
        if saved["cuda_rng"] is not None:
            torch.cuda.set_rng_state(saved["cuda_rng"].cpu(), self.phase.device)


def _parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices and kernels only (the authors' no_weight_decay exempts the class token too)."""
    decay: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            exempt = parameter.ndim <= 1 or "cls_token" in name or "class_token" in name
            (plain if exempt else decay).append(parameter)
    return [{"params": decay, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


@contextlib.contextmanager
def _stop_signal() -> Iterator[Callable[[], bool]]:
    """Turns SIGINT and SIGTERM into a flag that is looked at between steps; a second one stops at once."""
    import threading

    asked = False

    def ask(number: int, frame: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
