"""Data-parallel training: the environment that `torchrun` or `accelerate launch` sets in; this process's place in the
world, and what the processes share, out.

Every process holds all of the model and takes its part of every batch. What decides the training (sums of losses,
gradients, ranges of activations) is reduced over all of them, so that N processes with batches of B images follow
the same curve as one process with batches of N x B. The first process alone writes files.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from pipeline.errors import UsageError
from pipeline.progress import launched

T = TypeVar("T")

#: The first process exports and writes between two phases while the others wait for it.
PATIENCE = timedelta(hours=2)
#: Gradients travel in pieces of at most so many numbers: few enough calls, and little memory beside the gradients.
PIECE = 1 << 23


@dataclass(frozen=True)
class World:
    """This process among those that train together; alone: rank 0 of 1."""

    rank: int = 0
    size: int = 1

    @property
    def chief(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0

    @property
    def shard(self) -> tuple[int, int]:
        return self.rank, self.size


def world() -> World:
    """The processes that train together, once they have joined."""
    if dist.is_available() and dist.is_initialized():
        return World(dist.get_rank(), dist.get_world_size())
    return World()


@contextmanager
def joined(device: str) -> Iterator[World]:
    """The world while the body runs: nccl where the device is CUDA, gloo otherwise; nothing to join without a launcher.

    Raises:
        UsageError: more processes on this machine than GPUs.
    """
    if not launched() or dist.is_initialized():
        yield world()
        return
    local = int(os.environ["LOCAL_RANK"])
    cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if cuda and local >= torch.cuda.device_count():
        raise UsageError(
            f"process {local} of this machine has no GPU: there are {torch.cuda.device_count()}; start as many "
            "processes (--nproc-per-node), or use --train-device cpu"
        )
    if cuda:
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if cuda else "gloo", timeout=PATIENCE)
    try:
        yield world()
    finally:
        dist.destroy_process_group()


def share(value: T) -> T:
    """The first process's value, in every process."""
    if world().size == 1:
        return value
    box: list[T | None] = [value if world().chief else None]
    dist.broadcast_object_list(box, src=0)
    return box[0]  # type: ignore[return-value]


def wait() -> None:
    """Until all processes are here."""
    if world().size > 1:
        dist.barrier()


def everyones(value: T) -> list[T]:
    """The values of all processes, by rank, in every process."""
    size = world().size
    if size == 1:
        return [value]
    box: list[T | None] = [None] * size
    dist.all_gather_object(box, value)
    return box  # type: ignore[return-value]


def total(values: Iterable[float], device: torch.device) -> list[float]:
    """Each value summed over all processes, in float64 where the device has it."""
    numbers = list(values)
    if world().size == 1:
        return numbers
    dtype = torch.float32 if device.type == "mps" else torch.float64
    tensor = torch.tensor(numbers, dtype=dtype, device=device)
    dist.all_reduce(tensor)
    summed: list[float] = tensor.tolist()
    return summed


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Add up the gradients of all processes, in place; one that is missing in any of them counts as zero there."""
    if world().size == 1:
        return
    pieces: list[list[Tensor]] = [[]]
    filled = 0
    for parameter in parameters:
        if not parameter.requires_grad:
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        if filled + parameter.numel() > PIECE and pieces[-1]:
            pieces.append([])
            filled = 0
        pieces[-1].append(parameter.grad)
        filled += parameter.numel()
    for gradients in filter(None, pieces):
        flat = torch.cat([g.reshape(-1) for g in gradients])
        dist.all_reduce(flat)
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))


def spread_state(module: nn.Module) -> None:
    """Give every process the parameters and buffers of the first one; running statistics become the mean of all.

    BatchNorm normalises by the images of its own process, as in torch's DistributedDataParallel.
    """
    size = world().size
    if size == 1:
        return
    for name, tensor in module.state_dict().items():
        if "running_mean" in name or "running_var" in name:
            dist.all_reduce(tensor)
            tensor.div_(size)
        else:
            dist.broadcast(tensor, src=0)


def rows_of_all(rows: np.ndarray, positions: list[int], n: int) -> np.ndarray:
    """[N, C] of all images from every process's [n, C] at its own positions."""
    if world().size == 1:
        return rows
    whole = np.empty((n, *rows.shape[1:]), dtype=rows.dtype)
    for theirs, where in everyones((rows, positions)):
        whole[where] = theirs
    return whole
