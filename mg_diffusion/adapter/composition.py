"""The composition of references: palette laid into regions, texture over it, at the size of the output, by no network."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from diffusers.utils.torch_utils import randn_tensor

from ..encoder.remembered import Remembered
from ..encoder.views import gaussian_blur, lab_to_rgb
from ..features import Features, match_rows
from ..octaves import compose
from .layout import join_layouts, lay_out
from .sets import split_regions
from .variation import apply_variation, draw_variation


CLOUD = 1 / 10  # of the shorter side, the deviation of the blur of what stands in for missing regions
CLOUD_LIGHT = (55.0, 20.0)  # mean and deviation of its lightness


def compose_features(
    features: Features,
    strengths: torch.Tensor,
    granularities: Sequence[str],
    size: tuple[int, int],
    assignment: str = "light",
    generator: torch.Generator | list[torch.Generator] | None = None,
    remembered: Remembered | None = None,
) -> torch.Tensor | None:
    """Pictures (B, 3, *size) in [-1, 1]; `None` where nothing has any strength.

    Regions without colors are laid in grays as light as they are; colors without regions are laid into soft clouds that
    the generator draws; a texture alone lies over middle gray.

    Args:
        features: from `MGEncoder.encode` with `layout_size=size`.
        strengths: (B, G) in the order of `granularities`; assignment, generator: as of `apply_variation`.
    """
    count, device = len(strengths), strengths.device
    features = {
        name: [match_rows(part, count, device, torch.float32) for part in parts] for name, parts in features.items()
    }
    sets, shares = split_regions(features)
    given = strengths.new_tensor([[name in own for name in granularities] for own in sets])
    if not (strengths[:, None] * given).any():
        return None
    drawn = draw_variation({name: parts[0] for name, parts in features.items()}, count, generator)
    remembered = Remembered(0) if remembered is None else remembered
    laid = [
        (lay_out(apply_variation(own, count, drawn, assignment), size, remembered), strengths * is_given)
        for own, is_given in zip(sets, given, strict=True)
    ]
    layout = join_layouts(laid, shares, granularities, size)
    clouds = _clouds(count, size, generator, device)
    layout = layout.completed(clouds)
    gray = torch.zeros_like(clouds[..., :1, :1]).expand_as(clouds)
    return compose(gray, layout.canvas, layout.canvas_scale, layout.sketch, layout.sketch_scale).clamp(-1, 1)


def _clouds(
    count: int, size: tuple[int, int], generator: torch.Generator | list[torch.Generator] | None, device: torch.device
) -> torch.Tensor:
    """Gray pictures (count, 3, *size) in [-1, 1] of soft regions, drawn at a sixteenth of the size."""
    small = tuple(max(4, side // 16) for side in size)
    noise = gaussian_blur(randn_tensor((count, 1, *small), generator, device, torch.float32), CLOUD * min(small))
    noise = noise / noise.std((2, 3), keepdim=True)
    mean, deviation = CLOUD_LIGHT
    lightness = F.interpolate(mean + deviation * noise, size, mode="bicubic").clamp(5, 95)
    return lab_to_rgb(F.pad(lightness, (0, 0, 0, 0, 0, 2))) * 2 - 1
