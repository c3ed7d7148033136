"""Groups of like colors in a picture, each of which is given one color: a sky whose blue varies a little is one thing.

A palette that is laid by shares splits whatever covers more of the picture than its color does of the palette: a patch of
yellow in an even sky. So what the palette gives to a group is replaced by the color that most of the group was given.
(Recoloring by a few colors that move: Chang et al., "Palette-based photo recoloring", SIGGRAPH 2015.)
"""

import torch

from .views import half_light


COLORS = 24  # that a picture is reduced to
ROUNDS = 12  # of k-means
MOST_SAMPLES = 4096
AT_ONCE = 1 << 17  # places; of a large picture a table of all of them and all colors would not fit
WITHIN = 12.0  # Delta-E
SOFTNESS = 6.0  # Delta-E over which one group fades into the next


def one_color_each(
    smooth: torch.Tensor, wanted: torch.Tensor, area: torch.Tensor, within: float = WITHIN
) -> torch.Tensor:
    """What a picture `smooth` (1, 3, h, w) Lab is to be colored in, with one color for a group of its own colors.

    Args:
        wanted: (1, C, h, w), a color for each place, or other values; area: (1, 1, h, w), the places that count where they are
            above a half.
        within: Delta-E between two colors of a group, lightness counted half: light and shade are of one thing.
    """
    colors, given = (x.flatten(2)[0].T for x in (half_light(smooth), wanted))  # (n, 3), (n, C)
    inside = (area > 0.5).flatten()
    inside = inside if inside.any() else torch.ones_like(inside)
    some = inside.nonzero()[:, 0]
    some = some[:: -(-len(some) // AT_ONCE)]
    groups = ColorGroups(farthest_first(colors[some]), within)
    targets = groups.targets(colors[some], given[some])
    return torch.cat([groups.blended(part, targets) for part in colors.split(AT_ONCE)]).T.reshape(wanted.shape)


class ColorGroups:
    """Colors (k, 3), and the group that each of them is in."""

    def __init__(self, centers: torch.Tensor, within: float):
        self.centers = centers
        self.group_of = torch.tensor(_groups(centers, within), device=centers.device)
        self.count = int(self.group_of.max()) + 1

    def nearest(self, colors: torch.Tensor) -> torch.Tensor:
        """The group of each of the places (n, 3): (n,)."""
        return self.group_of[torch.cdist(colors, self.centers).argmin(1)]

    def targets(self, colors: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        """The value of each group (G, C): what most of its places (n, 3) were given, (n, C); not a number where it has none."""
        nearest = self.nearest(colors)
        members = [given[nearest == group] for group in range(self.count)]
        nothing = given.new_full(given.shape[1:], torch.nan)
        return torch.stack([_median(one) if len(one) else nothing for one in members])

    def blended(self, colors: torch.Tensor, targets: torch.Tensor, softness: float = SOFTNESS) -> torch.Tensor:
        """The values of groups (G, C) at places (n, 3), one fading into the next over some Delta-E: (n, C)."""
        distance = torch.cdist(colors, self.centers)
        likeness = torch.exp((distance.amin(1, keepdim=True).square() - distance.square()) / (2 * softness**2))
        shares = torch.stack([likeness[:, self.group_of == group].amax(1) for group in range(self.count)], 1)
        shares = shares * targets.isfinite().all(1)
        return (shares / shares.sum(1, keepdim=True).clamp(min=1e-12)) @ targets.nan_to_num()


def farthest_first(colors: torch.Tensor) -> torch.Tensor:
    """Up to `COLORS` centers (k, 3) of places (n, 3) by k-means, which begins with those that are farthest from each other."""
    colors = colors[:: max(1, len(colors) // MOST_SAMPLES)]
    chosen = [int((colors - colors.mean(0)).square().sum(1).argmin())]
    nearest = (colors - colors[chosen[0]]).square().sum(1)
    while len(chosen) < COLORS and nearest.max() > 1:
        chosen.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, (colors - colors[chosen[-1]]).square().sum(1))
    centers = colors[chosen]
    for _ in range(ROUNDS):
        own = torch.nn.functional.one_hot(torch.cdist(colors, centers).argmin(1), len(centers)).to(colors)
        count = own.sum(0)[:, None]
        centers = torch.where(count > 0, own.T @ colors / count.clamp(min=1), centers)
    return centers


def _groups(centers: torch.Tensor, within: float) -> list[int]:
    """The group of each color: the two groups nearest to each other in the mean become one while they are that near."""
    distance = torch.cdist(centers, centers).fill_diagonal_(torch.inf)
    groups = [[place] for place in range(len(centers))]
    while len(groups) > 1:
        first, second = sorted(divmod(int(distance.argmin()), len(groups)))
        if distance[first, second] > within:
            break
        sizes = [len(groups[place]) for place in (first, second)]
        mean = (sizes[0] * distance[first] + sizes[1] * distance[second]) / sum(sizes)
        distance[first], distance[:, first] = mean, mean
        rest = [place for place in range(len(groups)) if place != second]
        distance = distance[rest][:, rest]
        groups[first] += groups.pop(second)
    return [next(number for number, group in enumerate(groups) if place in group) for place in range(len(centers))]


def _median(colors: torch.Tensor) -> torch.Tensor:
    """The geometric median of (n, C): of two colors the one that more have, never a mixture (Weiszfeld's algorithm)."""
    found = colors.median(0).values
    for _ in range(20):
        weight = 1 / (colors - found).norm(dim=1, keepdim=True).clamp(min=1)
        found = (colors * weight).sum(0) / weight.sum()
    return found
