"""Train a module in one phase of epochs, in float or with fake quantization, in one process or many.

The loop is deterministic given seed, device, thread count and number of processes, and a phase that was interrupted
resumes to the same result as one that was not.
"""

from __future__ import annotations

import contextlib
import math
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node

from pipeline.config import ExecutionPlan
from pipeline.errors import TrainingError
from pipeline.progress import progress
from pipeline.run.layout import RESUME_FILE
from pipeline.training.distributed import spread_state, sum_gradients, total, world
from pipeline.training.plan import TrainPlan
from pipeline.training.resume_point import State, Training, WeightAverage, restore, save
from pipeline.training.trainees import OFF, Precision

Batch = tuple[Tensor, Tensor, Tensor]
Batches = Callable[[int, int], Iterator[Batch]]
"""(epoch, first forward pass) -> this process's images [B, 3, H, W], labels [B] or [B, classes], indices [B]."""


class Trainee(Protocol):
    """What is trained, how it changes mode, and what it minimises."""

    @property
    def module(self) -> nn.Module: ...

    def begin_step(self, epoch: int, done_fraction: float, images: Tensor) -> Tensor:
        """Enter training mode as the schedule wants it after `done_fraction` of all steps; may resize the images."""
        ...

    def loss(self, images: Tensor, targets: Tensor) -> Tensor:
        """Mean over the batch, [] float32."""
        ...

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Of AdamW: parameters, weight_decay, and lr_scale, a factor of the plan's learning rate."""
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


@dataclass(frozen=True)
class Phase:
    """One call of `fit`.

    Attributes:
        name: "float" or "qat".
        folder: receives `resume.pt` while the phase is unfinished.
        images: size of the training split.
        evaluate: returns (right, n) on the validation split.
        on_epoch: given the history so far after every epoch (metrics file, TensorBoard, a line for the reader).
        precision: number format of the forward pass.
        checkpoint_steps: a resume point at least this often.
        transform: digest of how images are prepared.
        on_scored: given the number of the epoch, from 1, while the module has the weights that were scored.
    """

    name: str
    folder: Path
    images: int
    batches: Batches
    evaluate: Callable[[], tuple[int, int]]
    on_epoch: Callable[[list[EpochRecord]], None]
    device: torch.device
    precision: Precision = OFF
    checkpoint_steps: int = ExecutionPlan.checkpoint_steps
    transform: str = ""
    on_scored: Callable[[int], None] = lambda epoch: None


def fit(trainee: Trainee, plan: TrainPlan, phase: Phase) -> list[EpochRecord]:
    """Train to the end of `plan`, from `phase.folder/resume.pt` where there is one.

    The module has the averaged weights afterwards if the plan wants an average.

    Raises:
        TrainingError: the loss or a gradient is not finite; the last good resume point is kept.
        RunError: the resume point belongs to another plan, or is damaged.
        KeyboardInterrupt: after a resume point was written, on SIGINT or SIGTERM.
    """
    steps_per_epoch = plan.steps_per_epoch(phase.images, world().size)
    if plan.epochs and not steps_per_epoch:
        raise TrainingError(
            f"{phase.images} training images make no batch: training needs at least {2 * world().size}, two for each "
            "process"
        )
    # Dropout draws from torch's global generator: it is forked, seeded, saved and restored.
    devices = [phase.device] if phase.device.type == "cuda" else []
    with torch.random.fork_rng(devices), stop_signal() as stop:
        torch.manual_seed(plan.seed + world().rank)
        loop = _Loop(trainee, plan, phase, steps_per_epoch)
        while loop.state.epoch < plan.epochs:
            loop.run_epoch(stop)
        loop.training.average.keep()
        return loop.history()


