"""Nothing in; SDKs without start-up chatter out. To be called before torch, torchao or TensorFlow is imported."""

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
