"""MGEncoder: reference images -> features of color, texture and shape.

Step 1 of the method, *preprocess*: references are read, checked and brought to one working size (`MGEncoder.load`).
Step 2, *extract*, y = f(Wx + b): a fixed **view** takes from the picture what one granularity may know, and a small
CNN reads that view. A branch sees only its view, so it cannot leak more than the view holds.

| granularity | view | CNN and pooling | blind to |
|---|---|---|---|
| color | bag of colors of the edge-preserving smoothed CIELAB picture | 1x1 convolutions, (masked) mean | layout, texture |
| texture | luminance without its local mean and contrast, borders faded; shuffled tiles of its detail | small receptive field, second-order statistics | palette, layout beyond a tile |
| shape | Di Zenzo gradient of the smoothed picture, soft-thresholded; its regions with their colors turned away | ConvNeXt V2 pyramid, kept spatial | palette, brightness, contrast, fine texture |

This file is self-contained: it is copied into exported repositories and loaded from there as remote code.
"""

import hashlib
import inspect
import json
import math
import os
import re
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps
import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import AutoBackbone, AutoConfig


GRANULARITIES = ("color", "texture", "shape")
MAX_PIXELS = 64_000_000  # A reference of more pixels is refused before it is decoded.
MAX_ASPECT = 16.0
CARD = ".safetensors"  # ending of granularity cards, see `MGEncoder.save_card`
CARD_FORMAT = "mg_diffusion granularity card 1"

# The view constants are in pixels of the working size and were calibrated at 64 px with the procedural renderer.
LOCAL_SIGMA = 4.0  # window of the local mean and contrast of the texture view
DETAIL_SIGMA = 6.0  # what varies more slowly than this is not texture
DETAIL_LIMIT = 20.0  # Lab lightness; larger steps are borders rather than texture
TILE = 24
PALETTE = 256  # colors of equal weight that stand for a color reference
CONTRAST_FLOOR = 20.0  # Delta-E: color contrasts above it count nearly alike in the structure map
GUIDE_PATCH = 5  # side in pixels of the patches whose distribution guides the texture
GUIDE_LEVELS = 256  # quantiles that stand for a distribution
FIELD_WAVES = ((1, 0), (0, 1), (1, 1), (2, 0), (0, 2), (2, 1), (1, 2), (2, 2))  # periods across width and height


