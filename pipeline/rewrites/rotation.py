"""Rewrite: keys and queries are rotated, so that the random projection needs no product of its own.

The rows of the Performer's w [m, d] are orthogonal with norm sqrt(m) (Choromanski et al. 2021, section 2.4). Complete
them to a square matrix R = sqrt(m) Q with orthonormal Q, its first m rows w, and let k' = R k. Then

    w k = k'[:m]   and   |k|^2 / 2 = |k'|^2 / (2 m),

and R moves into the kqv Linear: R (W z + b) = (R W) z + R b. Queries alike.

Needs rows of w that are orthogonal to the precision of the weights, as they are drawn; w is not trained. Where they
are not (a checkpoint that was stored in half precision), R is the identity and the product with w is kept.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.rewrites.algebra import Mean, linear
from pipeline.rewrites.form import DeployForm

#: Largest deviation of w w^T / m from the identity that float32 rounding explains.
TOLERANCE = 1e-5


class LogFeatures(nn.Module):
    """Logarithms of positive random features of rotated keys or queries, without the factor 1 / sqrt(m).

    Args:
        w: [m, d], where keys and queries are not rotated; None where they are.
    """

    w: Tensor | None

    def __init__(self, features: int, dim: int, w: Tensor | None):
        super().__init__()
        self.features = features
        self.square_mean = Mean(dim, scale=dim / 2 if w is not None else dim / (2 * features))
        self.register_buffer("w", w)  # a constant of the float arithmetic, not a weight that is quantized

    def product(self, x: Tensor) -> Tensor:
        """w . x of the keys or queries before the rotation: [B, T, d] -> [B, T, m]."""
        return x[..., : self.features] if self.w is None else F.linear(x, self.w)

    def half_square(self, x: Tensor) -> Tensor:
        """|x|^2 / 2 of the same: [B, T, d] -> [B, T, 1]."""
        return self.square_mean(x * x)


class RotatedAttend(nn.Module):
    """Rotated keys and queries, values -> values plus projected attention, all [B, T, token_dim]."""

    def __init__(self, features: LogFeatures, proj: nn.Linear, dropout: nn.Module, epsilon: float):
        super().__init__()
        self.features, self.proj, self.dropout, self.epsilon = features, proj, dropout, epsilon

    def forward(self, k: Tensor, q: Tensor, v: Tensor) -> Tensor:
        kp, qp = self._exp(k), self._exp(q)
        divisor = qp @ kp.sum(dim=1, keepdim=True).transpose(1, 2)
        y = (qp @ (kp.transpose(1, 2) @ v)) / (divisor + self.epsilon)
        return v + self.dropout(self.proj(y))

    def _exp(self, x: Tensor) -> Tensor:
        log_features = self.features.product(x) - self.features.half_square(x)
        return torch.exp(log_features) / math.sqrt(self.features.features)


def rotation(w: Tensor) -> Tensor | None:
    """R of the module docstring, float64 [d, d], for w [m, d]; None where the rows of w are not orthogonal."""
    w = w.detach().double()
    m = w.shape[0]
    if (w @ w.T / m - torch.eye(m, dtype=w.dtype)).abs().max() > TOLERANCE:
        return None
    *_, rest = torch.linalg.svd(w, full_matrices=True)
    return torch.cat([w, rest[m:] * math.sqrt(m)])


def rewrite(form: DeployForm) -> None:
    for stage in (form.stage1, form.stage2):
        performer = stage.attend.performer
        r = rotation(performer.w)
        if r is not None:
            for name in ("k", "q"):
                layer = getattr(stage.kqv, name)
                turned = linear((r @ layer.weight.double()).to(layer.weight), (r @ layer.bias.double()).to(layer.bias))
                setattr(stage.kqv, name, turned)
        m, dim = performer.w.shape
        features = LogFeatures(m, dim, w=None if r is not None else performer.w.detach().clone())
        stage.attend = RotatedAttend(features, performer.proj, performer.dp, performer.epsilon)
