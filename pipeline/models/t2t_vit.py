"""T2T-ViT-7/10/12 in plain torch.

Follows Yuan et al., "Tokens-to-Token ViT", ICCV 2021, section 3 and table 2 (the lite models with the
Performer T2T module). Parameter and buffer names are those of the authors' repository
(yitu-opensource/T2T-ViT: models/t2t_vit.py, token_performer.py, transformer_block.py), so that the published
checkpoints load without renaming. The code is our own.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: The published checkpoints were trained with the embedding width, not the head width, under the root
#: (the `pretrained` branch of the authors' t2t_vit_7/10/12 constructors).
PUBLISHED_QK_SCALE = 256**-0.5


def sinusoid_position_embedding(positions: int, dim: int) -> Tensor:
    """Fixed sinusoid table of Vaswani et al. 2017, section 3.5.

    Returns:
        float32 [1, positions, dim]; even columns are sines, odd columns cosines.
    """
    position = torch.arange(positions, dtype=torch.float64).unsqueeze(1)
    exponent = 2 * (torch.arange(dim, dtype=torch.float64) // 2) / dim
    angle = position / torch.pow(10000.0, exponent)
    table = torch.where(torch.arange(dim) % 2 == 0, angle.sin(), angle.cos())
    return table.float().unsqueeze(0)


class TokenPerformer(nn.Module):
    """Performer attention over the tokens of one soft split (Choromanski et al. 2021, positive random features).

    The divisor is a sum of exponentials: every operator from `exp` to the division stays in float whatever the
    quantization scheme (pipeline.quantization.quantizer).
    """

    def __init__(self, dim: int, token_dim: int, kernel_ratio: float = 0.5, drop: float = 0.1):
        super().__init__()
        self.token_dim = token_dim
        self.features = int(token_dim * kernel_ratio)
        self.epsilon = 1e-8  # authors' token_performer.py
        self.norm1 = nn.LayerNorm(dim)
        self.kqv = nn.Linear(dim, 3 * token_dim)
        self.dp = nn.Dropout(drop)
        self.proj = nn.Linear(token_dim, token_dim)
        self.norm2 = nn.LayerNorm(token_dim)
        self.mlp = nn.Sequential(
            nn.Linear(token_dim, token_dim), nn.GELU(), nn.Linear(token_dim, token_dim), nn.Dropout(drop)
        )
        projection = nn.init.orthogonal_(torch.empty(self.features, token_dim)) * math.sqrt(self.features)
        self.w = nn.Parameter(projection, requires_grad=False)

    def random_features(self, x: Tensor) -> Tensor:
        """exp(x w^T - |x|^2 / 2) / sqrt(m): [B, T, token_dim] -> [B, T, m]."""
        half_square = (x * x).sum(dim=-1, keepdim=True) / 2
        return torch.exp(x @ self.w.transpose(0, 1) - half_square) / math.sqrt(self.features)

    def attend(self, k: Tensor, q: Tensor, v: Tensor) -> Tensor:
        """Values plus projected attention; all [B, T, token_dim]."""
        kp, qp = self.random_features(k), self.random_features(q)
        divisor = qp @ kp.sum(dim=1, keepdim=True).transpose(1, 2)  # [B, T, m] -> [B, T, 1]
        kv = kp.transpose(1, 2) @ v  # [B, m, token_dim]
        y = (qp @ kv) / (divisor + self.epsilon)
        return v + self.dp(self.proj(y))

    def forward(self, x: Tensor) -> Tensor:
        x = self.attend(*torch.split(self.kqv(self.norm1(x)), self.token_dim, dim=-1))
        return x + self.mlp(self.norm2(x))


class TokensToToken(nn.Module):
    """Three soft splits with a Performer after the first two: [B, 3, H, W] -> [B, (H/16)(W/16), embed_dim]."""

    def __init__(self, in_chans: int, embed_dim: int, token_dim: int = 64):
        super().__init__()
        self.soft_split0 = nn.Unfold(kernel_size=7, stride=4, padding=2)
        self.soft_split1 = nn.Unfold(kernel_size=3, stride=2, padding=1)
        self.soft_split2 = nn.Unfold(kernel_size=3, stride=2, padding=1)
        self.attention1 = TokenPerformer(in_chans * 7 * 7, token_dim)
        self.attention2 = TokenPerformer(token_dim * 3 * 3, token_dim)
        self.project = nn.Linear(token_dim * 3 * 3, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2] // 4, x.shape[-1] // 4
        x = self.soft_split0(x).transpose(1, 2)  # [B, 147, HW/16] -> [B, HW/16, 147]
        x = self.attention1(x)  # [B, HW/16, 64]
        x = x.transpose(1, 2).reshape(-1, x.shape[2], height, width)
        x = self.soft_split1(x).transpose(1, 2)  # [B, HW/64, 576]
        x = self.attention2(x)  # [B, HW/64, 64]
        x = x.transpose(1, 2).reshape(-1, x.shape[2], height // 2, width // 2)
        x = self.soft_split2(x).transpose(1, 2)  # [B, HW/256, 576]
        return self.project(x)


class Attention(nn.Module):
    """Multi-head self-attention over all tokens, no qkv bias."""

    def __init__(self, dim: int, num_heads: int, qk_scale: float | None):
        super().__init__()
        self.num_heads = num_heads
        self.scale = qk_scale or (dim // num_heads) ** -0.5
        self.qkv = nn.Linear(dim, dim * 3, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        tokens, dim = x.shape[1], x.shape[2]
        qkv = self.qkv(x).reshape(-1, tokens, 3, self.num_heads, dim // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each [B, heads, N, head_dim]
        attn = ((q @ k.transpose(-2, -1)) * self.scale).softmax(dim=-1)
        x = (attn @ v).transpose(1, 2).reshape(-1, tokens, dim)
        return self.proj(x)


class Mlp(nn.Module):
    """Two Linears with an exact GELU between them."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, qk_scale: float | None):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, num_heads, qk_scale)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class T2TViT(nn.Module):
    """A lite T2T-ViT.

    Args:
        depth: transformer blocks (7, 10 or 12 in the paper's lite models).
        num_classes: outputs of the head.
        img_size: side of the square input in pixels; a multiple of 16.
        qk_scale: attention scale; None means head_dim ** -0.5, see PUBLISHED_QK_SCALE for official weights.

    Raises:
        ValueError: `img_size` is not a multiple of 16.
    """

    def __init__(
        self,
        depth: int,
        num_classes: int = 1000,
        img_size: int = 224,
        qk_scale: float | None = None,
        embed_dim: int = 256,
        num_heads: int = 4,
        mlp_ratio: float = 2.0,
        in_chans: int = 3,
    ):
        super().__init__()
        if img_size % 16:
            raise ValueError(f"img_size {img_size} is not a multiple of 16 (three soft splits of stride 4, 2, 2)")
        self.num_classes = num_classes
        self.img_size = img_size
        self.num_features = self.embed_dim = embed_dim
        self.tokens_to_token = TokensToToken(in_chans, embed_dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        positions = (img_size // 16) ** 2 + 1
        self.pos_embed = nn.Parameter(sinusoid_position_embedding(positions, embed_dim), requires_grad=False)
        self.blocks = nn.ModuleList([Block(embed_dim, num_heads, mlp_ratio, qk_scale) for _ in range(depth)])
        self.norm = nn.LayerNorm(embed_dim)
        self.head = nn.Linear(embed_dim, num_classes)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        self.apply(_init_linear)

    @property
    def qk_scale(self) -> float:
        """The attention scale in use (the same in every block)."""
        block = self.blocks[0]
        assert isinstance(block, Block)
        return block.attn.scale

    def forward(self, x: Tensor) -> Tensor:
        x = self.tokens_to_token(x)  # [B, 196, 256] at 224 px
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1)
        # Smaller training images see the same table resized; at img_size this is the table itself.
        same_size = x.shape[1] == self.pos_embed.shape[1]
        x = x + (self.pos_embed if same_size else resize_position_embedding(self.pos_embed, x.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)  # authors' T2T_ViT._init_weights
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def resize_position_embedding(table: Tensor, positions: int) -> Tensor:
    """Bicubic resize of the patch grid of a [1, N + 1, dim] table to [1, positions, dim]; class token kept.

    Source: resize_pos_embed in the authors' utils.py.
    """
    old_side, new_side = math.isqrt(table.shape[1] - 1), math.isqrt(positions - 1)
    grid = table[:, 1:].reshape(1, old_side, old_side, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(new_side, new_side), mode="bicubic")
    return torch.cat([table[:, :1], grid.permute(0, 2, 3, 1).reshape(1, new_side * new_side, -1)], dim=1)
