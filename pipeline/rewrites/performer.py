"""Rewrite: the Performer as two softmaxes around a small key-value matrix, in which nothing overflows or vanishes.

Let l_tj = w_j . k_t - |k_t|^2 / 2 be the logarithm of feature j of key t (without the factor 1 / sqrt(m)), T the number
of tokens, and K_j = mean_t exp(l_tj). The official attention v + P y + c with

    y = sum_j qp_j sum_t kp_tj v_t / (D + eps),   D = sum_j qp_j sum_t kp_tj,

is, when numerator and denominator are divided by T exp(-|q|^2 / 2) / m,

    y = sum_j a_j A_j,   A_j = sum_t softmax_t(l_tj) v_t,
    a = the first m of softmax(w_1 . q + log K_1, ..., w_m . q + log K_m, |q|^2 / 2 + log(eps m / T)).

Epsilon is one more entry of the softmax, with nothing as its value. That is exact, also where D is far below epsilon
(in trained models exp(-|q|^2 / 2) gets as small as 1e-80), and also in half precision, where an epsilon of 1e-8 is zero
and 0 / 0 is NaN. A softmax subtracts its maximum, so every intermediate is of the size of its inputs.

log K_j is a log-sum-exp around s_j = sum_t softmax_t(l_tj) l_tj, which lies at most log T below the largest l_tj:

    log K_j = s_j + log mean_t exp(l_tj - s_j).

The projection P moves from the T tokens onto the m rows A_j. With u = v + c, the weighted means of u are A_j + c, and

    v + sum_j a_j P A_j + c = u + sum_j a_j (P (A_j + c) - P c).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.rewrites.algebra import Mean, linear
from pipeline.rewrites.form import DeployForm
from pipeline.rewrites.rotation import LogFeatures


class KvAttend(nn.Module):
    """Rotated keys and queries, values -> values plus projected attention; all [B, tokens, token_dim].

    Attributes:
        shift, offset: c and -P c. They are no biases of the Linears before them, because converters pull an operator
            right behind an int8 Linear into int8: a padding, or a matrix product that no delegate takes.
    """

    log_epsilon: Tensor

    def __init__(self, features: LogFeatures, proj: nn.Linear, dropout: nn.Module, epsilon: float, tokens: int):
        super().__init__()
        self.features, self.dropout = features, dropout
        self.proj = linear(proj.weight, None)
        self.shift = nn.Parameter(proj.bias.detach().clone())
        self.offset = nn.Parameter(-(proj.weight.double() @ proj.bias.double()).to(proj.bias).detach())
        self.mean, self.tokens = Mean(tokens), float(tokens)  # an int would be cast outside of the delegate
        log_epsilon = math.log(epsilon * features.features / tokens)
        self.register_buffer("log_epsilon", torch.full((1,), log_epsilon, dtype=torch.float64))

    def forward(self, k: Tensor, q: Tensor, v: Tensor) -> Tensor:
        log_keys = (self.features.product(k) - self.features.half_square(k)).transpose(1, 2)  # [B, m, T]
        share = log_keys.softmax(dim=2)
        level = self.mean(share * log_keys) * self.tokens
        log_mean = level + torch.log(self.mean(torch.exp(log_keys - level)))  # [B, m, 1]
        v = v + self.shift
        values = F.pad(self.proj(share @ v) + self.offset, (0, 0, 0, 1))  # [B, m + 1, d]
        scores = self.features.product(q) + log_mean.transpose(1, 2)
        scores = torch.cat([scores, self.features.half_square(q) + self.log_epsilon], dim=2)
        return v + self.dropout(scores.softmax(dim=2) @ values)


def rewrite(form: DeployForm) -> None:
    for stage, tokens in ((form.stage1, form.side**2), (form.stage2, form.side**2 // 4)):
        old = stage.attend
        stage.attend = KvAttend(old.features, old.proj, old.dropout, old.epsilon, tokens)
