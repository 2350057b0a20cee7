"""The best epoch of a training so far, on disk beside the resume point until the training ends."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from pipeline.metrics.accuracy import correct
from pipeline.metrics.drift import kl_divergence
from pipeline.training.resume_point import read, write


class Best(NamedTuple):
    """An epoch, from 1: right answers, mean KL divergence from the reference in nats, logits float32 [N, classes]."""

    epoch: int
    right: int
    kl: float
    logits: np.ndarray


class BestEpoch:
    """Keeps the state of `module` after the epoch with most right answers; of equals the one nearest the reference.

    Every process makes one and offers the same logits; the first one writes.

    Args:
        file: taken up if an interrupted training left it.
        reference: logits [N, classes] of the float model on the images that the epochs are scored on.
        labels: [N]

    Raises:
        RunError: the file is damaged.
    """

    def __init__(self, file: Path, module: nn.Module, reference: np.ndarray, labels: np.ndarray):
        self._file, self._module, self._reference, self._labels = file, module, reference, labels
        saved = self._read()
        self._score: tuple[int, float] | None = (saved["right"], -saved["kl"]) if saved else None

    def offer(self, epoch: int, logits: np.ndarray) -> None:
        """Keep the state of the module, whose logits these are, if it is the best so far."""
        kl = float(kl_divergence(self._reference, logits).mean())
        right, kl = int(correct(logits, self._labels).sum()), kl if math.isfinite(kl) else math.inf
        if self._score is None or (right, -kl) > self._score:
            self._score = right, -kl
            state, rows = self._module.state_dict(), torch.from_numpy(logits.astype(np.float32))
            write(self._file, {"epoch": epoch, "right": right, "kl": kl, "logits": rows, "module": state})

    def take(self) -> Best | None:
        """Give the module the best epoch's state, in every process; None if no epoch was offered."""
        saved = self._read()
        if saved is None:
            return None
        self._module.load_state_dict(saved["module"])
        return Best(saved["epoch"], saved["right"], saved["kl"], saved["logits"].numpy())

    def _read(self) -> dict[str, Any] | None:
        return read(self._file, torch.device("cpu"))
