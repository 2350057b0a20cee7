"""Loads triton, where there is one, before TensorFlow: the other way round the process dies.

CUDA builds of torch, which is what package indexes offer for Linux by default, bring triton. Its native library and
TensorFlow's clash when TensorFlow's is loaded first: a segmentation fault in the first import that reaches triton
(torchvision and torch's compiler do). coremltools and litert-torch import TensorFlow by themselves, so their first
import needs this too. Seen with triton 3.7.1 and TensorFlow 2.21.0. Without triton this module does nothing.
"""

from __future__ import annotations

import contextlib
from importlib.util import find_spec


def load_triton_first() -> None:
    """Call before the first import of TensorFlow, coremltools or litert-torch in a process."""
    if find_spec("triton") is None:
        return
    with contextlib.suppress(ImportError):  # a broken triton is for its users to complain about
        import triton  # noqa: F401
