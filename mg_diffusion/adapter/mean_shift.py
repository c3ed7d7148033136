"""The modes of a structure map: what its pixels are gathered around (mean shift, Comaniciu and Meer, TPAMI 2002)."""

import torch
import torch.nn.functional as F


def modes_of(values: torch.Tensor, count: int = 256) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Up to `count` of `values` (B, N, 3), and where mean shift takes them.

    They are every n-th in the order of the first channel, which a mirrored map has as well.

    Returns:
        their places for `gather` and their values (both B, M, 3), their modes (B, M, 3).
    """
    places = torch.linspace(
        0, values.shape[1] - 1, min(count, values.shape[1]), device=values.device, dtype=torch.float32
    ).long()
    sample = values[..., 0].argsort(dim=1)[:, places].unsqueeze(2).expand(-1, -1, 3)
    seeds = modes = values.gather(1, sample)
    for _ in range(3):
        modes = kernel_mean(modes, seeds, seeds, 0.15)
    return sample, seeds, modes


def kernel_mean(at: torch.Tensor, places: torch.Tensor, values: torch.Tensor, width: float) -> torch.Tensor:
    """Mean of `values` (B, M, 3) at `places` (B, M, 3), weighted by a Gaussian of their distance to `at` (B, N, 3)."""
    # -|a - p|^2 / 2 is a p - |p|^2 / 2 less what all places share: attention, in the form torch has fast kernels for.
    query = torch.cat([at, torch.ones_like(at[..., :1])], 2)
    key = torch.cat([places, -places.square().sum(2, keepdim=True) / 2], 2)
    value = F.pad(values, (0, 1))
    mean = F.scaled_dot_product_attention(*(x.unsqueeze(1) for x in (query, key, value)), scale=width**-2)
    return mean[:, 0, :, :3]
