"""What was found for a hole meets what surrounds it: no step along the edge, no tint in a clear sky.

Likenesses from different places are of slightly other light: their differences are kept, and not their values (Darabi et
al., "Image melding", SIGGRAPH 2012). Where all that surrounds the hole is clear, what varies slowly inside is interpolated
from there.
"""

import torch
import torch.nn.functional as F

from .encoder.views import gaussian_blur
from .membrane import corrected
from .patches import PatchLevel, extents, grown


RINGS = 6  # inwards, after which something is gone: as wide as this in pixels
LIGHT_FADE = 24  # pixels after which a step is gone around a picture, whose last columns may be those of its resizing
LARGEST_STEP = 0.08  # Lab over 100; more is not a step of light but another thing
CLEAR_FADE = 96  # pixels inwards after which a clear edge says nothing, at least
CLEAR_BAND = 8  # pixels around the hole that say whether it lies in a clear area
CLEAR = (0.03, 0.06)  # deviation there, Lab over 100: up to the first all is clear, from the second on nothing
LEAST_SPREAD = 0.03  # of the longer side, over which a slope can be seen
SLOW = 16  # what varies over a 16th of the side of the hole varies slowly


def joined(level: PatchLevel) -> torch.Tensor:
    """The picture of a level, Lab over 100, its filled hole joined to the rest, (H, W, 3)."""
    picture = level.picture[..., :3]
    picture = picture + _steps(level, picture)
    return picture + _apart_from_clear(picture, level.hole)


def _steps(level: PatchLevel, picture: torch.Tensor) -> torch.Tensor:
    """What takes steps of light away, along the edge of the hole and where two likenesses meet in it, (H, W, 3).

    Two neighbors are to differ as the likeness of each does from its own neighbor. Steps of another thing than light stay.
    """
    steps = torch.zeros(level.height, level.width, 3, dtype=torch.float32)
    rows, columns = (slice(max(0, first - 1), end + 1) for first, end in extents(level.hole))
    source = torch.arange(level.hole.numel()).view_as(level.hole)
    source[level.hole] = level.nearest(level.hole.flatten().nonzero().flatten())
    source = source[rows, columns]
    apart = [_unlike(level, source, picture[rows, columns], axis) for axis in (1, 0)]
    found = corrected(*(one.permute(2, 0, 1) for one in apart), level.hole[rows, columns])
    steps[rows, columns] = found.permute(1, 2, 0)
    return steps * _nearness(level.hole, LIGHT_FADE)[0, 0, :, :, None] if level.room else steps


def _unlike(level: PatchLevel, source: torch.Tensor, picture: torch.Tensor, axis: int) -> torch.Tensor:
    """By how much neighbors along an axis differ too little, (h, w - 1, 3) or (h - 1, w, 3), where that is a step of light.

    Args:
        source: (h, w), the pixel of the level that each was taken from; picture: (h, w, 3), what they are now.
    """
    pixels, known = level.picture.view(-1, level.channels)[:, :3], (~level.hole).flatten()
    count, stride = source.shape[axis], (level.width, 1)[axis]
    first, second = source.narrow(axis, 0, count - 1), source.narrow(axis, 1, count - 1)
    total, weight = (torch.zeros(*first.shape, width, dtype=torch.float32) for width in (3, 1))
    for start in (first, second - stride):
        end = start + stride
        is_inside = (start >= 0) & (end < len(known))
        if axis == 1:
            is_inside &= (start + 1) % level.width > 0
        start, end = (one.clamp(0, len(known) - 1) for one in (start, end))
        is_known = (is_inside & known[start] & known[end])[..., None]
        total, weight = total + is_known * (pixels[end] - pixels[start]), weight + is_known
    unlike = total / weight.clamp(min=1) - picture.diff(dim=axis)
    is_seam = (second != first + stride)[..., None]
    return unlike * (is_seam & (unlike.norm(dim=2, keepdim=True) < LARGEST_STEP))


