"""A program for one image in, the same with preprocessing in front and probabilities behind it out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from targets.coreml.preprocess import Preprocessing
from targets.program import input_shape

if TYPE_CHECKING:
    from torch.export import ExportedProgram


def wrap(program: ExportedProgram, preprocessing: Preprocessing | None, probabilities: bool) -> ExportedProgram:
    """Images [1, 3, H, W] -> logits [1, classes], around the program as it is: its quantize operators and scales stay.

    Args:
        program: of a single image, as targets.program.static_batch and fold_quantized_weights make it.
        preprocessing: if given, the new program takes pixels of 0..255.
        probabilities: if set, it gives (logits, softmax of the logits).
    """
    import torch
    from torch import Tensor, nn

    class Wrapped(nn.Module):
        whole: Tensor
        rest: Tensor
        factor: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.program = program.module()
            terms = preprocessing.terms() if preprocessing else ()
            for name, values in zip(("whole", "rest", "factor"), terms, strict=False):
                self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1))

        def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
            if preprocessing is not None:
                images = ((images - self.whole) - self.rest) * self.factor
            logits = self.program(images)
            return (logits, torch.softmax(logits, dim=-1)) if probabilities else logits

    shape = input_shape(program)
    if preprocessing is not None and len(preprocessing.mean) != shape[0]:
        raise ValueError(f"a mean of {len(preprocessing.mean)} channels for images of {shape[0]}")
    with torch.no_grad():
        return torch.export.export(Wrapped(), (torch.zeros(1, *shape),))
