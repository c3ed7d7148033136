"""Groups of like colors in a picture, each of which is given one color: a sky whose blue varies a little is one thing.

A palette that is laid by shares splits whatever covers more of the picture than its color does of the palette: a patch of
yellow in an even sky. So what the palette gives to a group is replaced by the color that most of the group was given.
(Recoloring by a few colors that move: Chang et al., "Palette-based photo recoloring", SIGGRAPH 2015.)
"""

import torch


COLORS = 24  # that a picture is reduced to
ROUNDS = 12  # of k-means
MOST_SAMPLES = 4096
WITHIN = 12.0  # Delta-E between two colors of a group, lightness counted half: light and shade are of one thing
SOFTNESS = 6.0  # Delta-E over which one group fades into the next
LIGHT_WEIGHT = 0.5


def one_color_each(smooth: torch.Tensor, wanted: torch.Tensor, area: torch.Tensor) -> torch.Tensor:
    """What a picture `smooth` (1, 3, h, w) Lab is to be colored in, with one color for a group of its own colors.

    Args:
        wanted: (1, C, h, w), a color for each place; area: (1, 1, h, w), the places that count where they are above a half.
    """
    weights = torch.tensor([LIGHT_WEIGHT, 1, 1], dtype=torch.float32).to(smooth).view(1, 3, 1, 1)
    colors, given = (x.flatten(2)[0].T for x in (smooth * weights, wanted))  # (n, 3), (n, C)
    inside = (area > 0.5).flatten()
    inside = inside if inside.any() else torch.ones_like(inside)
    centers = _centers(colors[inside])
    distance = torch.cdist(colors, centers)
    group_of = torch.tensor(_groups(centers), device=colors.device)
    nearest, share, targets = group_of[distance.argmin(1)], [], []
    likeness = torch.exp((distance.amin(1, keepdim=True).square() - distance.square()) / (2 * SOFTNESS**2))
    for group in range(int(group_of.max()) + 1):
        members = given[inside & (nearest == group)]
        targets.append(_median(members) if len(members) else given.new_zeros(given.shape[1]))
        share.append(likeness[:, group_of == group].amax(1) * bool(len(members)))
    shares = torch.stack(share, 1)
    made = (shares / shares.sum(1, keepdim=True).clamp(min=1e-12)) @ torch.stack(targets)
    return made.T.reshape(wanted.shape)


def _centers(colors: torch.Tensor) -> torch.Tensor:
    """Up to `COLORS` colors (k, 3) by k-means, which begins with those that are farthest from each other."""
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


def _groups(centers: torch.Tensor) -> list[int]:
    """The group of each color: the two groups nearest to each other in the mean become one while they are within `WITHIN`."""
    distance, groups = torch.cdist(centers, centers).tolist(), [[place] for place in range(len(centers))]

    def apart(pair: tuple[int, int]) -> float:
        first, second = (groups[place] for place in pair)
        return sum(distance[a][b] for a in first for b in second) / (len(first) * len(second))

    while len(groups) > 1:
        first, second = pair = min(((a, b) for b in range(len(groups)) for a in range(b)), key=apart)
        if apart(pair) > WITHIN:
            break
        groups[first] += groups.pop(second)
    return [next(number for number, group in enumerate(groups) if place in group) for place in range(len(centers))]


def _median(colors: torch.Tensor) -> torch.Tensor:
    """The geometric median of (n, C): of two colors the one that more have, never a mixture (Weiszfeld's algorithm)."""
    found = colors.median(0).values
    for _ in range(20):
        weight = 1 / (colors - found).norm(dim=1, keepdim=True).clamp(min=1)
        found = (colors * weight).sum(0) / weight.sum()
    return found
