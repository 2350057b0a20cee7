"""Runtime families: one folder each; none of them knows the pipeline. Importing this package sets an import order.

A CUDA build of torch, the default of package indexes on Linux, brings triton. The native libraries of triton and of
TensorFlow clash if TensorFlow's is loaded first: torchvision, or torch's compiler, then ends with a segmentation fault
(triton 3.7.1, TensorFlow 2.21.0). coremltools and litert-torch import TensorFlow too. So the order is not left to
whoever writes an import: every process that imports anything of `targets` (commands, workers, tests) loads triton
before TensorFlow. Without triton nothing changes.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType


class TritonFirst(MetaPathFinder):
    """Finds no module itself; imports triton when someone is about to import TensorFlow."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if fullname == "tensorflow":
            with contextlib.suppress(ImportError):  # no triton here, or a broken one: not TensorFlow's business
                import triton  # noqa: F401


def keep_import_order() -> None:
    """Install the hook once in this process; costs nothing until TensorFlow is imported."""
    if not any(isinstance(finder, TritonFirst) for finder in sys.meta_path):
        sys.meta_path.insert(0, TritonFirst())


keep_import_order()