# ---------------------------------------------------------------------------------------------------------------------
# Views: fixed, batched, differentiable
# ---------------------------------------------------------------------------------------------------------------------
def rgb_to_lab(rgb: torch.Tensor) -> torch.Tensor:
    """sRGB (B, 3, H, W) in [0, 1] to CIELAB under D65: L in 0..100, a and b in about -110..110."""
    linear = torch.where(rgb > 0.04045, ((rgb.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    white = rgb.new_tensor([0.95047, 1.0, 1.08883])
    xyz = torch.einsum("ij,bjhw->bihw", rgb.new_tensor(to_xyz) / white[:, None], linear)
    delta = 6 / 29
    # The clamp keeps the unused side of `where` from sending NaN gradients through the cube root.
    f = torch.where(xyz > delta**3, xyz.clamp(min=delta**3) ** (1 / 3), xyz / (3 * delta**2) + 4 / 29)
    x, y, z = f.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def gaussian_blur(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """Separable Gaussian blur of (B, C, H, W), reflected at the borders; `sigma` in pixels."""
    channels = x.shape[1]
    for axis, length in ((2, x.shape[2]), (3, x.shape[3])):
        radius = min(math.ceil(3 * sigma), length - 1)
        offset = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
        kernel = torch.exp(-(offset**2) / (2 * sigma**2))
        kernel = (kernel / kernel.sum()).expand(channels, 1, -1)
        padding = (0, 0, radius, radius) if axis == 2 else (radius, radius, 0, 0)
        x = F.pad(x, padding, mode="reflect")
        x = F.conv2d(x, kernel.unsqueeze(5 - axis), groups=channels)
    return x


def edge_preserving_smooth(
    lab: torch.Tensor, sigma: float = 2.5, steps: int = 4, color_sigma: float = 14.0, dilation: int = 2
) -> torch.Tensor:
    """Rolling guidance filter (Zhang et al., ECCV 2014): removes structure below a scale, keeps larger edges.

    Args:
        lab: (B, 3, H, W) CIELAB, H and W at least 5 * dilation.
        sigma: scale in pixels of what is removed by the first blur.
        steps: joint bilateral iterations that bring large edges back.
        color_sigma: range of the bilateral weight, in Delta-E.
        dilation: spacing of the 5x5 taps; 2 reaches 4 pixels far.
    """
    batch, channels, height, width = lab.shape
    reach = 2 * dilation

    def taps(x: torch.Tensor) -> torch.Tensor:
        padded = F.pad(x, (reach,) * 4, mode="reflect")
        return F.unfold(padded, 5, dilation=dilation).view(batch, channels, 25, height * width)

    offset = torch.arange(-2, 3, device=lab.device, dtype=lab.dtype)
    near = torch.exp(-(offset[:, None] ** 2 + offset**2) / (2 * 1.5**2)).view(1, 1, 25, 1)
    values, guide = taps(lab), gaussian_blur(lab, sigma)
    for _ in range(steps):
        difference = (taps(guide) - guide.flatten(2).unsqueeze(2)).square().sum(1, keepdim=True)
        weight = near * torch.exp(-difference / (2 * color_sigma**2))
        guide = ((values * weight).sum(2) / weight.sum(2)).view(batch, channels, height, width)
    return guide


def di_zenzo_gradient(lab: torch.Tensor) -> torch.Tensor:
    """Largest rate of change over directions and channels (Di Zenzo 1986): (B, 3, H, W) -> (B, 1, H, W), Delta-E/px."""
    padded = F.pad(lab, (1, 1, 1, 1), mode="replicate")
    dx = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    dy = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    xx, yy, xy = dx.square().sum(1), dy.square().sum(1), (dx * dy).sum(1)
    largest = (xx + yy + torch.sqrt((xx - yy).square() + 4 * xy.square() + 1e-6)) / 2
    return torch.sqrt(largest + 1e-6).unsqueeze(1)


def color_view(smooth: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """Bag of colors: `points` (B, N, 3) in Lab and `weights` (B, N) that sum to 1. Every second pixel is taken."""
    points = smooth[:, :, ::2, ::2].flatten(2).transpose(1, 2)
    weights = mask[:, :, ::2, ::2].flatten(1) + 1e-8
    return {"points": points, "weights": weights / weights.sum(1, keepdim=True)}


def limited_detail(lightness: torch.Tensor) -> torch.Tensor:
    """Lightness (B, 1, H, W) without what varies slowly, over 10, large steps softly limited."""
    detail = lightness - gaussian_blur(lightness, DETAIL_SIGMA)
    return DETAIL_LIMIT * torch.tanh(detail / DETAIL_LIMIT) / 10.0


def texture_view(lab: torch.Tensor, smooth: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """Luminance without local mean and contrast.

    Returns:
        `normalized` (B, 1, H, W), of about unit deviation where there is texture;
        `weight` (B, 1, H, W) in [0, 1], low at borders between regions and outside the mask;
        `contrast` (B, 1), the deviation that was divided out, in units of lightness;
        `detail` (B, 1, H, W), the detail before its contrast is divided out, over 10, softly limited.
    """
    lightness = lab[:, :1]
    mean = gaussian_blur(lightness, LOCAL_SIGMA)
    variance = gaussian_blur((lightness - mean).square(), LOCAL_SIGMA)
    weight = mask * torch.exp(-gaussian_blur(di_zenzo_gradient(smooth), 2.0) / 1.5) + 1e-6
    contrast = ((variance * weight).sum((2, 3)) / weight.sum((2, 3)) + 4.0).sqrt()
    return {
        "normalized": (lightness - mean) / torch.sqrt(variance + 4.0),
        "weight": weight,
        "contrast": contrast,
        "detail": limited_detail(lightness),
    }


def shape_view(smooth: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """Where regions of different color meet, and which pixels belong together, whatever the colors are.

    Returns:
        `edges` (B, 1, H, W) in [0, 1]; `structure` (B, 3, H, W) in [-1, 1], see `structure_map`.
    """
    edges = ((di_zenzo_gradient(smooth) - 2.5) / 4.0).clamp(0, 1) * mask
    edges = gaussian_blur(edges, 0.7)
    return {"edges": edges, "structure": structure_map(smooth, mask)}


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


def grow_into(picture: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
    """Fill a hole (B, 1, H, W; 1 is unknown) of a picture (B, C, H, W) smoothly from what surrounds it.

    (Pull-push: Gortler et al., "The Lumigraph", SIGGRAPH 1996. Halve the picture, counting known pixels only, until
    all is known; go back, taking from the smaller picture what is unknown.)
    """
    known = 1 - hole
    shares = F.avg_pool2d(known, 2, ceil_mode=True)
    small = F.avg_pool2d(picture * known, 2, ceil_mode=True) / shares.clamp(min=1e-6)
    unknown = (shares == 0).to(picture)
    if unknown.any() and max(small.shape[2:]) > 1:
        small = grow_into(small, unknown)
    grown = F.interpolate(small, size=picture.shape[2:], mode="bilinear", align_corners=False)
    return torch.where(hole > 0, grown, picture)


def layout_waves(height: int, width: int) -> torch.Tensor:
    """Center against border, above against below, poles against sides: (3, height, width) in [-2, 2]."""
    y, x = (((torch.arange(side) + 0.5) * math.pi / side) for side in (height, width))
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


def draw_tiles(
    detail: torch.Tensor,
    weight: torch.Tensor,
    num_tiles: int,
    generator: torch.Generator | None = None,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Tiles of the detail in random order, (B, num_tiles, TILE, TILE): all that is left of the layout is inside a tile.

    Positions are drawn without replacement, and again from the start when there are too few. Those where `weight` is
    low, at borders between regions, come late: a border is shape, not texture. And they are spread over the picture:
    each further one in the same sixteenth of it is less likely. With a mask only those that lie in it as well as a tile
    can are drawn at all. Without a generator the draw is the same in every call. (Texture from shuffled exemplar
    patches: Efros and Freeman, "Image quilting", SIGGRAPH 2001.)
    """
    tiles = F.unfold(detail, TILE, stride=4)
    calm = F.unfold(weight, TILE, stride=4).mean(1)
    generator = generator or torch.Generator().manual_seed(0)
    uniform = torch.rand(calm.shape[1], generator=generator).to(calm).clamp(1e-6, 1 - 1e-6)
    priority = 8 * torch.log(calm + 1e-4) - torch.log(-torch.log(uniform))  # Gumbel: a draw in proportion to calm^8
    rows, columns = ((side - TILE) // 4 + 1 for side in detail.shape[2:])
    priority = priority - 2 * rank_in_cell(priority, rows, columns)
    inside = torch.ones_like(calm) if mask is None else F.unfold(mask, TILE, stride=4).mean(1)
    allowed = inside >= 0.95 * inside.amax(1, keepdim=True)
    order = priority.where(allowed, -torch.inf).argsort(dim=1, descending=True)
    # Shuffled again, or the first would be the calmest, and references that share the places would lend unlike parts.
    ranks = torch.randperm(num_tiles, generator=generator).to(order.device)
    order = order.gather(1, ranks % allowed.sum(1, keepdim=True))
    tiles = tiles.gather(2, order.unsqueeze(1).expand(-1, TILE * TILE, -1))
    return tiles.transpose(1, 2).unflatten(2, (TILE, TILE))


def rank_in_cell(priority: torch.Tensor, rows: int, columns: int, cells: int = 4) -> torch.Tensor:
    """How many entries of (B, rows * columns) are larger and in the same cell of a grid of `cells` by `cells`."""
    down, across = (torch.arange(count, device=priority.device) * cells // count for count in (rows, columns))
    cell = (down[:, None] * cells + across).flatten()
    size = torch.bincount(cell, minlength=cells * cells)
    first = (size.cumsum(0) - size)[cell]  # the place of a cell's best entry when entries are sorted by cell
    order = (1e3 * cell - priority.float()).argsort(dim=1)
    return order.argsort(dim=1) - first


# ---------------------------------------------------------------------------------------------------------------------
# Branches: the trained CNN parts, y = f(Wx + b)
# ---------------------------------------------------------------------------------------------------------------------
def gabor_bank(size: int = 11) -> torch.Tensor:
    """18 Gabor filters (3 wavelengths, 6 orientations) of zero mean, (18, 1, size, size)."""
    axis = torch.linspace(-1, 1, size)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    filters = []
    for wavelength in (3, 5, 9):
        for orientation in range(6):
            angle = orientation * math.pi / 6
            across, along = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
            envelope = torch.exp(-(across**2 + along**2) / (2 * 0.35**2))
            kernel = envelope * torch.cos(2 * math.pi * across * 5 / wavelength)
            kernel = kernel - kernel.mean()
            filters.append(kernel / kernel.abs().sum())
    return torch.stack(filters).unsqueeze(1)


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


class TextureBranch(nn.Module):
    """Second-order statistics of filter magnitudes at two scales, learned means and deviations, and the contrast."""

    def __init__(self, channels: int):
        super().__init__()
        self.bank = nn.Conv2d(1, 18, 11, padding=5, bias=False)
        self.bank.weight.data.copy_(gabor_bank())
        self.net = nn.Sequential(
            nn.Conv2d(1, channels // 2, 5, padding=2),
            nn.GELU(),
            nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GELU(),
        )
        rows, columns = torch.triu_indices(18, 18)
        self.register_buffer("upper", rows * 18 + columns, persistent=False)
        self.out_features = 2 * 171 + 2 * channels + 1

    def gram(self, normalized: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Weighted Gram matrix of magnitudes (Gatys et al. 2015 on our view), normalised by energy: (B, 171)."""
        magnitude = self.bank(normalized).abs().flatten(2)
        weight = weight.flatten(2)
        gram = torch.einsum("bcn,bdn->bcd", magnitude * weight, magnitude) / weight.sum(2, keepdim=True)
        energy = gram.diagonal(dim1=1, dim2=2).clamp(min=1e-10).sqrt().mean(1).clamp(min=1e-4)
        power = energy.square().clamp(min=torch.finfo(energy.dtype).tiny)  # 1e-8 is zero in half precision
        return (gram / power.view(-1, 1, 1)).flatten(1)[:, self.upper]

    def forward(self, normalized: torch.Tensor, weight: torch.Tensor, contrast: torch.Tensor) -> torch.Tensor:
        coarse, coarse_weight = F.avg_pool2d(normalized, 2), F.avg_pool2d(weight, 2)
        maps = self.net(normalized)
        area = F.interpolate(weight, size=maps.shape[2:], mode="area")
        area = area / area.sum((2, 3), keepdim=True)
        mean = (maps * area).sum((2, 3))
        deviation = ((maps - mean[..., None, None]).square() * area).sum((2, 3)).clamp(min=1e-8).sqrt()
        statistics = [self.gram(normalized, weight), self.gram(coarse, coarse_weight), mean, deviation]
        return torch.cat([*statistics, torch.log(contrast)], 1)


class ShapeBranch(nn.Module):
    """A `transformers` backbone over edges, structure map and region fields; its pyramid is kept, finest first.

    `num_channels` of the backbone says how much of that it takes: 1 is the edges alone, 4 the structure map too, and
    further ones, at most 12, region fields.
    """

    def __init__(self, backbone: dict[str, Any]):
        super().__init__()
        backbone = dict(backbone)
        self.backbone = AutoBackbone.from_config(AutoConfig.for_model(backbone.pop("model_type"), **backbone))
        self.channels = tuple(self.backbone.channels)
        self.num_channels = self.backbone.config.num_channels
        most = 4 + len(FIELD_WAVES)
        if self.num_channels != 1 and not 4 <= self.num_channels <= most:
            raise ValueError(
                f"The shape backbone must take 1 (edges) or 4 to {most} channels (edges, structure map, region "
                f"fields), its `num_channels` is {self.num_channels}."
            )

    def forward(self, edges: torch.Tensor, structure: torch.Tensor) -> tuple[torch.Tensor, ...]:
        maps = [edges]
        if self.num_channels >= 4:
            maps.append(structure)
        if self.num_channels > 4:
            fields = region_fields(edges.float(), self.num_channels - 4)
            maps.append(F.interpolate(fields, size=edges.shape[2:]).to(edges.dtype))
        return tuple(self.backbone(torch.cat(maps, 1)).feature_maps)


# ---------------------------------------------------------------------------------------------------------------------
# Guidance: distances of a picture from features, differentiable and cheap
# ---------------------------------------------------------------------------------------------------------------------
def color_directions() -> torch.Tensor:
    """24 directions in Lab, always the same: (24, 3), in orthonormal triples."""
    turns = torch.randn(8, 3, 3, generator=torch.Generator().manual_seed(0))
    return torch.linalg.qr(turns)[0].flatten(0, 1)


def patch_filters() -> torch.Tensor:
    """64 random projections of patches, of zero mean and unit norm: (64, 1, GUIDE_PATCH, GUIDE_PATCH)."""
    filters = torch.randn(64, 1, GUIDE_PATCH, GUIDE_PATCH, generator=torch.Generator().manual_seed(0))
    filters = filters - filters.mean((2, 3), keepdim=True)
    return filters / filters.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def patch_responses(detail: torch.Tensor, stride: int = 1) -> torch.Tensor:
    """Detail (B, 1, H, W) of any contrast to projections of its patches, (B, 64, N)."""
    even = detail / torch.sqrt(gaussian_blur(detail.square(), LOCAL_SIGMA) + 0.04)
    return F.conv2d(even, patch_filters().to(detail), stride=stride).flatten(2)


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


def structure_basis(structure: torch.Tensor) -> torch.Tensor:
    """What depends smoothly on a structure map (B, 3, H, W) alone: polynomials of degree 2, (B, 10, N)."""
    x, y, z = structure.flatten(2).unbind(1)
    return torch.stack([torch.ones_like(x), x, y, z, x * x, y * y, z * z, x * y, y * z, z * x], 1)


def unexplained_share(lab: torch.Tensor, basis: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """The part of the variance of colors that no function in the span of a basis explains, in [0, 1]: (B,).

    (1 minus the coefficient of determination of a linear regression. Whatever the colors of the regions are, it is
    small where they follow the regions.)

    Args:
        lab: (B, 3, H, W); basis: (1 or B, K, N) that begins with a constant; shares: (1 or B, 1, N) that sum to 1.
    """
    root = shares.sqrt()
    colors = (gaussian_blur(lab, 1.5).flatten(2) * root).transpose(1, 2)
    with torch.no_grad():  # of what is given alone
        orthonormal = torch.linalg.qr((basis * root).transpose(1, 2))[0]
    explained = (orthonormal.transpose(1, 2) @ colors).square()
    mean = (colors * root.transpose(1, 2)).sum(1, keepdim=True).square().sum((1, 2))
    variance = colors.square().sum((1, 2)) - mean
    return 1 - (explained.sum((1, 2)) - mean) / (variance + 1e-3)


# ---------------------------------------------------------------------------------------------------------------------
# Reading references
# ---------------------------------------------------------------------------------------------------------------------
_HEX = re.compile(r"^#([0-9a-fA-F]{6})(?::([0-9]*\.?[0-9]+))?$")


def is_palette(reference: Any) -> bool:
    """Whether a reference is a palette of hex colors: a non-empty list of strings that begin with "#"."""
    return (
        isinstance(reference, (list, tuple))
        and len(reference) > 0
        and all(isinstance(entry, str) and entry.startswith("#") for entry in reference)
    )


def parse_palette(palette: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """`["#ff8800:3", "#224466"]` -> RGB (N, 3) in [0, 1] and weights (N,) that sum to 1.

    Raises:
        ValueError: for an entry that is not `#rrggbb` or `#rrggbb:weight` with a positive weight.
    """
    colors, weights = [], []
    for entry in palette:
        match = _HEX.match(entry)
        weight = float(match.group(2) or 1.0) if match else 0.0
        if weight <= 0 or not math.isfinite(weight):
            raise ValueError(
                f'A palette entry must be "#rrggbb" or "#rrggbb:weight" with a positive weight, got {entry!r}.'
            )
        colors.append([int(match.group(1)[i : i + 2], 16) / 255 for i in (0, 2, 4)])
        weights.append(weight)
    weights = torch.tensor(weights)
    return torch.tensor(colors), weights / weights.sum()


def is_card(image: Any) -> bool:
    """Whether a reference is the path of a granularity card, by its ending."""
    return isinstance(image, (str, os.PathLike)) and os.fspath(image).lower().endswith(CARD)


def read_card(path: str | os.PathLike) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """Metadata ("granularity", "encoder", "source") and tensors of a granularity card.

    Raises:
        ValueError: if there is no such file, or it is no card.
    """
    name = repr(os.fspath(path))
    try:
        with safe_open(path, "pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 (no dict)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"There is no readable granularity card at {name}: {error}.") from error
    if metadata.get("format") != CARD_FORMAT:
        raise ValueError(f"{name} is no granularity card. `MGEncoder.save_card` or `mg-diffusion encode` writes them.")
    return metadata, tensors


def read_weight(fields: dict[str, Any]) -> float:
    """The weight of a reference given as a dict; 1 where none is named."""
    try:
        weight = float(fields.get("weight", 1.0))
    except (TypeError, ValueError):
        weight = math.nan
    if not weight > 0 or not math.isfinite(weight):
        raise ValueError(f"A reference's weight must be a positive number, got {fields['weight']!r}.")
    return weight


def _open_picture(path: str | os.PathLike) -> PIL.Image.Image:
    """The decoded picture of a file, upright."""
    name = repr(os.fspath(path))
    try:
        with warnings.catch_warnings():
            # Pillow warns near its own limit; ours is below that and refused before anything is decoded.
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            opened = PIL.Image.open(path)
    except FileNotFoundError as error:
        hint = " Hex colors are given as a list of their own, and only for color." if "#" in name else ""
        raise ValueError(f"There is no reference picture at {name}.{hint}") from error
    except PIL.Image.DecompressionBombError as error:
        raise ValueError(f"{name} has too many pixels (at most {MAX_PIXELS:,}). Shrink it first.") from error
    except Exception as error:  # decoders of damaged files raise errors of any type
        raise _unreadable(name, error) from error
    with opened:
        return _upright(opened, name)


def _unreadable(name: str, error: Exception) -> ValueError:
    return ValueError(f"{name} cannot be read as a picture: {error}. It may be truncated or of another format.")


def _upright(image: PIL.Image.Image, name: str) -> PIL.Image.Image:
    """Decode a picture that is not too large and apply its EXIF orientation."""
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(
            f"A reference has {image.width} x {image.height} pixels; at most {MAX_PIXELS:,} are accepted. "
            f"Shrink it first, for example with `image.thumbnail((2048, 2048))`."
        )
    try:
        return PIL.ImageOps.exif_transpose(image)
    except Exception as error:  # decoders of damaged files raise errors of any type
        raise _unreadable(name, error) from error


def _pil_to_rgb(image: PIL.Image.Image) -> torch.Tensor:
    """A PIL image to (3, H, W) in [0, 1]; only modes with a well-defined conversion."""
    if image.mode.startswith("I;16"):
        gray = torch.from_numpy(np.asarray(image).astype(np.float32) / 65535)
        return gray.expand(3, -1, -1).clone()
    color_key = image.mode in ("RGB", "L", "1", "P") and "transparency" in image.info
    if color_key or image.mode in ("RGBA", "LA", "PA", "RGBa"):
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
        if alpha.size and alpha.min() < 255:
            raise ValueError(
                f"A reference of mode {image.mode} has transparent pixels, whose color is not defined. Composite it "
                f"on a background, or pass its alpha as the mask: "
                f'{{"image": image.convert("RGB"), "mask": image.convert("RGBA").getchannel("A").point(lambda a: 255 * (a > 127))}}.'
            )
        image = image.convert("RGBA").convert("RGB")
    if image.mode not in ("RGB", "L", "1", "P"):
        raise ValueError(
            f"A reference of mode {image.mode} has no well-defined conversion to RGB here; accepted are RGB, L, 1, P, "
            f"16-bit gray and opaque RGBA, LA. Convert it with its color profile first, for example with "
            f"PIL.ImageCms, or `image.convert('RGB')` if that is what you want."
        )
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float() / 255


def _array_to_rgb(array: np.ndarray | torch.Tensor) -> torch.Tensor:
    """numpy (H, W, 3) or (H, W), or torch (3, H, W); uint8 or float in [0, 1] -> (3, H, W) in [0, 1]."""
    is_numpy = isinstance(array, np.ndarray)
    layout = "numpy (height, width, 3) or (height, width)" if is_numpy else "torch (3, height, width)"
    is_gray = is_numpy and array.ndim == 2
    if not is_gray and (array.ndim != 3 or array.shape[2 if is_numpy else 0] != 3):
        raise ValueError(
            f"A reference array must be {layout}, got shape {tuple(array.shape)}. Pass several references as a list, "
            f"not as one batched array."
        )
    is_bytes = array.dtype == (np.uint8 if is_numpy else torch.uint8)
    is_float = array.dtype.kind == "f" if is_numpy else array.is_floating_point()
    if not (is_bytes or is_float):
        raise ValueError(
            f"A reference array must be uint8 or floating point in [0, 1], got {array.dtype}. Bring it to [0, 1] as "
            f"float32 first."
        )
    if is_numpy:
        # A copy: torch takes neither foreign byte orders nor, without a warning, read-only memory.
        array = torch.from_numpy(np.array(array, dtype=np.uint8 if is_bytes else np.float32, order="C"))
        tensor = (array.unsqueeze(2).expand(-1, -1, 3) if is_gray else array).permute(2, 0, 1)
    else:
        tensor = array.detach()
    if is_bytes:
        return tensor.float() / 255
    tensor = tensor.float()
    if tensor.numel() and not torch.isfinite(tensor).all():
        raise ValueError("A reference array holds NaN or infinite values. Clean it before passing it.")
    if tensor.numel() and (tensor.min() < 0 or tensor.max() > 1):
        raise ValueError(
            f"A floating-point reference must lie in [0, 1], got [{tensor.min():.3g}, {tensor.max():.3g}]. "
            f"Images in [-1, 1] need `(image + 1) / 2`, images in [0, 255] need `image / 255`."
        )
    return tensor


def read_image(image: Any) -> torch.Tensor:
    """One picture to RGB (3, H, W) in [0, 1], float32 on the CPU.

    Args:
        image: PIL image, path, numpy (H, W, 3) or (H, W), or torch (3, H, W); uint8 or float in [0, 1].

    Raises:
        ValueError: for another type, rank, range, mode or size, for a file that is no picture; the message says what
            to do.
    """
    if isinstance(image, (str, os.PathLike)):
        rgb = _pil_to_rgb(_open_picture(image))
    elif isinstance(image, PIL.Image.Image):
        rgb = _pil_to_rgb(_upright(image, "A reference"))
    elif isinstance(image, (np.ndarray, torch.Tensor)):
        rgb = _array_to_rgb(image).cpu()
    else:
        raise ValueError(
            f"A reference must be a PIL image, a path, a numpy array, a torch tensor, a list of hex colors (color "
            f'only), or a dict {{"image", "mask", "weight", "region"}}; got {type(image).__name__}.'
        )
    height, width = rgb.shape[1:]
    if height * width == 0:
        raise ValueError(f"A reference has no pixels: its size is {width} x {height}.")
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise ValueError(
            f"A reference of {width} x {height} pixels is too long and narrow (at most {MAX_ASPECT:.0f}:1). Crop it."
        )
    return rgb


def read_mask(mask: Any, height: int, width: int) -> torch.Tensor:
    """A mask inside a reference to (1, H, W) of zeros and ones.

    Args:
        mask: PIL image, numpy (H, W) or torch (H, W) or (1, H, W): bool, 0/1 or 0/255; true selects.

    Raises:
        ValueError: if its size is not (height, width), if it holds other values, or selects nothing.
    """
    if isinstance(mask, PIL.Image.Image):
        array = np.asarray(mask.convert("L"))
    elif isinstance(mask, torch.Tensor):
        array = mask.detach().float().cpu().numpy()
    else:
        array = mask
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "buif":
        raise ValueError(
            f"A reference's mask must be a PIL image or a numpy or torch array of numbers, got {type(mask).__name__}."
        )
    array = array[0] if array.ndim == 3 and array.shape[0] == 1 else array
    if array.shape != (height, width):
        raise ValueError(
            f"A reference's mask must have the size of the reference, (height, width) = {(height, width)}, got "
            f"{array.shape}. Resize it with nearest-neighbor interpolation."
        )
    values = np.unique(array.astype(np.float32))
    if not set(values.tolist()) <= {0.0, 1.0, 255.0} or {1.0, 255.0} <= set(values.tolist()):
        raise ValueError(
            f"A reference's mask must be binary (bool, 0 and 1, or 0 and 255), got values {values[:6].tolist()}. "
            f"Threshold it first, for example `mask > 127`."
        )
    if values.max() == 0:
        raise ValueError("A reference's mask selects nothing (it is all zero). White is what is borrowed.")
    return torch.from_numpy((array > 0).astype(np.float32)).unsqueeze(0)


def read_region(region: Any, size: tuple[int, int]) -> torch.Tensor:
    """Where in the output a reference counts, and how much: (1, 1, *size) in [0, 1].

    Args:
        region: a box (left, top, right, bottom) in fractions of the output, or a mask of any size, laid over the
            output: PIL image, path, numpy (H, W) or torch (H, W); bool, uint8 or floating point in [0, 1]. What is
            gray counts in part.
        size: (height, width).

    Raises:
        ValueError: for another type, other values, or a region without any area.
    """
    if isinstance(region, (tuple, list)):
        mask = _box_mask(region, size)
    else:
        mask = _gray_mask(region)
    if not mask.any():
        raise ValueError("A reference's region is empty (all black). White is where the reference counts.")
    return F.interpolate(mask[None, None], size=size, mode="area")


def _box_mask(box: Sequence[float], size: tuple[int, int]) -> torch.Tensor:
    """A box in fractions as a mask of `size`; pixels that it cuts count in part."""
    try:
        left, top, right, bottom = (float(value) for value in box)
    except (TypeError, ValueError) as error:
        raise ValueError(f"A region is a mask or a box (left, top, right, bottom), got {box!r}.") from error
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise ValueError(
            f"A region's box is (left, top, right, bottom) in fractions of the output, with 0 <= left < right <= 1 and "
            f"0 <= top < bottom <= 1; got {tuple(box)}."
        )
    down, across = (
        (end * side - torch.arange(side)).clamp(0, 1) - (start * side - torch.arange(side)).clamp(0, 1)
        for start, end, side in ((top, bottom, size[0]), (left, right, size[1]))
    )
    return down[:, None] * across


def _gray_mask(region: Any) -> torch.Tensor:
    """A mask with gray levels as (H, W) in [0, 1]."""
    if isinstance(region, (str, os.PathLike)):
        region = _open_picture(region)
    if isinstance(region, PIL.Image.Image):
        return _pil_to_rgb(_upright(region, "A region")).mean(0)
    array = region.detach().cpu().numpy() if isinstance(region, torch.Tensor) else region
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "buf" or array.ndim != 2 or not array.size:
        raise ValueError(
            f"A region must be a box, a PIL image, a path, or an array (height, width) of bool, uint8 or floating "
            f"point, got {getattr(array, 'shape', type(region).__name__)}."
        )
    mask = torch.from_numpy(array.astype(np.float32)) / (255 if array.dtype.kind == "u" else 1)
    if not (mask.min() >= 0 and mask.max() <= 1):
        raise ValueError(f"A region in floating point must lie in [0, 1], got [{mask.min():.3g}, {mask.max():.3g}].")
    return mask


def lay_into(x: torch.Tensor, region: torch.Tensor) -> torch.Tensor:
    """A map (1, C, h, w), resized to the bounding box of a region (1, 1, H, W) and zero around it: (1, C, H, W)."""
    rows, columns = (region[0, 0].amax(axis).nonzero().flatten().tolist() for axis in (1, 0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    size = (bottom - top, right - left)
    laid = F.interpolate(x, size=size, mode="bilinear", antialias=True, align_corners=False)
    height, width = region.shape[2:]
    return F.pad(laid, (left, width - right, top, height - bottom))


# ---------------------------------------------------------------------------------------------------------------------
class MGEncoder(ModelMixin, ConfigMixin):
    """Reads each granularity of reference images through its own view and its own CNN.

    Args:
        granularities: names this encoder knows, of "color", "texture", "shape".
        sample_size: working size in pixels. A reference is resized to the area `sample_size ** 2`, aspect kept.
        color_channels, texture_channels: widths of the small CNNs.
        shape_backbone: configuration of the `transformers` backbone of the shape branch (`model_type` and its
            arguments; `num_channels` 1 to 12, see `ShapeBranch`).
        num_tiles: texture tiles drawn from each reference.

    Features (`encode`, `forward`), for a batch B:
        color: `vector` (B, 245 + color_channels), `palette` (B, 256, 3) in Lab
        texture: `vector` (B, 343 + 2 * texture_channels), `tiles` (B, num_tiles, 24, 24)
        shape: `vector` (B, 4 * last backbone width), `map_0`, `map_1`, ... (B, C_l, h_l, w_l), finest first,
            `structure` (B, 3, h, w)
    """

    _auto_class = "AutoModel"  # what `register_for_auto_class` sets

    @register_to_config
    def __init__(
        self,
        granularities: tuple[str, ...] = GRANULARITIES,
        sample_size: int = 64,
        color_channels: int = 64,
        texture_channels: int = 64,
        shape_backbone: dict[str, Any] | None = None,
        num_tiles: int = 64,
    ):
        super().__init__()
        unknown = [name for name in granularities if name not in GRANULARITIES]
        if unknown or not granularities:
            raise ValueError(f"granularities must be some of {GRANULARITIES}, got {tuple(granularities)}.")
        if shape_backbone is None:
            shape_backbone = {
                "model_type": "convnextv2",
                "num_channels": 12,
                "patch_size": 2,
                "hidden_sizes": [32, 64, 96],
                "num_stages": 3,
                "depths": [1, 2, 2],
                "out_features": ["stage1", "stage2", "stage3"],
            }
            self.register_to_config(shape_backbone=shape_backbone)
        builders = {
            "color": lambda: ColorBranch(color_channels),
            "texture": lambda: TextureBranch(texture_channels),
            "shape": lambda: ShapeBranch(shape_backbone),
        }
        self.branches = nn.ModuleDict({name: builders[name]() for name in granularities})

    # -- saving and loading -------------------------------------------------------------------------------------------
    def save_config(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """As in `ConfigMixin`, with the code beside it: `AutoModel` loads the folder where no package is installed."""
        os.makedirs(save_directory, exist_ok=True)
        shutil.copy(inspect.getsourcefile(type(self)), save_directory)
        super().save_config(save_directory, **kwargs)

    @classmethod
    def extract_init_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> tuple:
        """As in `ConfigMixin`; that `config_dict` names the file of the class for `AutoModel` is no setting."""
        settings = {name: value for name, value in config_dict.items() if name != "auto_map"}
        return super().extract_init_dict(settings, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> "MGEncoder":
        """As `ModelMixin.from_pretrained`, but weights that are missing or foreign are an error, not a warning.

        Raises:
            ValueError: if the folder or Hub repository is missing or damaged, or holds another model.
        """
        place = "/".join(str(part) for part in (pretrained_model_name_or_path, kwargs.get("subfolder")) if part)
        remedy = (
            f"An {cls.__name__} is a folder written by `save_pretrained`, with config.json and "
            f"diffusion_pytorch_model.safetensors; check the path and `subfolder`, or copy or download it again."
        )
        with_info = kwargs.pop("output_loading_info", False)
        try:
            model, info = super().from_pretrained(pretrained_model_name_or_path, output_loading_info=True, **kwargs)
        except torch.OutOfMemoryError:
            raise
        except (OSError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"Cannot load {cls.__name__} from {place!r}: {error}\n{remedy}") from error
        missing, unexpected = (sorted(info.get(key, [])) for key in ("missing_keys", "unexpected_keys"))
        if missing or unexpected:
            raise ValueError(
                f"The weights in {place!r} are not those of this {cls.__name__}: {len(missing)} are missing "
                f"({', '.join(missing[:2])}), {len(unexpected)} are unknown ({', '.join(unexpected[:2])}). {remedy}"
            )
        return (model, info) if with_info else model

    @classmethod
    def from_unet(cls, unet: nn.Module, **config: Any) -> "MGEncoder":
        """An untrained encoder for pictures of a UNet's native size: two pixels a latent cell, at most 128 a side.

        Args:
            unet: a `UNet2DConditionModel`.
            config: arguments of the constructor, in place of what would be chosen.

        Raises:
            ValueError: if the UNet does not tell its native size and no `sample_size` is given.
        """
        native = unet.config.sample_size
        native = max(native) if isinstance(native, (tuple, list)) else native
        if native is None and "sample_size" not in config:
            raise ValueError(
                "The UNet's configuration has no sample_size, the side of its latents. Give the encoder's working size "
                "in pixels: MGEncoder.from_unet(unet, sample_size=128)."
            )
        # The views were calibrated at 64 pixels; what is much finer they would not take for texture.
        return cls(**{"sample_size": min(2, max(1, 128 // (native or 128))) * (native or 128), **config})

    @property
    def vector_sizes(self) -> dict[str, int]:
        """Length of the pooled vector of each granularity."""
        sizes = {}
        for name, branch in self.branches.items():
            sizes[name] = 4 * branch.channels[-1] if name == "shape" else branch.out_features
        return sizes

    @property
    def map_channels(self) -> tuple[int, ...]:
        """Widths of the shape pyramid, finest first; empty without shape."""
        return self.branches["shape"].channels if "shape" in self.branches else ()

    # -- step 1: preprocess -------------------------------------------------------------------------------------------
    def load(self, reference: Any) -> dict[str, torch.Tensor]:
        """Read one reference and bring it to the working size.

        Args:
            reference: what `read_image` takes, or `{"image": ..., "mask": ..., "weight": ..., "region": ...}`.

        Returns:
            `rgb` (1, 3, h, w) in [0, 1], `mask` (1, 1, h, w) in [0, 1], `weight` float.
        """
        fields = reference if isinstance(reference, dict) else {"image": reference}
        extra = set(fields) - {"image", "mask", "weight", "region"}
        if extra or "image" not in fields:
            raise ValueError(
                f'A reference dict has the keys "image" and, optional, "mask", "weight" and "region"; got '
                f"{list(fields)}."
            )
        weight = read_weight(fields)
        rgb = read_image(fields["image"]).unsqueeze(0)
        height, width = rgb.shape[2:]
        mask = fields.get("mask")
        mask = torch.ones(1, 1, height, width) if mask is None else read_mask(mask, height, width).unsqueeze(0)
        size = self._working_size(height, width)
        if size != (height, width):
            rgb = F.interpolate(rgb, size=size, mode="bicubic", antialias=True).clamp(0, 1)
            mask = F.interpolate(mask, size=size, mode="area")
        if mask[:, :, ::2, ::2].sum() < 1:  # what the color view takes; the rest would be noise
            raise ValueError(
                f"A reference's mask selects too little to read: {mask.sum():.2g} pixels of the working size "
                f"{size[1]} x {size[0]}. Crop the picture around the mask first, or select more."
            )
        return {"rgb": rgb, "mask": mask, "weight": weight}

    def _working_size(self, height: int, width: int) -> tuple[int, int]:
        """Sides of the working picture: the area of `sample_size ** 2`, multiples of 8, at least one tile."""
        scale = self.config.sample_size / math.sqrt(height * width)
        sides = [max(8 * round(side * scale / 8), 8 * -(-TILE // 8)) for side in (height, width)]
        return sides[0], sides[1]

    # -- step 2: extract ----------------------------------------------------------------------------------------------
    def views(
        self,
        rgb: torch.Tensor,
        mask: torch.Tensor | None = None,
        granularities: Sequence[str] | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, dict[str, torch.Tensor]]:
        """The views of pictures: rgb (B, 3, H, W) in [0, 1], mask (B, 1, H, W) -> {granularity: {name: tensor}}."""
        mask = torch.ones_like(rgb[:, :1]) if mask is None else mask
        lab = rgb_to_lab(rgb)
        smooth = edge_preserving_smooth(lab)
        views = {}
        for name in self.branches if granularities is None else granularities:
            if name == "color":
                views[name] = color_view(smooth, mask)
            elif name == "texture":
                view = texture_view(lab, smooth, mask)
                detail = view.pop("detail") * mask
                view["tiles"] = draw_tiles(detail, view["weight"], self.config.num_tiles, generator, mask)
                views[name] = view
            else:
                views[name] = shape_view(smooth, mask)
        return views

    def forward(self, views: dict[str, dict[str, torch.Tensor]]) -> dict[str, dict[str, torch.Tensor]]:
        """Views of a batch to features of that batch; see the class for names and shapes."""
        features = {}
        for name, view in views.items():
            if name == "texture":
                view = dict(view)
                tiles = view.pop("tiles")
                features[name] = {"vector": self.branches[name](**view), "tiles": tiles}
            elif name == "color":
                features[name] = {"vector": self.branches[name](**view), "palette": draw_palette(**view)}
            else:
                maps = self.branches[name](**view)
                vector = F.adaptive_avg_pool2d(maps[-1], 2).flatten(1)
                features[name] = {"vector": vector, **{f"map_{level}": m for level, m in enumerate(maps)}}
                features[name]["structure"] = view["structure"]
        return features

    # -- step 4: minimise the distance of features, at inference ------------------------------------------------------
    @torch.no_grad()
    def guidance_targets(self, features: dict[str, dict[str, torch.Tensor]], size: tuple[int, int]) -> dict[str, Any]:
        """What `feature_distances` compares pictures of `size` (height, width) with; made once for all steps.

        Args:
            features: from `encode`, of references without regions.
        """
        targets = {}
        for name, parts in features.items():
            if name == "color":
                targets[name] = quantiles(color_directions().to(parts["palette"]) @ parts["palette"].transpose(1, 2))
            elif name == "texture":
                responses = patch_responses(parts["tiles"].flatten(0, 1).unsqueeze(1))
                targets[name] = quantiles(responses.unflatten(0, parts["tiles"].shape[:2]).transpose(1, 2).flatten(2))
            else:
                structure = F.adaptive_avg_pool2d(parts["structure"], self._working_size(*size))
                targets[name] = structure_basis(structure)
        return targets

    def feature_distances(
        self, image: torch.Tensor, targets: dict[str, Any], mask: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """How far pictures are from features, by granularity: what feature guidance follows down, differentiable.

        Color: sliced Wasserstein distance to the palette (as SW-Guidance, Lobashev et al., arXiv 2503.19034). Texture:
        the same of small patches of luminance detail at equal contrast (as GPDM, Elnekave and Weiss, arXiv 2203.11862).
        Shape: the share of the color variance that the reference's structure map does not explain.

        Args:
            image: (B, 3, H, W) in [0, 1], values beyond are clamped.
            targets: from `guidance_targets`, for this size.
            mask: (B, 1, H, W) in [0, 1], where the picture counts; everywhere if not given.

        Returns:
            {granularity: (B,)}, at least 0.
        """
        size = self._working_size(*image.shape[2:])
        mask = torch.ones_like(image[:1, :1]) if mask is None else mask
        if image.shape[2:] != size:
            image = F.interpolate(image, size=size, mode="bilinear", antialias=True, align_corners=False)
            mask = F.adaptive_avg_pool2d(mask, size)
        # Clamped, with the gradient of what is not: what lies beyond can be pulled back.
        lab = rgb_to_lab(image + (image.clamp(0, 1) - image).detach())

        def shares(weights: torch.Tensor) -> torch.Tensor:
            weights = weights.flatten(2) + 1e-8
            return weights / weights.sum(2, keepdim=True)

        found = {}
        if "color" in targets:
            colors = F.avg_pool2d(lab, 2).flatten(2)
            found["color"] = transport_cost(
                color_directions().to(colors) @ colors, targets["color"], shares(F.avg_pool2d(mask, 2))
            )
        if "texture" in targets:
            inside = F.avg_pool2d(mask, GUIDE_PATCH, stride=2)
            responses = patch_responses(limited_detail(lab[:, :1]), 2)
            found["texture"] = transport_cost(responses, targets["texture"], shares(inside))
        if "shape" in targets:
            found["shape"] = unexplained_share(lab, targets["shape"], shares(mask))
        return found

    @torch.no_grad()
    def encode(
        self, references: dict[str, Any], size: tuple[int, int], batch_size: int = 1
    ) -> dict[str, dict[str, torch.Tensor]]:
        """Features of references, ready for `MGAdapter`.

        Args:
            references: {granularity: reference, list of references, or list of such lists}. A reference is what
                `load` takes, or the path of a card (`save_card`). A list is averaged by weight and serves the whole
                batch; a list of `batch_size` lists gives each sample its own. A list of hex colors is one palette
                (color only). `None` leaves a granularity out. References with a "region" (`read_region`) count there;
                what regions leave goes to those without one.
            size: (height, width) of the shape map in encoder pixels, `MGAdapter.map_size(latent height, width)`.
            batch_size: number of samples the lists of lists must match.

        Returns:
            Features whose batch dimension is 1 (shared by all samples) or `batch_size`. With regions, a granularity has
            a list of them, each with its `region` (B, 1, *size); those of a place sum to at most 1.

        Raises:
            ValueError: for an unknown granularity, an unreadable reference, or a wrong number of lists or regions.
        """
        if not isinstance(references, dict):
            raise ValueError(
                f'References are given by granularity, for example {{"color": image}}; got {type(references).__name__}.'
            )
        features = {}
        for name, reference in references.items():
            if name not in self.branches:
                raise ValueError(f"Unknown granularity {name!r}; this encoder knows {tuple(self.branches)}.")
            if reference is None:
                continue
            rows = [self._encode_row(name, row, size) for row in self._rows(name, reference, batch_size)]
            kinds = {tuple("region" in parts for parts in row) for row in rows}
            if len(kinds) > 1:
                raise ValueError(
                    f"The {name} references of all samples of a batch need as many regions, got "
                    f"{sorted({len(row) if 'region' in row[0] else 0 for row in rows})}. Call one by one."
                )
            parts = [
                {key: torch.cat([part[key] for part in same]) for key in same[0]} for same in zip(*rows, strict=True)
            ]
            features[name] = parts if "region" in parts[0] else parts[0]
        return features

    @staticmethod
    def fill_smoothly(image: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
        """The picture (B, 3, H, W) with its hole (B, 1, H, W; 1 is unknown) filled from what surrounds it."""
        return grow_into(image, hole)

    @torch.no_grad()
    def encode_context(
        self, image: torch.Tensor, hole: torch.Tensor, names: Sequence[str], size: tuple[int, int]
    ) -> dict[str, dict[str, torch.Tensor]]:
        """Features of what surrounds a hole, so that what is painted into it goes on with its surroundings.

        Color and texture are those of the rest of the picture. Shape is that of the picture with the hole filled
        smoothly, with a `turn` (B, 3, 3) that keeps the colors of another palette where such colors are, see
        `MGAdapter.vary`. With color asked for as well, the filled picture itself is the `sketch` (B, 3, *size) in Lab
        of `MGAdapter.sketch`.

        Args:
            image: (B, 3, H, W) in [0, 1]; hole: (B, 1, H, W), 1 is unknown; no picture may be all hole.
            names: the granularities asked for.
            size: as in `encode`.
        """
        count, known = len(image), hole < 0.5
        filled = grow_into(image, hole)
        # Of the filled picture, because the views smooth across the border of the hole.
        rest = [[{"image": one, "mask": mask}] for one, mask in zip(filled, known, strict=True)]
        given = {name: [[one] for one in filled] if name == "shape" else rest for name in names}
        features = self.encode(given, size, count)
        if "shape" in features:
            structure = features["shape"]["structure"]
            lab = rgb_to_lab(F.interpolate(filled, size=size, mode="bilinear", antialias=True, align_corners=False))
            if "color" in features:
                features["shape"]["sketch"] = lab.to(structure)
            weight = F.adaptive_avg_pool2d(known.float(), size)
            turn = nearest_turn(
                structure.flatten(2), lab.to(structure.device).flatten(2), weight.to(structure.device).flatten(2)
            )
            features["shape"]["turn"] = turn
        return features

    def _rows(self, name: str, reference: Any, batch_size: int) -> list[list[Any]]:
        """Normalise the accepted forms to one list of references per row of the features."""
        if not isinstance(reference, (list, tuple)) or is_palette(reference):
            return [[reference]]
        if len(reference) == 0:
            raise ValueError(f"The list of {name} references is empty. Leave the granularity out instead.")
        nested = [isinstance(entry, (list, tuple)) and not is_palette(entry) for entry in reference]
        if not any(nested):
            return [list(reference)]
        if not all(nested) or len(reference) != batch_size or not all(len(entry) for entry in reference):
            raise ValueError(
                f"{name} references given as a list of lists need one non-empty list for each of the {batch_size} "
                f"prompts, got {len(reference)} entries of which {sum(nested)} are lists."
            )
        return [list(entry) for entry in reference]

    def _encode_row(self, name: str, row: list[Any], size: tuple[int, int]) -> list[dict[str, torch.Tensor]]:
        """The average of what one sample has for the whole picture, or one entry for each of its regions."""
        given = [item.get("region") if isinstance(item, dict) else None for item in row]
        regions = [None if region is None else read_region(region, size) for region in given]
        encoded = [(self._encode_one(name, item, size, at), at) for item, at in zip(row, regions, strict=True)]
        rest = [one for one, region in encoded if region is None]
        if len(rest) == len(row):
            return [self._average(rest)]
        regional = [(*one, region) for one, region in encoded if region is not None]
        parts = [parts for parts, _, _ in regional]
        covered = sum(region for _, _, region in regional)
        # Where regions overlap they share the place out by weight.
        weighted = [weight * region for _, weight, region in regional]
        total = sum(weighted).clamp(min=1e-8)
        shares = [one / total * covered.clamp(max=1) for one in weighted]
        if rest:
            parts, shares = [*parts, self._average(rest)], [*shares, (1 - covered).clamp(min=0)]
        return [{**part, "region": share.to(self.device)} for part, share in zip(parts, shares, strict=True)]

    def _encode_one(
        self, name: str, reference: Any, size: tuple[int, int], region: torch.Tensor | None
    ) -> tuple[dict[str, torch.Tensor], float]:
        """Features of one reference, of shape laid into its region if it has one (`read_region`), and its weight."""
        fields = reference if isinstance(reference, dict) else {"image": reference}
        if is_card(fields.get("image")):
            kept, weight = self._of_card(name, fields), read_weight(fields)
        else:
            kept, weight = self._kept(name, reference)
        if name != "shape":
            return {key: value.to(self.device, self.dtype) for key, value in kept.items()}, weight
        # The shape is laid out over the picture to be made, or over its region there, whatever its aspect ratio.
        region = torch.ones(1, 1, *size) if region is None else region
        laid = {key: lay_into(value.to(self.device), region) for key, value in kept.items()}
        return self({name: {key: value.to(self.dtype) for key, value in laid.items()}})[name], weight

    def _kept(self, name: str, reference: Any) -> tuple[dict[str, torch.Tensor], float]:
        """What a card keeps of a reference, and its weight: features of color and texture, the view of shape."""
        fields = reference if isinstance(reference, dict) else {"image": reference}
        if is_palette(fields.get("image")):
            if name != "color":
                raise ValueError(f"Hex colors describe a palette: they serve as color references, not as {name}.")
            if fields.get("mask") is not None:
                raise ValueError("A palette takes a weight and a region, but no mask: it holds no picture to mask.")
            colors, weights = parse_palette(fields["image"])
            points = rgb_to_lab(colors.T.view(1, 3, -1, 1)).flatten(2).transpose(1, 2)
            view, weight = {"points": points, "weights": weights.unsqueeze(0)}, read_weight(fields)
        else:
            loaded = self.load(reference)
            view = self.views(loaded["rgb"].to(self.device), loaded["mask"].to(self.device), [name])[name]
            weight = loaded["weight"]
        if name == "shape":
            return view, weight
        return self({name: {key: value.to(self.device, self.dtype) for key, value in view.items()}})[name], weight

    # -- granularity cards --------------------------------------------------------------------------------------------
    @torch.no_grad()
    def save_card(self, path: str | os.PathLike, granularity: str, reference: Any) -> None:
        """Write a granularity card: what one granularity of a reference is to this encoder, without the picture.

        The path of a card serves wherever that of a picture does, and gives the same output (bit for bit where the
        encoder that reads it computes in the precision of the one that wrote it); so a list of cards is their average,
        `[{"image": "a.safetensors", "weight": 0.3}, {"image": "b.safetensors", "weight": 0.7}]` a mix.
        A color card holds 256 colors, a texture card shuffled tiles, a shape card edges and regions; each has a few
        to a few hundred KB.

        Args:
            path: ends in .safetensors. It is replaced in one step.
            reference: a picture, a dict {"image", "mask"} or, for color, a palette, as in `encode`; not a list of them.

        Raises:
            ValueError: for another ending, an unknown granularity, or a reference that cannot be read.
        """
        if not is_card(path):
            raise ValueError(f"A granularity card is a {CARD} file, got {os.fspath(path)!r}.")
        if granularity not in self.branches:
            raise ValueError(f"Unknown granularity {granularity!r}; this encoder knows {tuple(self.branches)}.")
        image = reference.get("image") if isinstance(reference, dict) else reference
        if is_card(image):
            raise ValueError(f"{os.fspath(image)!r} is a card already; copy the file.")
        if isinstance(reference, dict) and not {"weight", "region"}.isdisjoint(reference):
            raise ValueError("A card has no weight or region of its own. Give them where the card is used.")
        target = Path(os.path.realpath(path))
        if not target.parent.is_dir():
            raise ValueError(f"There is no folder {str(target.parent)!r} to write the card to.")
        kept, _ = self._kept(granularity, reference)
        metadata = {
            "format": CARD_FORMAT,
            "granularity": granularity,
            "encoder": self.fingerprint(granularity),
            "source": _hash_of(reference),
        }
        part = target.with_name(f".{target.name}.part")
        try:
            save_file({key: value.cpu().contiguous() for key, value in kept.items()}, part, metadata)
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)

    def _of_card(self, name: str, fields: dict[str, Any]) -> dict[str, torch.Tensor]:
        """The tensors of the card that a reference names, if this encoder made it for this granularity."""
        path = os.fspath(fields["image"])
        extra = {key for key, value in fields.items() if value is not None} - {"image", "weight", "region"}
        if extra:
            raise ValueError(
                f"The card {path!r} takes a weight and a region, but no {sorted(extra)}: it holds no picture to mask."
            )
        metadata, tensors = read_card(path)
        if metadata["granularity"] != name:
            raise ValueError(
                f"{path!r} is a {metadata['granularity']} card; it cannot lend its {name}. Give it as "
                f"{metadata['granularity']}, or make a {name} card of its picture."
            )
        if metadata["encoder"] != self.fingerprint(name):
            raise ValueError(
                f"The card {path!r} was made by another encoder, whose numbers mean something else to this one. Make "
                f"it anew from its picture (SHA-256 {metadata['source'][:12]}...) with `mg-diffusion encode`."
            )
        return tensors

    def fingerprint(self, granularity: str) -> str:
        """SHA-256 of one branch: its configuration and its weights, as they are in bfloat16 (whatever they are in)."""
        config = {key: self.config[key] for key in ("sample_size", "num_tiles", "shape_backbone")}
        digest = hashlib.sha256(json.dumps([granularity, config], sort_keys=True).encode())
        for key, value in sorted(self.branches[granularity].state_dict().items()):
            digest.update(key.encode() + value.cpu().bfloat16().contiguous().view(torch.int16).numpy().tobytes())
        return digest.hexdigest()

    def _average(self, encoded: list[tuple[dict[str, torch.Tensor], float]]) -> dict[str, torch.Tensor]:
        """Weighted mean of the features of several references; texture tiles and colors are shared out by weight."""
        if len(encoded) == 1:
            return encoded[0][0]
        total = sum(weight for _, weight in encoded)
        merged = {}
        for key in encoded[0][0]:
            values, weights = [features[key] for features, _ in encoded], [weight / total for _, weight in encoded]
            if key in ("tiles", "palette"):
                merged[key] = _share_out(values, weights)
            else:
                merged[key] = sum(value * weight for value, weight in zip(values, weights, strict=True))
        return merged


def _hash_of(reference: Any) -> str:
    """SHA-256 of a reference: of a file its bytes, of anything else its pixels or colors."""
    image = reference["image"] if isinstance(reference, dict) else reference
    if isinstance(image, (str, os.PathLike)):
        content = Path(image).read_bytes()
    else:
        content = repr(list(image)).encode() if is_palette(image) else read_image(image).numpy().tobytes()
    return hashlib.sha256(content).hexdigest()


def _share_out(values: list[torch.Tensor], weights: list[float]) -> torch.Tensor:
    """Fill the places of (1, K, ...) from several such tensors, each its share: a mean of tiles would be a blur."""
    count = values[0].shape[1]
    reached = torch.tensor(weights).cumsum(0) * count
    owner = torch.searchsorted(reached, torch.arange(count) + 0.5).clamp(max=len(values) - 1)
    return torch.stack(values)[owner, :, torch.arange(count)].transpose(0, 1)
