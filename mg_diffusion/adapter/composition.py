"""The composition of references: palette laid into regions, texture over it, at the size of the output, by no network."""

from collections.abc import Sequence

import torch

from ..encoder.remembered import Remembered
from ..features import Features, match_rows
from .layout import draw_clouds, join_layouts, lay_out, regions_of
from .sets import split_regions
from .variation import apply_variation, draw_variation


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
    if "color" in features and "shape" not in features and "shape" in granularities:
        features, strengths = _with_clouds(features, strengths, granularities, size, generator)
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
    return join_layouts(laid, shares, granularities, size).composed(generator)


def _with_clouds(
    features: Features,
    strengths: torch.Tensor,
    granularities: Sequence[str],
    size: tuple[int, int],
    generator: torch.Generator | list[torch.Generator] | None,
) -> tuple[Features, torch.Tensor]:
    """Features with the regions of clouds in place of a shape, which are as strong as the colors."""
    regions = regions_of(draw_clouds(len(strengths), size, generator, strengths.device), size)
    color, shape = (list(granularities).index(name) for name in ("color", "shape"))
    strengths = strengths.clone()
    strengths[:, shape] = strengths[:, color]
    return {**features, "shape": [{"vector": regions.new_zeros(1, 1), "layout_structure": regions}]}, strengths
