"""Color: a bag of colors, without any layout."""

import torch
import torch.nn.functional as F
from torch import nn


PALETTE = 256  # colors of equal weight that stand for a color reference


def color_view(smooth: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """Bag of colors: `points` (B, N, 3) in Lab and `weights` (B, N) that sum to 1. Every second pixel is taken."""
    points = smooth[:, :, ::2, ::2].flatten(2).transpose(1, 2)
    weights = mask[:, :, ::2, ::2].flatten(1) + 1e-8
    return {"points": points, "weights": weights / weights.sum(1, keepdim=True)}


def draw_palette(points: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """256 colors of equal weight that stand for a weighted bag: (B, N, 3), (B, N) that sum to 1 -> (B, 256, 3).

    They are in a scattered order (multiples of the golden ratio), so that any run of them stands for the bag as well.
    """
    count = torch.arange(PALETTE, device=points.device)
    order = (count * 0.6180339887498949 % 1).argsort()
    places = (order + 0.5) / PALETTE
    reached = weights.float().cumsum(1)
    chosen = torch.searchsorted(reached, places.expand(len(reached), -1).contiguous()).clamp(max=points.shape[1] - 1)
    return points.gather(1, chosen.unsqueeze(2).expand(-1, -1, 3))


class ColorBranch(nn.Module):
    """A bag of colors to a vector: soft Lab histogram (5x7x7 bins), area-flattened, and learned means.

    The square root of the areas flattens them: a small accent counts more than its share, so that the proportions,
    which belong to the layout, count less.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, channels), nn.GELU(), nn.Linear(channels, channels), nn.GELU())
        grid = (torch.linspace(10, 90, 5), torch.linspace(-60, 60, 7), torch.linspace(-60, 60, 7))
        self.register_buffer("centers", torch.cartesian_prod(*grid), persistent=False)
        self.out_features = 245 + channels

    def forward(self, points: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        learned = (self.net(points / 50.0) * weights.unsqueeze(2)).sum(1)
        return torch.cat([self.histogram(points, weights), learned], 1)

    def histogram(self, points: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """(B, N, 3) Lab, (B, N) -> (B, 245), unit norm times 4."""
        centers = self.centers.to(points)
        distance = points.square().sum(2, keepdim=True) + centers.square().sum(1) - 2 * points @ centers.T
        share = torch.softmax(-distance / (2 * 14.0**2), dim=2)
        area = (share * weights.unsqueeze(2)).sum(1)
        flat = torch.where(area > 0.004, area, torch.zeros_like(area)).clamp(min=1e-12).sqrt()
        return 4 * F.normalize(flat, dim=1)


def color_directions() -> torch.Tensor:
    """24 directions in Lab, always the same: (24, 3), in orthonormal triples."""
    turns = torch.randn(8, 3, 3, generator=torch.Generator().manual_seed(0))
    return torch.linalg.qr(turns)[0].flatten(0, 1)
