"""A palette of few colors, such as designers give, laid so that every region gets one of them.

What is laid by shares (`lay_palette`) mixes wherever the shares of the palette are not those of the regions: orange and blue on a
star and its ground came out as yellow and brown. Among the many colors of a photograph the mixture is near one of them; among
few it is none that was asked for.
"""

import torch

from ..encoder.color_groups import ColorGroups, farthest_first
from .mean_shift import modes_of


MOST_COLORS = 16  # photographs have more
EVEN = 1.5  # Delta-E to a main color, in which most of a flat picture is
FLAT = 0.8  # of a picture that is flat; photographs have .61 at most
ALIKE = 6.0  # Delta-E, lightness not halved, between colors that are one
LEAST_SHARE = 0.02  # of a palette; less is the edge between two colors
SCALE = 20.0  # a structure map in the units of `ColorGroups`
ONE_REGION = 8.0  # in these units, between two of its colors
FADE = 2.0  # in these units, over which one region fades into the next
UNUSED = 0.9  # of the whole area; what it costs to leave a color out


def few_colors(colors: torch.Tensor) -> torch.Tensor | None:
    """A palette (N, 3) in Lab with each color replaced by one of its 2 to 16; `None` for one that has more, or a single one.

    Hex colors are as they are. Of a swatch, a logo, a drawing, rounded by smoothing and JPEG, the main ones are taken. (A single
    color is laid in shades.)
    """
    colors = colors.float()
    if 2 <= len(colors.unique(dim=0)) <= MOST_COLORS:
        return colors
    groups = ColorGroups(farthest_first(colors), ALIKE)
    nearest = groups.nearest(colors)
    counts = nearest.bincount(minlength=groups.count)
    means = torch.zeros(groups.count, 3).to(colors).index_add_(0, nearest, colors) / counts.clamp(min=1)[:, None]
    main = counts > LEAST_SHARE * len(colors)
    is_flat = ((colors - means[nearest]).norm(dim=1) < EVEN).float().mean() > FLAT
    if not (is_flat and 2 <= main.sum() <= MOST_COLORS):
        return None
    main = groups.targets(colors, colors)[main]
    return main[torch.cdist(colors, main).argmin(1)]


def lay_few_colors(structure: torch.Tensor, palette: torch.Tensor, area: torch.Tensor) -> torch.Tensor:
    """Regions of a structure map (3, H, W) in the colors of a palette (N, 3): (3, H, W) Lab.

    The first channel of the map says which region gets the darker color; `area` (1, H, W), how much of the palette a place takes up.
    """
    colors, counts = palette.unique(dim=0, return_counts=True)  # from dark to light
    values = structure.flatten(1).T
    places, modes = SCALE * values, modes_of(values[None])[2][0]
    groups = ColorGroups(farthest_first(SCALE * modes), ONE_REGION)
    if groups.count == 1:  # a gradient; in one color it would not show
        groups = ColorGroups(farthest_first(places), 0)
    nearest = groups.nearest(places)
    mass = torch.zeros(groups.count).to(places).index_add_(0, nearest, area.flatten())
    light = torch.zeros_like(mass).index_add_(0, nearest, places[:, 0]) / nearest.bincount(minlength=len(mass)).clamp(
        min=1
    )
    order = light.argsort()
    chosen = torch.empty_like(order)
    chosen[order] = split_in_order(mass[order] / mass.sum(), counts / counts.sum())
    return groups.blended(places, colors[chosen], FADE).T.reshape(structure.shape)


def split_in_order(areas: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Which color each region gets, (G,), so that both stay in their order and areas are near to weights.

    Dynamic programming over the places where one color ends and the next begins.

    Args:
        areas: (G,) of regions in the order of their lightness; weights: (K,) of colors in theirs. Each sum to 1.
    """
    count = len(areas)
    reached = torch.cat([areas.new_zeros(1), areas.cumsum(0)])
    taken = (reached - reached[:, None]).masked_fill(
        torch.ones(count + 1, count + 1).to(areas).tril().bool(), torch.inf
    )
    least = torch.full_like(reached, torch.inf)
    least[0] = 0
    begins = []
    for weight in weights:
        with_it, begin = (least[:, None] + (taken - weight).abs()).min(0)
        without = least + weight + UNUSED
        begins.append(torch.where(with_it < without, begin, torch.arange(count + 1, device=areas.device)).tolist())
        least = torch.minimum(with_it, without)
    chosen, end = [], count
    for color in reversed(range(len(weights))):
        begin = begins[color][end]
        chosen = [color] * (end - begin) + chosen
        end = begin
    return torch.tensor(chosen, device=areas.device)
