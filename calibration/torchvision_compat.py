"""Lets the pure-Python part of torchvision load beside a torch build that its binary does not fit.

torchvision's wheel on package indexes is a CUDA build. Beside a CPU-only torch its extension does not load and
`import torchvision` stops on `operator torchvision::nms does not exist`, because it registers meta kernels for
operators that the extension would have declared. Declaring their schemas first is enough for transforms and
datasets (all that timm and this project need); the operators themselves stay without a kernel and say so.
Where the wheel loads, this module does nothing.
"""

from __future__ import annotations

import importlib.util
from functools import cache

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


@cache
def ensure_torchvision() -> None:
    """Make `import torchvision` (and so `import timm`) work; call before the first such import.

    Raises:
        ImportError: torchvision is not installed, or is broken in another way.
    """
    import torch

    if importlib.util.find_spec("torchvision") is None:
        raise ImportError("torchvision is not installed: run `make setup`, or pip install torchvision")
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        global _library
        _library = torch.library.Library("torchvision", "DEF")
        for schema in _SCHEMAS:
            _library.define(schema)
        import torchvision  # noqa: F401


# Keeps the declared schemas alive: torch drops them when the Library object is collected.
_library = None
