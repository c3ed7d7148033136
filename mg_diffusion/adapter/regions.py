"""One conditioning of references that count in a part of the output only."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from .conditioning import Fused


def join_regions(
    fused: Sequence[Fused],
    shares: torch.Tensor | None,
    layers: Sequence[dict[str, Any]],
    sizes: Sequence[tuple[int, int]],
) -> Fused:
    """One conditioning out of those of several sets: attention and residuals, place by place, in their shares.

    Args:
        fused, shares: by set of `split_regions`.
        layers: the adapter's `attention_layers`; sizes: of the down blocks, finest first.
    """
    if shares is None:
        return fused[0]
    pooled = [F.adaptive_avg_pool2d(shares, size) for size in sizes]
    attention, joined = {}, {}
    for layer in layers:
        name, heads = layer["name"], layer["heads"]
        keys, values = zip(*(one.attention[name] for one in fused), strict=True)
        key = torch.stack([one.unflatten(2, (heads, -1)) for one in keys], 3).flatten(2)
        value = torch.stack([one.unflatten(1, (heads, -1)) for one in values], 2).flatten(1, 3)
        share = pooled[_level(name, len(pooled))].flatten(2).transpose(1, 2)
        attention[name] = (key, value, share.expand(len(key), -1, -1).to(value.dtype))
    for place, one in enumerate(fused):
        for used, residuals in one.residuals.items():
            own = [r * p[:, place : place + 1].to(r) for r, p in zip(residuals, pooled, strict=True)]
            joined[used] = [a + b for a, b in zip(joined[used], own, strict=True)] if used in joined else own
    return Fused(attention, joined)


def _level(layer: str, count: int) -> int:
    """Which of `count` resolutions, finest first, an attention layer of a UNet works at."""
    kind, place, *_ = layer.split(".")
    if kind == "mid_block":
        return count - 1
    return int(place) if kind == "down_blocks" else count - 1 - int(place)
