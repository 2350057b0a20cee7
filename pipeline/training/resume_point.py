"""Where a training stands, on disk: written whole or not at all, taken up again only by the training it belongs to."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.errors import RunError
from pipeline.files import write_atomic
from pipeline.training.averaging import WeightAverage
from pipeline.training.distributed import everyones, share, world
from pipeline.training.plan import TrainPlan


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


def save(path: Path, plan: TrainPlan, state: State, training: Training, device: torch.device) -> None:
    """Write the resume point: temp file, fsync, rename. Every process calls it, the first one writes."""
    generators = everyones(
        {
            "cpu": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        }
    )
    if not world().chief:
        return
    buffer = io.BytesIO()
    torch.save(
        {
            "plan": asdict(plan),
            "processes": world().size,
            "state": asdict(state),
            "module": training.module.state_dict(),
            "optimizer": training.optimizer.state_dict(),
            "average": training.average.state_dict(),
            "scaler": training.scaler.state_dict(),
            "generators": generators,
        },
        buffer,
    )
    write_atomic(path, buffer.getvalue())


def restore(path: Path, plan: TrainPlan, training: Training, device: torch.device) -> State | None:
    """Take up the resume point, if there is one; every process gets what the first one read.

    Raises:
        RunError: it belongs to another plan or number of processes, or is damaged.
    """
    content = share(path.read_bytes() if world().chief and path.exists() else None)
    if content is None:
        return None
    try:
        saved = torch.load(io.BytesIO(content), weights_only=True, map_location=device)
    except Exception as error:  # torch.load raises whatever its unpickler meets
        raise RunError(f"{path} cannot be read ({error}): start the run again") from error
    if saved["plan"] != asdict(plan):
        changed = [k for k, v in asdict(plan).items() if saved["plan"].get(k) != v]
        raise RunError(f"{path} was written with other settings of {', '.join(changed)}")
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
