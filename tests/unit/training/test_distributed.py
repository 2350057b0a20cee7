"""Two processes over gloo follow the curve of one process with the doubled batch, to the last bits of float32."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as multiprocessing
from torch import Tensor, nn
from training_plan import train_plan

from calibration.dataset import Split
from pipeline.errors import RunError
from pipeline.run.layout import BEST_FILE
from pipeline.training.best_epoch import BestEpoch
from pipeline.training.distributed import World, joined, rows_of_all, world
from pipeline.training.loop import EpochRecord, Phase, fit
from pipeline.training.plan import TrainPlan
from pipeline.training.trainees import FloatTrainee

IMAGES, CLASSES, SIDE = 22, 3, 6  # the last batch of 6 is shared as 3 and 3
PLAN = train_plan(epochs=2, batch_size=4, lr=0.05, weight_decay=0.1, ema=0.5)


class Small(nn.Sequential):
    def __init__(self) -> None:
        torch.manual_seed(world().rank)  # what the first process has is what counts
        super().__init__(nn.Flatten(), nn.Linear(3 * SIDE**2, 16), nn.GELU(), nn.Linear(16, CLASSES))


def item(index: int) -> tuple[Tensor, int]:
    image = torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(index))
    return image, index % CLASSES


def phase(folder: Path, batch_size: int, world_of: World, stop_after: int | None = None) -> Phase:
    rank, size = world_of.shard

    def batches(epoch: int, first: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        order = np.random.default_rng(epoch).permutation(IMAGES)
        for start in range(first * batch_size * size, IMAGES, batch_size * size):
            mine = order[start : start + batch_size * size][rank::size]
            images, labels = zip(*(item(int(i)) for i in mine), strict=True)
            yield torch.stack(images), torch.tensor(labels), torch.from_numpy(mine)
            if stop_after is not None and start // (batch_size * size) >= stop_after:
                raise MemoryError

    return Phase(
        name="float",
        folder=folder,
        images=IMAGES,
        batches=batches,
        evaluate=lambda: (0, 1),
        on_epoch=lambda history: None,
        device=torch.device("cpu"),
        checkpoint_steps=1,
    )


def train(folder: Path, plan: TrainPlan) -> tuple[list[EpochRecord], dict[str, Tensor]]:
    module = Small()
    history = fit(FloatTrainee(module, plan), plan, phase(folder, plan.batch_size, world()))
    return history, module.state_dict()


def process(rank: int, size: int, port: int, folder: Path, job: Callable[[Path], object]) -> None:
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }  # fmt: skip
    torch.set_num_threads(1)
    with joined("cpu"):
        torch.save(job(folder), folder / f"{rank}.pt")


def in_two_processes(folder: Path, job: Callable[[Path], object]) -> list[object]:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder.mkdir(exist_ok=True)
    multiprocessing.spawn(process, (2, port, folder, job), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


def interrupted_and_resumed(folder: Path) -> object:
    broken = phase(folder / "train", PLAN.batch_size, world(), stop_after=1)
    with pytest.raises(MemoryError):
        fit(FloatTrainee(Small(), PLAN), PLAN, broken)
    return train(folder / "train", PLAN)


def straight_and_gathered(folder: Path) -> object:
    history, state = train(folder / "train", PLAN)
    rank, size = world().shard
    rows = np.arange(10, dtype=np.float32).reshape(5, 2)
    return history, state, rows_of_all(rows[rank::size], list(range(rank, 5, size)), 5)


def losses(history: list[EpochRecord]) -> list[float]:
    return [record.loss for record in history]


def test_two_processes_follow_one_with_the_doubled_batch(tmp_path: Path) -> None:
    history, state = train(tmp_path / "one", replace(PLAN, batch_size=8))
    for theirs, weights, rows in in_two_processes(tmp_path / "two", straight_and_gathered):  # type: ignore[misc]
        assert losses(theirs) == pytest.approx(losses(history), rel=1e-6)
        assert all(torch.allclose(weights[k], v, rtol=1e-4, atol=1e-6) for k, v in state.items())
        assert np.array_equal(rows, np.arange(10).reshape(5, 2))
    assert losses(history)[1] < losses(history)[0]


def test_accumulated_passes_follow_one_doubled_batch(tmp_path: Path) -> None:
    history, state = train(tmp_path / "one", replace(PLAN, batch_size=8))
    accumulated, weights = train(tmp_path / "two", replace(PLAN, accumulate=2))
    assert [r.step for r in accumulated] == [r.step for r in history]
    assert losses(accumulated) == pytest.approx(losses(history), rel=1e-6)
    assert all(torch.allclose(weights[k], v, rtol=1e-4, atol=1e-6) for k, v in state.items())


def test_two_interrupted_processes_resume_to_the_same_bits_and_one_alone_is_refused(tmp_path: Path) -> None:
    straight = in_two_processes(tmp_path / "straight", straight_and_gathered)
    resumed = in_two_processes(tmp_path / "resumed", interrupted_and_resumed)
    for (history, state, _), (theirs, weights) in zip(straight, resumed, strict=True):  # type: ignore[misc]
        assert losses(theirs) == losses(history)
        assert all(torch.equal(weights[k], v) for k, v in state.items())
    with pytest.raises(RunError, match="of 2 processes, this one has 1"):
        train(tmp_path / "resumed" / "train", PLAN)


def test_a_split_is_shared_without_loss_or_repeat() -> None:
    from calibration.loader import train_loader

    class Pictures:
        def image(self, position: int) -> int:
            return position

        def content(self, position: int) -> bytes:
            return b""

    split = Split("train", np.zeros(21, dtype=np.int64), tuple(map(str, range(21))), Pictures(), np.arange(21))  # type: ignore[arg-type]

    def seen(shard: tuple[int, int], batch_size: int) -> list[list[int]]:
        batches = train_loader(split, torch.tensor, batch_size, 0, 0, shard=shard)  # type: ignore[arg-type]
        return [indices.tolist() for _, _, indices in batches]

    one = seen((0, 1), 8)
    parts = [seen((rank, 2), 4) for rank in range(2)]
    assert [sorted(a + b) for a, b in zip(*parts, strict=True)] == [sorted(batch) for batch in one]
    assert [len(batch) for batch in parts[1]] == [4, 4, 2]
    assert train_plan(batch_size=4).steps_per_epoch(21, 2) == len(parts[0])
    assert [len(batch) for batch in seen((0, 3), 6)] == [6]  # the last three would leave a process one image
    assert train_plan(batch_size=6).steps_per_epoch(21, 3) == 1


def best_of_two_processes(folder: Path) -> object:
    reference = np.array([[2.0, 0.0], [0.0, 2.0]])
    own, rank = Small(), world().rank
    best = BestEpoch(folder / BEST_FILE, own, reference, np.array([0, 1]))
    for epoch, logits in enumerate((reference, -reference), start=1):
        with torch.no_grad():
            next(own.parameters()).fill_(10 * epoch + rank)
        best.offer(epoch, logits)
    kept = best.take()
    return kept and kept.epoch, float(next(own.parameters()).flatten()[0])


def test_all_processes_take_the_state_of_the_first_one(tmp_path: Path) -> None:
    assert in_two_processes(tmp_path / "two", best_of_two_processes) == [(1, 10.0), (1, 10.0)]