def _apart_from_clear(picture: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
    """How far the hole (H, W) is, slowly, from what its edge says, where all of the edge is clear, (H, W, 3).

    It holds within an eighth of the picture: a glow at the edge is not to tint all of the sky that is painted beside it.
    """
    edge = grown(hole, CLEAR_BAND) & ~hole
    maps = (picture - _plane(picture, edge)).permute(2, 0, 1)[None]
    is_clear = _fall(maps[0][:, edge].std(1).max(), CLEAR)
    if not is_clear:
        return torch.zeros_like(picture)
    edge = edge[None, None].float()
    mean, rough = (spread(one * edge, edge) for one in _around(maps, edge))
    apart = (mean - maps) * hole
    slowly = _slow_part(apart, max(2.0, float(hole.sum()) ** 0.5 / SLOW))
    share = is_clear * _fall(rough, CLEAR) * _nearness(hole, max(CLEAR_FADE, min(hole.shape) // 8)) * hole
    return (share * slowly)[0].permute(1, 2, 0)


def _plane(picture: torch.Tensor, edge: torch.Tensor) -> torch.Tensor:
    """The plane nearest to a picture (H, W, 3) where `edge` (H, W) is, cut off at what there is: a sky has a slope.

    Across a strip that is thin beside the picture it has none: that would go on into what lies beyond.
    """
    y, x = torch.meshgrid(*(torch.arange(side) / max(edge.shape) for side in edge.shape), indexing="ij")
    places, values = torch.stack([y, x], 2).to(picture), picture[edge]
    middle, mean = places[edge].mean(0), values.mean(0)
    apart = places[edge] - middle
    spread_out = apart.T @ apart / len(apart) + LEAST_SPREAD**2 * torch.eye(2, dtype=torch.float32)
    slopes = torch.linalg.solve(spread_out, apart.T @ (values - mean) / len(apart))
    plane = (places - middle) @ slopes + mean
    return torch.minimum(torch.maximum(plane, values.amin(0)), values.amax(0))


def _around(maps: torch.Tensor, edge: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Means of maps (1, C, H, W) among what of the edge (1, 1, H, W) is near; the largest deviation of a channel there."""
    count = _near(edge).clamp(min=1e-6)
    mean, square = (_near(one * edge) / count for one in (maps, maps.square()))
    return mean, (square - mean.square()).clamp(min=0).sqrt().amax(1, keepdim=True)


def _near(maps: torch.Tensor) -> torch.Tensor:
    """Means over squares around each pixel; along and across in turn, for at once it is a third of the time of a filling."""
    side = 2 * CLEAR_BAND + 1
    along = F.avg_pool2d(maps, (side, 1), 1, (CLEAR_BAND, 0))
    return F.avg_pool2d(along, (1, side), 1, (0, CLEAR_BAND))


def _fall(values: torch.Tensor, ends: tuple[float, float]) -> torch.Tensor:
    """1 up to the first, 0 from the second on."""
    return ((ends[1] - values) / (ends[1] - ends[0])).clamp(0, 1)


def _slow_part(maps: torch.Tensor, sigma: float) -> torch.Tensor:
    """Maps (1, C, H, W), blurred by so many pixels; by many of them in a smaller picture."""
    cell = max(1, int(sigma) // 2)
    small = gaussian_blur(F.avg_pool2d(maps, cell, ceil_mode=True), sigma / cell)
    return F.interpolate(small, maps.shape[2:], mode="bilinear")


def _nearness(hole: torch.Tensor, depth: int) -> torch.Tensor:
    """1 at the edge of a hole (H, W), less with every ring inwards, 0 after `depth` pixels, (1, 1, H, W)."""
    cell = max(1, depth // RINGS)
    inside = F.avg_pool2d(hole[None, None].float(), cell, ceil_mode=True)[0, 0] > 0.5
    near = (~inside).float()
    for ring in range(RINGS):
        smaller = ~grown(~inside, 1)
        near[inside & ~smaller] = 1 - ring / RINGS
        inside = smaller
    return F.interpolate(near[None, None], hole.shape, mode="bilinear")


def spread(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Values (1, C, H, W) that are known by weight, between them by a pyramid of means (Gortler et al., SIGGRAPH 1996)."""
    height, width = values.shape[2:]
    if max(height, width) <= 2:
        return ((values * weight).sum((2, 3), keepdim=True) / weight.sum().clamp(min=1e-6)).expand_as(values)
    total, share = (F.avg_pool2d(F.pad(one, (0, width % 2, 0, height % 2)), 2) for one in (values * weight, weight))
    coarse = spread(total / share.clamp(min=1e-6), (4 * share).clamp(max=1))
    between = F.interpolate(coarse, scale_factor=2, mode="bilinear")[:, :, :height, :width]
    return torch.lerp(between, values, weight)
