"""Distances of distributions, differentiable and cheap: what guidance by color and by texture follows down."""

import torch
import torch.nn.functional as F


GUIDE_LEVELS = 256  # quantiles that stand for a distribution


def as_shares(weights: torch.Tensor) -> torch.Tensor:
    """Weights (B, 1, H, W) of places to (B, 1, N) that sum to 1."""
    weights = weights.flatten(2) + 1e-8
    return weights / weights.sum(2, keepdim=True)


def quantiles(values: torch.Tensor) -> torch.Tensor:
    """(B, K, N) to GUIDE_LEVELS sorted means of equally many each, (B, K, GUIDE_LEVELS)."""
    return F.adaptive_avg_pool1d(values.sort(2).values, GUIDE_LEVELS)


def transport_cost(values: torch.Tensor, wanted: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Squared Wasserstein-2 distance in one dimension, mean over K directions: (B,).

    Args:
        values: (B, K, N); wanted: (1 or B, K, Q), sorted quantiles; shares: (1 or B, 1, N) that sum to 1.
    """
    ordered, order = values.sort(2)
    share = shares.expand_as(values).gather(2, order)
    places = ((share.cumsum(2) - share / 2) * wanted.shape[2] - 0.5).clamp(0, wanted.shape[2] - 1)
    below = places.long()
    wanted = wanted.expand(*values.shape[:2], -1)
    above = wanted.gather(2, (below + 1).clamp(max=wanted.shape[2] - 1))
    target = torch.lerp(wanted.gather(2, below), above, places - below)
    return ((ordered - target).square() * share).sum(2).mean(1)
