"""The composition of references: palette laid into regions, texture over it, at the size of the output, by no network."""

from collections.abc import Collection, Sequence

import torch
import torch.nn.functional as F

from ..encoder.remembered import Remembered
from ..features import Features, match_rows
from .layout import draw_clouds, join_layouts, lay_out
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

    Raises:
        ValueError: where some pictures have something to be composed of, and others nothing.
    """
    count, device = len(strengths), strengths.device
    features = {
        name: [match_rows(part, count, device, torch.float32) for part in parts] for name, parts in features.items()
    }
    sets, shares = split_regions(features)
    given = strengths.new_tensor([[name in own for name in granularities] for own in sets])
    if not has_any(strengths, granularities, features):
        return None
    drawn = draw_variation({name: parts[0] for name, parts in features.items()}, count, generator)
    remembered = Remembered(0) if remembered is None else remembered
    clouds = draw_clouds(count, size, generator, device)
    pictures = []
    for own, is_given in zip(sets, given, strict=True):
        laid = lay_out(apply_variation(own, count, drawn, assignment), size, remembered)
        layout = join_layouts([(laid, strengths * is_given)], None, granularities, size)
        pictures.append(torch.zeros_like(clouds) if layout is None else layout.composed(clouds=clouds))
    if shares is None:
        return pictures[0]
    shares = F.interpolate(shares.float(), size, mode="area")
    return sum(shares[:, place, None] * picture for place, picture in enumerate(pictures))


def has_any(strengths: torch.Tensor, granularities: Sequence[str], given: Collection[str]) -> bool:
    """Whether pictures with these strengths (B, G) have anything of the granularities that are given.

    Raises:
        ValueError: if some of them have, and others have nothing.
    """
    rows = (strengths[:, [place for place, name in enumerate(granularities) if name in given]] > 0).any(1)
    if rows.any() and not rows.all():
        raise ValueError(
            f"There is nothing to compose for the pictures {(~rows).nonzero().flatten().tolist()} of {len(rows)}: what is given "
            f"({', '.join(given)}) has a `granularity_scale` of 0 there. Give each some above 0, or leave these pictures out."
        )
    return bool(rows.any())
