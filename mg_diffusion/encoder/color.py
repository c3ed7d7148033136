"""Color: a bag of colors, without any layout."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .branch import Branch
from .distances import as_shares, quantiles, transport_cost
from .views import rgb_to_lab


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
    count = torch.arange(PALETTE, device=points.device, dtype=torch.float32)
    order = (count * 0.6180339887498949 % 1).argsort()
    places = (order.float() + 0.5) / PALETTE
    reached = weights.float().cumsum(1)
    chosen = torch.searchsorted(reached, places.expand(len(reached), -1).contiguous()).clamp(max=points.shape[1] - 1)
    return points.gather(1, chosen.unsqueeze(2).expand(-1, -1, 3))


def palette_view(colors: torch.Tensor, weights: torch.Tensor) -> dict[str, torch.Tensor]:
    """The bag of `parse_palette`'s colors (N, 3) in RGB and weights (N,)."""
    points = rgb_to_lab(colors.T.view(1, 3, -1, 1)).flatten(2).transpose(1, 2)
    return {"points": points, "weights": weights.unsqueeze(0)}


def color_directions() -> torch.Tensor:
    """24 directions in Lab, always the same: (24, 3), in orthonormal triples."""
    turns = torch.randn(8, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    return torch.linalg.qr(turns)[0].flatten(0, 1)


class ColorBranch(Branch):
    """A bag of colors to a vector: soft Lab histogram (5x7x7 bins), area-flattened, and learned means.

    The square root of the areas flattens them: a small accent counts more than its share, so that the proportions,
    which belong to the layout, count less.
    """

    shared_out = ("palette",)

    def __init__(self, channels: int):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, channels), nn.GELU(), nn.Linear(channels, channels), nn.GELU())
        grid = (
            torch.linspace(10, 90, 5, dtype=torch.float32),
            torch.linspace(-60, 60, 7, dtype=torch.float32),
            torch.linspace(-60, 60, 7, dtype=torch.float32),
        )
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

    @classmethod
    def from_encoder_config(cls, config: Any) -> "ColorBranch":
        return cls(config.color_channels)

    def view(
        self, lab: torch.Tensor, smooth: torch.Tensor, mask: torch.Tensor, generator: torch.Generator | None = None
    ) -> dict[str, torch.Tensor]:
        return color_view(smooth, mask)

    def features(self, view: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"vector": self(**view), "palette": draw_palette(**view)}

    @property
    def card_shapes(self) -> dict[str, tuple[int | str, ...]]:
        return {"vector": (1, self.out_features), "palette": (1, PALETTE, 3)}

    def target(self, features: dict[str, torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
        palette = features["palette"]
        return quantiles(color_directions().to(palette) @ palette.transpose(1, 2))

    def distance(self, lab: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Sliced Wasserstein distance to the palette (as SW-Guidance, Lobashev et al., arXiv 2503.19034)."""
        colors = F.avg_pool2d(lab, 2).flatten(2)
        return transport_cost(color_directions().to(colors) @ colors, target, as_shares(F.avg_pool2d(mask, 2)))