class _Loop:
    def __init__(self, trainee: Trainee, plan: TrainPlan, phase: Phase, steps_per_epoch: int):
        self.trainee, self.plan, self.phase = trainee, plan, phase
        self.steps_per_epoch = steps_per_epoch
        self.total_steps = max(1, steps_per_epoch * plan.epochs)
        module = trainee.module
        spread_state(module)
        self.training = Training(
            module=module,
            optimizer=torch.optim.AdamW(trainee.parameter_groups(), lr=plan.lr),
            average=WeightAverage(module, plan.ema),
            scaler=phase.precision.scaler(phase.device),
        )
        self.resume_file = phase.folder / RESUME_FILE
        self.state = restore(self.resume_file, plan, self.training, phase.device, phase.transform) or State()

    def run_epoch(self, stop: Callable[[], bool]) -> None:
        state, phase, plan = self.state, self.phase, self.plan
        title = f"{phase.name} epoch {state.epoch + 1}/{plan.epochs}"
        images_a_step = plan.batch_size * plan.accumulate * world().size
        batches = phase.batches(state.epoch, state.step_in_epoch * plan.accumulate)
        with progress(title, self.steps_per_epoch * images_a_step) as bar:
            for group in _groups(batches, plan.accumulate):
                lr, seen, stopping = self.step(group, stop)
                bar.advance(seen)
                bar.note(f"loss {state.loss_sum / state.images:.3f}  lr {lr:.1e}")
                if state.step_in_epoch >= self.steps_per_epoch:
                    break
                if stopping:
                    self.save()
                    raise KeyboardInterrupt
                if state.step_in_epoch % phase.checkpoint_steps == 0:
                    self.save()
            images_per_second = bar.done / bar.seconds
        spread_state(self.trainee.module)
        self.trainee.begin_evaluation()
        with self.training.average.applied():
            right, n = phase.evaluate()
            phase.on_scored(state.epoch + 1)
        record = EpochRecord(
            phase=phase.name,
            epoch=state.epoch + 1,
            step=self.steps_per_epoch * (state.epoch + 1),
            loss=state.loss_sum / state.images,
            lr=lr,
            top1=right,
            n=n,
            images_per_second=images_per_second,
        )
        state.history.append(asdict(record))
        state.epoch, state.step_in_epoch, state.loss_sum, state.images = state.epoch + 1, 0, 0.0, 0
        self.save()
        phase.on_epoch(self.history())
        if total([stop()], phase.device)[0] and state.epoch < plan.epochs:
            raise KeyboardInterrupt

    def history(self) -> list[EpochRecord]:
        return [EpochRecord(**record) for record in self.state.history]

    def step(self, group: list[Batch], stop: Callable[[], bool]) -> tuple[float, int, bool]:
        """One optimizer step.

        Returns:
            the learning rate, how many images all processes saw, and whether any process was told to stop.
        """
        state, training = self.state, self.training
        done = state.epoch * self.steps_per_epoch + state.step_in_epoch
        lr = self.plan.lr_at(done, self.total_steps)
        for parameters in training.optimizer.param_groups:
            parameters["lr"] = lr * parameters["lr_scale"]
        (seen,) = total([sum(len(images) for images, _, _ in group)], self.phase.device)
        training.optimizer.zero_grad(set_to_none=True)
        summed, norm, worst = self.backward(group, done, seen)
        loss_sum, stopping = total([summed, stop()], self.phase.device)
        loss = loss_sum / seen
        if not math.isfinite(loss) or not (math.isfinite(norm) or training.scaler.is_enabled()):
            self.stop_nonfinite(done, loss, worst)
        training.scaler.step(training.optimizer)  # a step whose gradients overflowed float16 is left out
        training.scaler.update()
        if training.scaler.is_enabled() and training.scaler.get_scale() < 1:
            self.stop_nonfinite(done, loss, worst)
        training.average.update()
        state.step_in_epoch += 1
        state.loss_sum += loss_sum
        state.images += int(seen)
        return lr, int(seen), bool(stopping)

    def backward(self, group: list[Batch], done: int, seen: float) -> tuple[float, float, Tensor]:
        """Gradients of the mean over the images of all passes and processes, clipped.

        Returns:
            the sum of this process's losses, the norm of everyone's gradients before clipping, and the first images of
            this process that gave no finite loss (the last ones where all did).
        """
        device, scaler = self.phase.device, self.training.scaler
        summed = 0.0
        worst: Tensor | None = None
        for images, targets, _ in group:
            images = self.trainee.begin_step(self.state.epoch, done / self.total_steps, images.to(device))
            with self.phase.precision.autocast(device):
                loss = self.trainee.loss(images, targets.to(device))
            value = loss.item()
            summed += value * len(images)
            if worst is None and not math.isfinite(value):
                worst = images
            scaler.scale(loss * (len(images) / seen)).backward()
        parameters = list(self.trainee.module.parameters())
        sum_gradients(parameters)
        scaler.unscale_(self.training.optimizer)
        norm = nn.utils.clip_grad_norm_(parameters, self.plan.clip_norm)
        return summed, norm.item(), images if worst is None else worst

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
            first = f", the first that of {bad[0]}" if bad else ""
            what = f"the loss is {loss:.4g} but {len(bad)} gradients are not finite{first}"
        elif world().size > 1:
            what = f"loss {loss}, from the images of another process"
        else:
            what = f"loss {loss} from finite logits: a label outside the classes?"
        kept = f"the last good checkpoint is kept ({self.resume_file.name})" if self.resume_file.exists() else ""
        raise TrainingError(
            f"{self.phase.name} training stopped at step {step} of {self.total_steps}: {what}. "
            f"Try a smaller --lr (now {self.plan.lr:g}). {kept}".strip()
        )

    def save(self) -> None:
        save(self.resume_file, self.plan, self.state, self.training, self.phase.device, self.phase.transform)


def _groups(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Batches in lists of `size`, the last one maybe shorter."""
    rest = iter(batches)
    while group := list(islice(rest, size)):
        yield group


@contextlib.contextmanager
def stop_signal() -> Iterator[Callable[[], bool]]:
    """Whether someone asked to stop; a second signal stops at once."""
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


def first_nonfinite(module: nn.Module, images: Tensor) -> str | None:
    """Name of the first module (or graph node with its module) whose output is not finite for `images`.

    None when the forward pass is finite: then the loss or a gradient broke, not an activation.
    """
    with torch.no_grad():
        if isinstance(module, GraphModule):
            return _first_in_graph(module, images)
        return _first_in_modules(module, images)


def _finite(value: object) -> bool:
    return not isinstance(value, Tensor) or not value.is_floating_point() or bool(torch.isfinite(value).all())


def _first_in_graph(graph: GraphModule, images: Tensor) -> str | None:
    found: list[str] = []

    class Watch(Interpreter):
        def run_node(self, n: Node) -> Any:
            value = super().run_node(n)
            if not found and n.op != "output" and not _finite(value):
                found.append(_describe(n))
            return value

    Watch(graph).run(images)
    return found[0] if found else None


def _describe(node: Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values() if path]
    where = paths[-1].replace("L['self'].", "") if paths else ""
    return f"{where} ({node.name})" if where else node.name


def _first_in_modules(module: nn.Module, images: Tensor) -> str | None:
    found: list[str] = []

    def watch(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            if not found and not _finite(output):
                found.append(name)

        return hook

    handles = [m.register_forward_hook(watch(name)) for name, m in module.named_modules() if name]
    try:
        module(images)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None
