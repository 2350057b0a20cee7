"""Rewrite: the LayerNorm of the first soft split in two passes, with products for its means.

z = (x - mean) / sqrt(mean((x - mean)^2) + eps), as LayerNorm computes it. What float32 or half precision loses in the
mean of a bright flat patch is an offset that all its values share, which rows that sum to zero (rewrite `kqv`) do not
see. E[x^2] - mean^2 of the pixels would cost less and lose every digit there.

Why before the Linear and not after it: scaling the Linear's output would be cheaper, but then a flat patch's digits
are lost in the product, and an int8 input would give every patch the step of the most contrasty one.
"""

from __future__ import annotations

from torch import Tensor, nn

from pipeline.rewrites.algebra import Normalise
from pipeline.rewrites.form import DeployForm


class ImageKqv(nn.Module):
    """Image -> keys, queries, values of its patches, each [B, T, token_dim]."""

    def __init__(self, split: nn.Module, eps: float, layers: list[nn.Linear]):
        super().__init__()
        self.split = split
        self.k, self.q, self.v = layers
        self.normalise = Normalise(self.k.weight.shape[1], eps)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        z = self.normalise(self.split(image))
        return self.k(z), self.q(z), self.v(z)


def rewrite(form: DeployForm) -> None:
    kqv = form.stage1.kqv
    form.stage1.kqv = ImageKqv(kqv.split, kqv.eps, [kqv.k, kqv.q, kqv.v])
