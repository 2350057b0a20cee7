"""Observers of two processes that see one half of each batch, against one process that sees all of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch import distributed as dist
from torch import multiprocessing as mp

from pipeline.quantization.observers import OBSERVERS

BATCHES = 3
KIND = {"dtype": torch.int8, "quant_min": -128, "quant_max": 127, "qscheme": torch.per_tensor_affine}


def batch(step: int) -> Tensor:
    """[8, 40]: the two halves have very different ranges."""
    x = torch.randn(8, 40, generator=torch.Generator().manual_seed(step)) ** 3
    x[4:] = x[4:] * 3 + 1
    return x


def observe(name: str, rows: slice) -> dict[str, Tensor]:
    fake_quantize = OBSERVERS[name](**KIND)
    for step in range(BATCHES):
        fake_quantize(batch(step)[rows])
    return fake_quantize.state_dict()


def one_of_two(rank: int, folder: str) -> None:
    store = dist.FileStore(f"{folder}/store", 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    half = slice(4 * rank, 4 * rank + 4)
    torch.save({name: observe(name, half) for name in OBSERVERS}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Tensor]]]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    mp.spawn(one_of_two, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", OBSERVERS)
def test_the_range_is_that_of_the_whole_batch_in_every_process(
    both: list[dict[str, dict[str, Tensor]]], name: str
) -> None:
    expected = observe(name, slice(None))
    for state in both:
        assert torch.equal(state[name]["scale"], both[0][name]["scale"])
        assert torch.allclose(state[name]["scale"], expected["scale"], rtol=1e-6)
        assert torch.equal(state[name]["zero_point"], expected["zero_point"])
    assert not torch.allclose(observe(name, slice(0, 4))["scale"], expected["scale"], rtol=0.1)
