"""A palette laid into the regions of a structure map: which color goes where."""

import torch

from .few_colors import few_colors, lay_few_colors
from .mean_shift import kernel_mean, modes_of


SHADING = 0.8  # how much of the shape reference's folds and roundness goes over the colors
SHADES = 60.0  # of lightness, from the darkest to the lightest of a single color
DARKEST, LIGHTEST = 8.0, 96.0
LEAST_CONTRAST = 12.0  # of lightness, the standard deviation of a palette that is laid
SAMPLED = 1 << 17  # pixels that are sorted; those of a larger picture get the colors of the modes that they are near
REGION_WIDTH = 0.1  # in a structure map, of the kernel in which places are one region
FLOW_ROUNDS, FLOW_STEP = 8, 0.7  # by which the colors of regions come near to those of a palette
SLACK = 8.0  # Delta-E; how far beyond a palette's colors a sketch may go in hue and chroma


def lay_palette(
    structure: torch.Tensor,
    palette: torch.Tensor,
    area: torch.Tensor | None = None,
    steps: int = 6,
    flow_rounds: int = FLOW_ROUNDS,
) -> torch.Tensor:
    """Paint the regions of a structure map with the colors of a palette, in the order the map gives them.

    Iterative distribution transfer (Pitie et al., "N-dimensional probability density function transfer", ICCV 2005):
    sort along axes until all marginals agree. The first axes are the map's own, the others random but always the same.
    Then each region gets one color (`color_regions`): the proportions of the palette are not those of the regions. A palette of
    few colors, such as hex colors, goes to whole regions (`lay_few_colors`).

    Args:
        structure: (B, 3, H, W), a structure map or a turn of one; palette: (B, N, 3) Lab colors of equal weight;
            area: (B, 1, H, W) at least 0, how much of the palette a place takes up, everywhere the same if not given.
            Of each the batch may be 1.
        flow_rounds: of `color_regions`; with 0 regions keep the mean of what they got.

    Returns:
        (B, 3, H, W) Lab.
    """
    palette = with_shades(palette)
    structure, area = structure.float(), torch.ones_like(structure[:1, :1]).float() if area is None else area.float()
    few = [few_colors(row) for row in palette]
    if all(row is None for row in few):
        return _lay_by_shares(structure, palette, area, steps, flow_rounds)
    rows = []
    with torch.autocast(structure.device.type, enabled=False):
        for place in range(max(len(structure), len(palette), len(area))):
            one, own, where = (x[place % len(x)] for x in (structure, palette, area))
            colors = few[place % len(few)]
            rows.append(
                _lay_by_shares(one[None], own[None], where[None], steps, flow_rounds)[0]
                if colors is None
                else lay_few_colors(one, colors, where)
            )
    return torch.stack(rows)


def _lay_by_shares(
    structure: torch.Tensor, palette: torch.Tensor, area: torch.Tensor, steps: int, flow_rounds: int
) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    turns = torch.linalg.qr(torch.randn(steps, 3, 3, generator=generator, dtype=torch.float32))[0]
    turns[0] = torch.eye(3, dtype=torch.float32)
    batch = max(len(structure), len(palette), len(area))
    values = structure.float().flatten(2).transpose(1, 2).expand(batch, -1, -1)
    colors = palette.float().expand(batch, -1, -1)
    shares = area.float().flatten(1).unsqueeze(2).expand(batch, -1, 3)
    with torch.autocast(values.device.type, enabled=False):
        anchors, seeds, modes = modes_of(values)
    if values.shape[1] > SAMPLED:
        some, some_shares = _sampled(values, shares, anchors)
        anchors = torch.arange(anchors.shape[1], device=values.device).view(1, -1, 1).expand_as(anchors)
    else:
        some, some_shares = values, shares / shares.sum(1, keepdim=True)
    painted, turns = some, turns.to(some)
    # Products written out: autocast would round a matrix product, and with it the order of the pixels.
    axes = [(turn, (colors.unsqueeze(3) * turn).sum(2).sort(1).values) for turn in turns]
    for turn, wanted in axes:
        painted = _transported(painted, some_shares, turn, wanted)
    with torch.autocast(painted.device.type, enabled=False):
        is_even = (shares[..., :1].amax(1, keepdim=True) - shares[..., :1].amin(1, keepdim=True)) < 1e-6
        regions = color_regions(painted.gather(1, anchors), modes, axes, is_even, flow_rounds)
        own = kernel_mean(values, seeds, regions, REGION_WIDTH)
        painted = within(_match_covariance(own, shares[..., :1], painted, some_shares[..., :1]), colors)
    return painted.transpose(1, 2).unflatten(2, structure.shape[2:])


def lay_with_contrast(
    structure: torch.Tensor, palette: torch.Tensor, area: torch.Tensor | None = None
) -> torch.Tensor:
    """`lay_palette` of a palette `with_contrast`."""
    return lay_palette(structure, with_contrast(palette), area)


