"""Rewrite: the first `nn.Unfold` becomes slices and concatenations, with the weights that read its patches reordered.

A soft split only copies values, and LayerNorm and Linear do not care in which order they read the features as long
as gain, bias and weight columns follow: W x = (W P^T)(P x) for every permutation P. The order here is the one that
slices of contiguous memory give: columns of the patch outside, then channels, rows inside.

Why: `nn.Unfold` is exported as gathers, which no delegate takes; a convolution with a one-hot kernel costs as much
as a real one, and int8 rounds what it only has to copy.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.rewrites.algebra import linear
from pipeline.rewrites.form import DeployForm

KERNEL, STRIDE, PADDING = 7, 4, 2
OVERLAP = KERNEL - STRIDE


class ImageSplit(nn.Module):
    """7x7 soft split of stride 4: image [B, C, H, W] -> patches [B, H W / 16, 49 C], features (column, channel, row).

    The padded image is cut into runs of four rows and of four columns. Seven rows are a run and the first three of
    the next one; so are seven columns.
    """

    def forward(self, image: Tensor) -> Tensor:
        channels, height, width = image.shape[1:]
        rows, columns = height // STRIDE, width // STRIDE
        x = F.pad(image, (PADDING, PADDING, PADDING, PADDING))
        x = x.reshape(-1, channels, rows + 1, STRIDE * (width + STRIDE)).transpose(1, 2)
        x = x.reshape(-1, rows + 1, channels, STRIDE, width + STRIDE)
        x = torch.cat([x[:, :-1], x[:, 1:, :, :OVERLAP]], dim=3)  # [B, rows, C, 7, W + 4]
        x = x.reshape(-1, channels * KERNEL, width + STRIDE).transpose(1, 2)
        x = x.reshape(-1, columns + 1, STRIDE * channels * KERNEL)
        x = torch.cat([x[:, :-1], x[:, 1:, : OVERLAP * channels * KERNEL]], dim=2)  # [B rows, columns, 49 C]
        return x.reshape(-1, rows * columns, x.shape[2])


def rewrite(form: DeployForm) -> None:
    kqv = form.stage1.kqv
    features = kqv.norm.weight.shape[0]
    # Position in the official order (channel, row, column) of each feature of `ImageSplit`.
    order = torch.arange(features).reshape(-1, KERNEL, KERNEL).permute(2, 0, 1).flatten()
    norm = nn.LayerNorm(features, eps=kqv.norm.eps)
    norm.weight, norm.bias = (nn.Parameter(p.detach()[order]) for p in (kqv.norm.weight, kqv.norm.bias))
    kqv.split, kqv.norm = ImageSplit(), norm
    kqv.kqv = linear(kqv.kqv.weight[:, order], kqv.kqv.bias)
