"""Rewrite: the LayerNorm before the Performer's MLP, with products for means and its gain and bias in the Linear.

z = (x - mean) rstd, W (g z + b) + c = (W g) z + (W b + c), in two passes: the variance is that of the centred values.
"""

from __future__ import annotations

from pipeline.rewrites.algebra import Normalise, fold_norm
from pipeline.rewrites.form import DeployForm


def rewrite(form: DeployForm) -> None:
    for stage in (form.stage1, form.stage2):
        norm, mlp = stage.mlp.norm, stage.mlp.mlp
        mlp[0] = fold_norm(mlp[0], norm)
        stage.mlp.norm = Normalise(norm.weight.shape[0], norm.eps)
