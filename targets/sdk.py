"""Around the calls of an SDK: silence its messages, word its errors in one line, and tell its version."""

from __future__ import annotations

import logging
import os
import sys
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version


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


@contextmanager
def quieted() -> Iterator[None]:
    """Keep an SDK's log lines and warnings to itself; its errors are exceptions.

    Lines of native code still reach standard error, which the worker keeps for the day that code aborts.
    """
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def why_not_imported(name: str, install: str, *modules: str) -> str:
    """Why `name`, which is these modules, cannot be used here; empty where it can."""
    try:
        with quieted():
            for module in modules:
                import_module(module)
    except (ImportError, OSError) as error:  # OSError: a shared library does not load
        return f"{name} does not import ({error}): pip install {install}"
    return ""


def one_line(error: object, limit: int | None = None) -> str:
    """The text of an error without its line breaks, or its beginning."""
    return " ".join(str(error).split())[:limit]


def typed_line(error: BaseException, limit: int) -> str:
    """`one_line` behind the error's type: "KeyError: 'main'"."""
    return one_line(f"{type(error).__name__}: {error}", limit)


def installed(*packages: str) -> dict[str, str]:
    """Package -> version, in the order given; what is not installed is left out."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
