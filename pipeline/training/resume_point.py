"""All that moves in a training, the moving average of weights (EMA) among it; and where a training stands, on disk.

That is written whole or not at all, and taken up again only by the training it belongs to.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import RunError
from pipeline.files import write_atomic
from pipeline.training.distributed import everyones, share, world
from pipeline.training.plan import TrainPlan

#: After t steps the decay is at most (1 + t) / (10 + t), so that the first weights do not weigh for ever
#: (TensorFlow's ExponentialMovingAverage with num_updates; timm's ModelEmaV3 warms up likewise).
WARMUP_NUMERATOR, WARMUP_DENOMINATOR = 1, 10


class WeightAverage:
    """The average of a module's parameters (Polyak and Juditsky 1992); buffers are the module's own.

    Args:
        decay: of the average, in [0, 1); 0 is the last weights.
    """

    def __init__(self, module: nn.Module, decay: float):
        self.module, self.decay = module, decay
        self.steps = 0
        self.average = {name: p.detach().clone() for name, p in module.named_parameters()}

    def update(self) -> None:
        """Take in the weights after an optimizer step."""
        if not self.decay:
            return
        self.steps += 1
        decay = min(self.decay, (WARMUP_NUMERATOR + self.steps) / (WARMUP_DENOMINATOR + self.steps))
        own, averaged = self._pairs()
        with torch.no_grad():
            torch._foreach_lerp_(averaged, own, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The module has the averaged weights while the body runs."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def keep(self) -> None:
        """Give the module the averaged weights for good."""
        if self.decay:
            self._swap()

    def state_dict(self) -> dict[str, object]:
        return {"steps": self.steps, "average": self.average if self.decay else {}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        for name, value in state["average"].items():
            self.average[name].copy_(value)

    def _pairs(self) -> tuple[list[Tensor], list[Tensor]]:
        named = dict(self.module.named_parameters())
        return [p.data for p in named.values()], [self.average[name] for name in named]

    def _swap(self) -> None:
        if not self.decay:
            return
        with torch.no_grad():
            for own, averaged in zip(*self._pairs(), strict=True):
                kept = own.clone()
                own.copy_(averaged)
                averaged.copy_(kept)


@dataclass
class State:
    """Where training stands; all that a resume needs beside module, optimizer and generator state."""

    epoch: int = 0
    step_in_epoch: int = 0
    loss_sum: float = 0.0
    images: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Training:
    """All that moves in a training."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    average: WeightAverage
    scaler: torch.amp.GradScaler


def save(path: Path, plan: TrainPlan, state: State, training: Training, device: torch.device, transform: str) -> None:
    """Write the resume point: temp file, fsync, rename. Every process calls it, the first one writes.

    Args:
        transform: digest of how images are prepared.
    """
    generators = everyones(
        {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None}
    )
    write(
        path,
        {
            "plan": asdict(plan),
            "processes": world().size,
            "transform": transform,
            "state": asdict(state),
            "module": training.module.state_dict(),
            "optimizer": training.optimizer.state_dict(),
            "average": training.average.state_dict(),
            "scaler": training.scaler.state_dict(),
            "generators": generators,
        },
    )


def restore(path: Path, plan: TrainPlan, training: Training, device: torch.device, transform: str) -> State | None:
    """Take up the resume point, if there is one; every process gets what the first one read.

    Raises:
        RunError: it belongs to another plan, preprocessing or number of processes, or is damaged.
    """
    saved = read(path, device)
    if saved is None:
        return None
    if saved["plan"] != asdict(plan):
        changed = [k for k, v in asdict(plan).items() if saved["plan"].get(k) != v]
        raise RunError(f"{path} was written with other settings of {', '.join(changed)}")
    if saved.get("transform", transform) != transform:  # earlier versions wrote none
        raise RunError(
            f"{path} is of a training on images that were prepared otherwise: resume with the same weights and options "
            "for --img-size, --mean, --std, --crop-pct and --interpolation"
        )
    if saved["processes"] != world().size:
        raise RunError(
            f"{path} was written by a training of {saved['processes']} processes, this one has {world().size}: "
            "resume with as many"
        )
    training.module.load_state_dict(saved["module"])
    training.optimizer.load_state_dict(saved["optimizer"])
    training.average.load_state_dict(saved["average"])
    training.scaler.load_state_dict(saved["scaler"])
    generators = saved["generators"][world().rank]
    torch.set_rng_state(generators["cpu"].cpu())
    if generators["cuda"] is not None:
        torch.cuda.set_rng_state(generators["cuda"].cpu(), device)
    return State(**saved["state"])


def write(path: Path, content: dict[str, Any]) -> None:
    """Atomically; the first process does it."""
    if world().chief:
        buffer = io.BytesIO()
        torch.save(content, buffer)
        write_atomic(path, buffer.getvalue())


def read(path: Path, device: torch.device) -> dict[str, Any] | None:
    """What the first process finds in a file of `write`, in every process; None if there is no file.

    Raises:
        RunError: it is damaged.
    """
    content = share(path.read_bytes() if world().chief and path.exists() else None)
    if content is None:
        return None
    try:
        saved: dict[str, Any] = torch.load(io.BytesIO(content), weights_only=True, map_location=device)
    except Exception as error:  # torch.load raises whatever its unpickler meets
        raise RunError(f"{path} cannot be read ({error}): start the run again") from error
    return saved