def with_shades(palette: torch.Tensor) -> torch.Tensor:
    """A palette (B, N, 3) in Lab; where it is a single color its shades, for one color alone shows no shape."""
    is_single = (palette.amax(1) - palette.amin(1)).amax(1) < 1e-3
    if not is_single.any():
        return palette
    lightness = palette[:, :1, :1]
    low = (lightness - SHADES / 2).clamp(DARKEST, LIGHTEST - SHADES)
    steps = torch.linspace(0, 1, palette.shape[1], dtype=torch.float32).to(palette).view(1, -1, 1)
    shades = torch.cat([low + SHADES * steps, palette[..., 1:]], 2)
    return torch.where(is_single.view(-1, 1, 1), shades, palette)


def with_contrast(palette: torch.Tensor) -> torch.Tensor:
    """A palette (B, N, 3) in Lab, lighter and darker about its mean where it has too little of both to show a shape.

    A gray shirt on a gray floor lays an aubergine, a hand and a shelf in one gray. Single colors are left to `with_shades`,
    few ones as they are: they were chosen.
    """
    lightness = palette[..., :1]
    middle = lightness.mean(1, keepdim=True)
    deviation = (lightness - middle).square().mean(1, keepdim=True).sqrt()
    factor = torch.where(deviation > 1e-3, (LEAST_CONTRAST / deviation.clamp(min=1e-3)).clamp(min=1), 1.0)
    wider = (middle + factor * (lightness - middle)).clamp(DARKEST, LIGHTEST)
    # Most have contrast enough, and need not be looked at.
    is_wider = [
        bool(low) and few_colors(row) is None for low, row in zip((factor > 1).flatten(), palette, strict=True)
    ]
    is_wider = torch.tensor(is_wider, device=palette.device).view(-1, 1, 1)
    return torch.cat([torch.where(is_wider, wider, lightness), palette[..., 1:]], 2)


def within(colors: torch.Tensor, palette: torch.Tensor) -> torch.Tensor:
    """Colors (B, N, 3) in Lab, in hue and chroma no further than `SLACK` beyond those of a palette (B, M, 3).

    Towards their middle, bounded in eight directions: what matches mean and covariance of few colors may lie far from all of them.
    """
    angles = torch.arange(8, dtype=torch.float32) * torch.pi / 4
    directions = torch.stack([angles.cos(), angles.sin()]).to(colors)  # (2, 8)
    middle = palette[..., 1:].mean(1, keepdim=True)
    # Products written out: autocast would round a matrix product.
    reached, allowed = (((one[..., 1:] - middle).unsqueeze(3) * directions).sum(2) for one in (colors, palette))
    share = (allowed.amax(1, keepdim=True) + SLACK) / reached.clamp(min=1e-3)
    hue = middle + (colors[..., 1:] - middle) * share.amin(2, keepdim=True).clamp(max=1)
    return torch.cat([colors[..., :1], hue], 2)


def shaded(sketch: torch.Tensor, shading: torch.Tensor) -> torch.Tensor:
    """A sketch (B, 3, H, W) in Lab with folds and roundness (B, 1, H, W), in lightness, over its colors."""
    lightness = (sketch[:, :1] + SHADING * shading.to(sketch)).clamp(0, 100)
    return torch.cat([lightness, sketch[:, 1:]], 1)


