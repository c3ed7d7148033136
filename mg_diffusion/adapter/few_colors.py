"""A palette of few colors, such as designers give, laid so that every region gets one of them.

What is laid by shares (`lay_palette`) mixes wherever the shares of the palette are not those of the regions: orange and blue on a
star and its ground came out as yellow and brown. Among the many colors of a photograph the mixture is near one of them; among
few it is none that was asked for.
"""

import torch

from ..encoder.color_groups import ColorGroups, farthest_first
from .mean_shift import modes_of


MOST_COLORS = 16  # photographs have more
FLAT = 0.9  # of a palette in its 16 most frequent colors, to a Delta-E; photographs have .4 to .7, at most .86 of 60
ALIKE = 6.0  # Delta-E, lightness not halved, between colors that are one
LEAST_SHARE = 0.02  # of a palette; less is the edge between two colors
SCALE = 20.0  # a structure map in the units of `ColorGroups`
ONE_REGION = 8.0  # in these units, between two of its colors
FADE = 2.0  # in these units, over which one region fades into the next
UNUSED = 0.9  # of the whole area; what it costs to leave a color out


def few_colors(palette: torch.Tensor) -> torch.Tensor | None:
    """Palettes (B, N, 3) in Lab with each color replaced by one of its 2 to 16; `None` unless each palette has so few.

    Hex colors are as they are. Of a swatch, a logo, a drawing, rounded by smoothing and JPEG, the main ones are taken. (A single
    color is laid in shades.)
    """
    rows = [_main_colors(row) for row in palette]
    return None if any(row is None for row in rows) else torch.stack(rows)


def _main_colors(colors: torch.Tensor) -> torch.Tensor | None:
    if 2 <= len(colors.unique(dim=0)) <= MOST_COLORS:
        return colors
    counts = colors.round().unique(dim=0, return_counts=True)[1]
    if counts.topk(min(MOST_COLORS, len(counts))).values.sum() < FLAT * len(colors):
        return None
    groups = ColorGroups(farthest_first(colors), ALIKE)
    shares = groups.nearest(colors).bincount(minlength=groups.count) / len(colors)
    main = groups.targets(colors, colors)[shares > LEAST_SHARE]
    return main[torch.cdist(colors, main).argmin(1)] if 2 <= len(main) <= MOST_COLORS else None


def lay_few_colors(structure: torch.Tensor, palette: torch.Tensor, area: torch.Tensor) -> torch.Tensor:
    """Regions of structure maps (B, 3, H, W) in colors of palettes (B, N, 3): (B, 3, H, W) Lab.

    The first channel of the map says which region gets the darker color. `area` (B, 1, H, W) says how much of the palette a place
    takes up. Of each the batch may be 1.
    """
    batch = max(len(structure), len(palette), len(area))
    rows = zip(*(x.float().expand(batch, -1, *x.shape[2:]) for x in (structure, palette, area)), strict=True)
    return torch.stack([_lay_one(*row) for row in rows])


def _lay_one(structure: torch.Tensor, palette: torch.Tensor, area: torch.Tensor) -> torch.Tensor:
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
