"""How this process starts: SDKs without start-up messages, and whether it trains with others (`torchrun`)."""

from __future__ import annotations

import logging
import os
import sys
import types
import warnings


def quiet_sdks() -> None:
    """Silence notices that say nothing about the user's work; errors still come as exceptions.

    - TensorFlow and absl log CPU features on standard error.
    - torchao warns that CUDA kernels of its wheel do not load beside a CPU build of torch.
    - TensorBoard's writer loads all of TensorFlow unless `tensorboard.compat.notf` exists: its own switch.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    os.environ.setdefault("GLOG_minloglevel", "3")
    sys.modules.setdefault("tensorboard.compat.notf", types.ModuleType("tensorboard.compat.notf"))
    for name in ("torchao", "torch.utils._pytree", "coremltools", "torch.export"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
    for category in (UserWarning, FutureWarning, DeprecationWarning):
        warnings.filterwarnings("ignore", category=category, module=r"(torch|torchao|timm|coremltools|executorch)\b")


def launched() -> bool:
    """Whether this process was started beside others to train together."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "LOCAL_RANK" in os.environ


def chief() -> bool:
    """Whether this process writes and talks: the only one, or the first of those that train together."""
    return not launched() or os.environ.get("RANK", "0") == "0"