def _quantile(values: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Sorted values (B, N, 3) at shares (B, M, 3) in [0, 1] of them, with straight lines between."""
    places = (shares * values.shape[1] - 0.5).clamp(0, values.shape[1] - 1)
    below = places.long()
    above = (below + 1).clamp(max=values.shape[1] - 1)
    return torch.lerp(values.gather(1, below), values.gather(1, above), places - below)


def _sampled(values: torch.Tensor, shares: torch.Tensor, anchors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Some of values (B, N, 3) and how much each counts, (B, M, 3), with a sum of 1: first those at `anchors` (B, K, 3).

    The rest is drawn at equal distances along the shares (B, N, 3) in the order of the first channel, which a mirrored map has
    as well (systematic sampling), so that a small area has as many as a large one; some more than once.
    """
    shares = shares / shares.sum(1, keepdim=True)
    order = values[..., 0].argsort(dim=1, stable=True)
    reached = shares[..., 0].gather(1, order).cumsum(1)
    wanted = (torch.arange(SAMPLED, device=values.device, dtype=torch.float32) + 0.5) / SAMPLED
    places = torch.searchsorted(reached, wanted.repeat(len(values), 1)).clamp(max=values.shape[1] - 1)
    drawn = values.gather(1, order.gather(1, places).unsqueeze(2).expand(-1, -1, 3))
    own = shares.gather(1, anchors)
    rest = ((1 - own.sum(1, keepdim=True)) / SAMPLED).expand_as(drawn)
    return torch.cat([values.gather(1, anchors), drawn], 1), torch.cat([own, rest], 1)


def color_regions(
    painted: torch.Tensor,
    modes: torch.Tensor,
    axes: list[tuple[torch.Tensor, torch.Tensor]],
    is_even: torch.Tensor,
    rounds: int = FLOW_ROUNDS,
) -> torch.Tensor:
    """One color for what is gathered around one mode of a structure map, (B, K, 3): in all near to the palette.

    What is exact in its proportions splits a region of the map wherever the palette has too little of a color. Here the modes
    (mean shift, Comaniciu and Meer, TPAMI 2002) first get the mean color of what was painted near them. Means are of no color of
    the palette, so they flow towards it, region by region, down the sliced Wasserstein distance of all of them (Bonneel et
    al., "Sliced and Radon Wasserstein barycenters of measures", JMIV 2015).

    Args:
        painted: (B, K, 3), the colors of some values of the map, whose modes are `modes` (B, K, 3).
        axes: turns (3, 3), orthogonal, along whose axes is looked, each with the palette there, sorted, (B, N, 3).
        is_even: (B or 1, 1, 1), whether all places count alike. Where not, the few values do not say how much a region
            counts, and means they stay.
    """
    means = regions = kernel_mean(modes, modes, painted, REGION_WIDTH)
    shares = torch.full_like(means, 1 / means.shape[1])
    for _ in range(rounds):
        moved = torch.stack([_transported(regions, shares, *axis) for axis in axes]).mean(0)
        regions = regions + FLOW_STEP * kernel_mean(modes, modes, moved - regions, REGION_WIDTH)
    return torch.where(is_even, regions, means)


def _transported(values: torch.Tensor, shares: torch.Tensor, turn: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Values (B, N, 3) with shares of theirs moved: along each axis of a turn (3, 3) they are spread as `wanted`, sorted, is."""
    # Products written out: autocast would round a matrix product, and with it the order of the pixels.
    order = (values.unsqueeze(3) * turn).sum(2).argsort(dim=1, stable=True)
    share = shares.gather(1, order)
    reached = share.cumsum(1) - share / 2
    moved = torch.empty_like(reached).scatter(1, order, _quantile(wanted, reached))
    return (moved.unsqueeze(3) * turn.T).sum(2)


def _match_covariance(
    colors: torch.Tensor, shares: torch.Tensor, target: torch.Tensor, target_shares: torch.Tensor, floor: float = 4.0
) -> torch.Tensor:
    """`colors` (B, N, 3), moved linearly so that mean and covariance are those of `target` (B, M, 3).

    Means are duller than what they average: the linear transport between Gaussians (Pitie and Kokaram, CVMP 2007). What
    counts for nothing, of shares (B, N, 1), may lie far from all that counts, would be carried off, and stays.
    """
    weights = shares / shares.sum(1, keepdim=True)
    middle = (target_shares * target).sum(1, keepdim=True)
    centered = colors - (weights * colors).sum(1, keepdim=True)
    flat = floor * torch.eye(3, dtype=torch.float32).to(colors)  # what has no variance cannot be given any
    have, want = (
        x.transpose(1, 2) @ (w * x) + flat for x, w in ((centered, weights), (target - middle, target_shares))
    )
    root, inverse = _power(have, 0.5), _power(have, -0.5)
    moved = middle + centered @ (inverse @ _power(root @ want @ root, 0.5) @ inverse)
    return torch.where(shares > 0, moved, colors)


def _power(matrix: torch.Tensor, exponent: float) -> torch.Tensor:
    """Power of symmetric positive matrices (B, 3, 3)."""
    variance, basis = torch.linalg.eigh(matrix)
    return basis * variance.clamp(min=1e-6).pow(exponent).unsqueeze(1) @ basis.transpose(1, 2)


def random_turns(noise: torch.Tensor) -> torch.Tensor:
    """Normal noise (B, 3, 3) to orthogonal matrices, all of them equally likely (Mezzadri, Notices of the AMS 2007)."""
    q, r = torch.linalg.qr(noise)
    return q * r.diagonal(dim1=1, dim2=2).sign().unsqueeze(1)


def nearest_rotation(matrices: torch.Tensor) -> torch.Tensor:
    """The orthogonal matrices nearest to (B, 3, 3), such as means of some."""
    u, _, vt = torch.linalg.svd(matrices.float())
    return u @ vt


def turn_colors(structure: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """A structure map (B, 3, H, W) in other false colors: turns are (B, 3, 3). One of the batches may be 1."""
    # Written out: autocast would round a matrix product, and with it the order of the pixels.
    turned = (turns.to(structure.dtype).unsqueeze(3) * structure.flatten(2).unsqueeze(1)).sum(2)
    return turned.unflatten(2, structure.shape[2:])
