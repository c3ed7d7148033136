"""The regions of a picture, whatever their colors: a map in false colors, its turns, and fields within borders."""

import math

import torch
import torch.nn.functional as F

from ..adapter.mean_shift import kernel_mean
from .views import gaussian_blur


CONTRAST_FLOOR = 20.0  # Delta-E: color contrasts above it count nearly alike in the structure map
SHADING_LIMIT = 30.0  # Lab lightness, of folds and of lines; a round thing keeps its dark side
LINE_SCALES = (1.0, 4.0)  # pixels, the deviations of the two blurs between which a line lies
LINE_FLOOR = 4.0  # Lab lightness; what stands out less is grain or texture
FIELD_WAVES = ((1, 0), (0, 1), (1, 1), (2, 0), (0, 2), (2, 1), (1, 2), (2, 2))  # periods across width and height


def structure_map(smooth: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The regions of a picture in false colors that its layout chooses: (B, 3, H, W) -> (B, 3, H, W) in [-1, 1].

    The mean of the colors is removed, large contrasts are brought nearer to small ones (whitening above a floor), and
    the cloud of colors is turned so that it agrees with three fixed waves over the picture as well as a rotation can
    (orthogonal Procrustes, Schoenemann 1966). Two pictures of the same regions get nearly the same map in whatever
    palettes they are painted; what was dark or red in the reference cannot be told from it. A mirrored picture has a
    mirrored map.
    """
    share = mask.flatten(2) / mask.sum((2, 3)).unsqueeze(2).clamp(min=1e-6)
    cloud = gaussian_blur(smooth, 1.0).flatten(2)
    cloud = (cloud - (cloud * share).sum(2, keepdim=True)) * (share > 0)
    # The turns are a choice, not a function to differentiate: equal variances have no gradient.
    variance, basis = torch.linalg.eigh(((cloud * share) @ cloud.transpose(1, 2)).detach())
    gain = (variance.clamp(min=0) + CONTRAST_FLOOR**2).rsqrt().unsqueeze(2)
    cloud = basis @ (gain * (basis.transpose(1, 2) @ cloud))
    waves = layout_waves(*smooth.shape[2:]).to(smooth).flatten(1)
    waves = waves - (waves * share).sum(2, keepdim=True)
    waves = waves / ((waves.square() * share).sum(2, keepdim=True).sqrt() + 1e-3)
    u, _, vt = torch.linalg.svd(((cloud * share) @ waves.transpose(1, 2)).detach())
    spread = ((cloud.square() * share).sum((1, 2), keepdim=True) + 0.05**2).sqrt()  # a flat picture has no regions
    turned = (u @ vt).transpose(1, 2) @ cloud / spread
    return torch.tanh(turned).view_as(smooth)


def shading(structure: torch.Tensor, smooth: torch.Tensor, lightness: torch.Tensor) -> torch.Tensor:
    """How light a place is beside what is alike in the structure map: folds, roundness, lines. (B, 1, H, W), lightness.

    Each of folds and lines is at most `SHADING_LIMIT`.
    What all places of a region have in common, its brightness, is taken out by kernel regression on the map.

    Args:
        structure: (B, 3, H, W); smooth, lightness: (B, 1, H, W), smoothed between its edges and as it is.
    """
    values = structure.flatten(2).transpose(1, 2)
    places = torch.linspace(
        0, values.shape[1] - 1, min(256, values.shape[1]), device=values.device, dtype=torch.float32
    ).long()
    sample = values[..., 0].argsort(dim=1)[:, places].unsqueeze(2)
    anchors, found = values.gather(1, sample.expand(-1, -1, 3)), smooth.flatten(1).unsqueeze(2).gather(1, sample)
    common = kernel_mean(values, anchors, found.expand(-1, -1, 3), 0.2)[..., 0].view_as(smooth)
    return _limited(smooth - common) + _limited(lines(lightness))


def lines(lightness: torch.Tensor) -> torch.Tensor:
    """What is drawn, without the grain: seams, buttons, the borders of one apple before another, those of regions.

    Difference of Gaussians, softly thresholded (as wavelets are, Donoho 1995); (B, 1, H, W) -> (B, 1, H, W).
    """
    finer, coarser = (gaussian_blur(lightness, scale) for scale in LINE_SCALES)
    return F.softshrink(finer - coarser, LINE_FLOOR)


def _limited(lightness: torch.Tensor) -> torch.Tensor:
    return SHADING_LIMIT * torch.tanh(lightness / SHADING_LIMIT)


def nearest_turn(structure: torch.Tensor, colors: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
    """The turn of a structure map that agrees best with colors at the same places (orthogonal Procrustes).

    With it the sketch that `MGAdapter` makes of a picture is a sketch of that picture.

    Args:
        structure, colors: (B, 3, N); weight (B, 1, N): how much a place counts.

    Returns:
        (B, 3, 3), in float32.
    """
    structure, colors = structure.float(), colors.float()
    share = torch.ones_like(colors[:, :1]) if weight is None else weight.float()
    share = share / share.sum(2, keepdim=True).clamp(min=1e-6)
    centered = colors - (colors * share).sum(2, keepdim=True)
    u, _, vt = torch.linalg.svd((centered * share) @ structure.transpose(1, 2))
    return u @ vt


def layout_waves(height: int, width: int) -> torch.Tensor:
    """Center against border, above against below, poles against sides: (3, height, width) in [-2, 2]."""
    y, x = (((torch.arange(side, dtype=torch.float32) + 0.5) * math.pi / side) for side in (height, width))
    across, down = torch.cos(2 * x).expand(height, -1), torch.cos(2 * y).unsqueeze(1).expand(-1, width)
    return torch.stack([-(across + down), torch.cos(y).unsqueeze(1).expand(-1, width), across - down])


def spread_within_regions(fields: torch.Tensor, edges: torch.Tensor, steps: int) -> torch.Tensor:
    """Diffuse `fields` (B, C, h, w) for a number of Jacobi steps that edges (B, 1, h, w) in [0, 1] stop.

    (Anisotropic diffusion, Perona and Malik 1990, with the conductance taken from a fixed edge map.)
    """
    across = torch.exp(-6 * torch.maximum(edges[..., :, 1:], edges[..., :, :-1]))
    down = torch.exp(-6 * torch.maximum(edges[..., 1:, :], edges[..., :-1, :]))
    right, left = F.pad(across, (0, 1)), F.pad(across, (1, 0))
    below, above = F.pad(down, (0, 0, 0, 1)), F.pad(down, (0, 0, 1, 0))
    total = 1 + right + left + below + above
    right, left, below, above = right / total, left / total, below / total, above / total
    own = 1 / total
    for _ in range(steps):
        padded = F.pad(fields, (1, 1, 1, 1))
        fields = (
            own * fields
            + right * padded[..., 1:-1, 2:]
            + left * padded[..., 1:-1, :-2]
            + below * padded[..., 2:, 1:-1]
            + above * padded[..., :-2, 1:-1]
        )
    return fields


def region_fields(edges: torch.Tensor, count: int) -> torch.Tensor:
    """Fields that are alike within a region and differ between regions: (B, 1, H, W) -> (B, count, H/2, W/2).

    Low cosine waves are averaged inside the borders, coarse to fine. They say which pixels belong together, the
    question an edge map only answers after long-range reasoning, and depend on nothing but the edges.
    """
    batch, _, height, width = edges.shape
    x, y = (
        (torch.arange(-(-side // 8), device=edges.device, dtype=edges.dtype) + 0.5) * math.pi / -(-side // 8)
        for side in (width, height)
    )
    waves = [torch.cos(i * x) * torch.cos(j * y).unsqueeze(1) for i, j in FIELD_WAVES[:count]]
    fields = torch.stack(waves).expand(batch, -1, -1, -1)
    for cell, steps in ((8, 60), (4, 20), (2, 8)):
        borders = F.max_pool2d(edges, cell, ceil_mode=True)
        if fields.shape[2:] != borders.shape[2:]:
            fields = F.interpolate(fields, size=borders.shape[2:], mode="bilinear")
        fields = spread_within_regions(fields, borders, steps)
    return fields
