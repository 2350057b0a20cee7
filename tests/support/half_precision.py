"""A torch model in; what it computes when every value that is written to memory is rounded to half precision out.

That is the arithmetic of a Neural Engine with wide accumulators: weights, input and the result of every operator are
float16, sums inside of one operator are not.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map


class _RoundResults(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return tree_map(_rounded, func(*args, **(kwargs or {})))


def _rounded(value: Any) -> Any:
    is_float = isinstance(value, Tensor) and value.dtype == torch.float32
    return value.half().float() if is_float else value


@torch.no_grad()
def in_half_precision(model: nn.Module, images: Tensor) -> Tensor:
    model = copy.deepcopy(model)
    for value in (*model.parameters(), *model.buffers()):
        if value.is_floating_point():
            value.copy_(value.half().float())
    with _RoundResults():
        return model(images.half().float())
