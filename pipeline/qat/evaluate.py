"""Logits of a torch stage over a split: a callable and the images in, float32 [N, classes] in split order out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pipeline.progress import progress

if TYPE_CHECKING:
    from calibration.dataset import Split
    from calibration.preprocess import EvalTransform


def collect_logits(
    what: str,
    forward: Callable[[Tensor], Tensor],
    split: Split,
    transform: EvalTransform,
    batch_size: int,
    device: torch.device,
    indices: Sequence[int] | None = None,
    workers: int = 0,
) -> np.ndarray:
    """Run `forward` over the images of `split` (or those at `indices`), without gradients.

    Returns:
        float32 [N, classes], one row an image in the order of `indices` (default: of the split).
    """
    from calibration.loader import eval_batches

    rows: list[np.ndarray] = []
    with torch.no_grad(), progress(what, len(split) if indices is None else len(indices)) as bar:
        for images, _, _ in eval_batches(split, transform, batch_size, indices, workers):
            rows.append(forward(images.to(device)).float().cpu().numpy())
            bar.advance(len(images))
    return np.concatenate(rows)
