"""Checks that `load` and the sessions of all targets have in common, so that all refuse in the same words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from targets.types import TargetError


def check_threads(threads: int) -> None:
    """
    Raises:
        TargetError: stage "load", no thread at all.
    """
    if threads < 1:
        raise TargetError("load", f"threads is {threads}: at least 1 is needed")


def check_batch(batch: np.ndarray, size: Sequence[int], name: str, is_open: bool) -> None:
    """
    Args:
        size: (3, H, W) of the images that the artifact takes.
        name: of the artifact.
        is_open: whether its session is.

    Raises:
        TargetError: stage "run", the session is closed or the images are not of this size and float32.
    """
    if not is_open:
        raise TargetError("run", f"{name}: the session is closed")
    if batch.dtype != np.float32 or not len(batch) or batch.shape[1:] != tuple(size):
        raise TargetError("run", f"{name} takes float32 images of {list(size)}, not {batch.dtype} {list(batch.shape)}")
