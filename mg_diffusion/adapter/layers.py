"""The trained layers: features to tokens, their fusion, and residuals of the down blocks."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn


Residuals = list[torch.Tensor]


def zero_module(module: nn.Module) -> nn.Module:
    """Start a projection at zero, so that an untrained adapter leaves the base model as it is."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


class TokenProjection(nn.Module):
    """Pooled vector (B, size) -> tokens (B, num_tokens, token_dim)."""

    def __init__(self, size: int, num_tokens: int, token_dim: int):
        super().__init__()
        self.shape = (num_tokens, token_dim)
        self.net = nn.Sequential(
            nn.LayerNorm(size), nn.Linear(size, 256), nn.GELU(), nn.Linear(256, num_tokens * token_dim)
        )
        self.norm = nn.LayerNorm(token_dim)

    def forward(self, vector: torch.Tensor) -> torch.Tensor:
        return self.norm(self.net(vector).unflatten(1, self.shape))


class Fusion(nn.Module):
    """T' = T + alpha * CrossGranularityAttention(T); absent granularities are masked out of the attention."""

    def __init__(self, token_dim: int, heads: int = 4):
        super().__init__()
        self.norm = nn.LayerNorm(token_dim)
        self.attention = nn.MultiheadAttention(token_dim, heads, batch_first=True)
        self.alpha = nn.Parameter(torch.zeros(()))

    def forward(self, tokens: torch.Tensor, present: torch.Tensor, fusion_scale: float = 1.0) -> torch.Tensor:
        """tokens (B, G, T, D), present (B, G) bool; `fusion_scale` 0 switches the fusion off."""
        # Where nothing is present every key would be masked and softmax gives NaN; nothing reads those rows.
        visible = present | ~present.any(1, keepdim=True)
        sequence = self.norm(tokens.flatten(1, 2))
        hidden = ~visible.repeat_interleave(tokens.shape[2], dim=1)
        mixed, _ = self.attention(sequence, sequence, sequence, key_padding_mask=hidden, need_weights=False)
        return tokens + fusion_scale * self.alpha * mixed.view_as(tokens)


class ShapeResiduals(nn.Module):
    """R_l = Z_l(S_l) * (1 + tanh gamma_l(color, texture)): the shape pyramid to residuals of every down block."""

    def __init__(self, map_channels: Sequence[int], block_channels: Sequence[int], token_dim: int):
        super().__init__()
        levels = [min(level, len(map_channels) - 1) for level in range(len(block_channels))]
        self.levels = levels
        self.stems = nn.ModuleList(nn.Conv2d(map_channels[level], 64, 3, padding=1) for level in levels)
        self.outs = nn.ModuleList(zero_module(nn.Conv2d(64, width, 1)) for width in block_channels)
        self.gammas = nn.ModuleList(zero_module(nn.Linear(2 * token_dim, width)) for width in block_channels)

    def forward(
        self, shape: dict[str, torch.Tensor], others: torch.Tensor, sizes: Sequence[tuple[int, int]]
    ) -> list[torch.Tensor]:
        residuals = []
        for level, stem, out, gamma, size in zip(self.levels, self.stems, self.outs, self.gammas, sizes, strict=True):
            maps = shape[f"map_{level}"]
            if maps.shape[2:] != tuple(size):
                smaller = size[0] < maps.shape[2]
                maps = (
                    F.adaptive_avg_pool2d(maps, size) if smaller else F.interpolate(maps, size=size, mode="bilinear")
                )
            gain = 1 + torch.tanh(gamma(others))[:, :, None, None]
            residuals.append(out(F.silu(stem(maps))) * gain)
        return residuals


class CanvasResiduals(nn.Module):
    """A picture laid out in encoder pixels (texture canvas, sketch) to residuals of every down block."""

    def __init__(self, channels: int, map_stride: int, block_channels: Sequence[int], block_strides: Sequence[int]):
        super().__init__()
        self.stride = map_stride * block_strides[0]  # canvas pixels a cell of the first residual
        strides = [1, *(below // above for above, below in pairwise(block_strides))]
        first = channels * self.stride**2
        self.stems = nn.ModuleList(
            nn.Conv2d(first if level == 0 else 64, 64, 3, stride=stride, padding=1)
            for level, stride in enumerate(strides)
        )
        self.outs = nn.ModuleList(zero_module(nn.Conv2d(64, width, 1)) for width in block_channels)

    def forward(self, canvas: torch.Tensor, sizes: Sequence[tuple[int, int]]) -> list[torch.Tensor]:
        """canvas (B, channels, sizes[0] * stride) -> one residual (B, C_l, *sizes[l]) per block."""
        hidden = F.pixel_unshuffle(canvas, self.stride)
        residuals = []
        for stem, out, size in zip(self.stems, self.outs, sizes, strict=True):
            hidden = F.silu(stem(hidden))
            if hidden.shape[2:] != tuple(size):
                hidden = F.interpolate(hidden, size=size, mode="bilinear", align_corners=False)
            residuals.append(out(hidden))
        return residuals


def down_block_sizes(strides: Sequence[int], height: int, width: int) -> list[tuple[int, int]]:
    """Spatial size of every residual for latents of height x width; UNet downsampling rounds up."""
    return [(-(-height // stride), -(-width // stride)) for stride in strides]
