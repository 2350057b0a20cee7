"""Rewrite: the LayerNorm's gain and bias move into the kqv Linear, which becomes three.

W (g z + b) + c = (W g) z + (W b + c), with z the normalised patch. z has mean zero, so any row of W g may lose its own
mean: sum_j (w_j - mean w) z_j = sum_j w_j z_j. Rows that sum to zero cannot see a common offset of the patch, so
rounding errors of the mean cancel.

Why: three outputs need no slices afterwards and get an int8 scale each.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.rewrites.algebra import fold_norm, linear, zero_mean_rows
from pipeline.rewrites.form import DeployForm


class FoldedKqv(nn.Module):
    """Soft split, normalisation without gain and bias, three Linears: -> keys, queries, values [B, T, token_dim]."""

    def __init__(self, split: nn.Module, eps: float, layers: list[nn.Linear]):
        super().__init__()
        self.split, self.eps = split, eps
        self.k, self.q, self.v = layers

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        patches = self.split(x)
        z = F.layer_norm(patches, patches.shape[-1:], eps=self.eps)
        return self.k(z), self.q(z), self.v(z)


def rewrite(form: DeployForm) -> None:
    for stage in (form.stage1, form.stage2):
        folded = fold_norm(stage.kqv.kqv, stage.kqv.norm)
        weights, biases = zero_mean_rows(folded.weight).chunk(3), folded.bias.chunk(3)
        stage.kqv = FoldedKqv(stage.kqv.split, stage.kqv.norm.eps, [*map(linear, weights, biases)])
