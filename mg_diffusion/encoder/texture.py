"""Texture: detail of luminance without its local mean and contrast, and shuffled tiles of it."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .branch import Branch
from .distances import as_shares, quantiles, transport_cost
from .views import DETAIL_UNIT, di_zenzo_gradient, gaussian_blur


LOCAL_SIGMA = 4.0  # window of the local mean and contrast of the texture view
DETAIL_SIGMA = 6.0  # what varies more slowly than this is not texture
DETAIL_LIMIT = 20.0  # Lab lightness; larger steps are borders rather than texture
TILE = 24
LAYOUT_TILES = 96  # of a canvas that is larger than those of the base
DRAWN_TILES = 4 * LAYOUT_TILES  # to choose them from
LAYOUT_SIDE = 256  # pixels; of coarser textures, and for larger pictures, tiles are as much larger
LARGEST_TILE = 4 * TILE
THINGS = 0.22  # unevenness of layout tiles; nine in ten materials are below, nine in ten photographs of objects above
UNEVEN = 0.155  # nine in ten materials are below, nine in ten photographs of objects above (docs/references.md)
TWO_CONTRASTS = 3.0  # times that of the wall behind it has a knitted sleeve, for them to be two textures
SMALLEST_SHARE = 0.15  # of the tiles, for that one to be the texture
FEWEST = 12  # different tiles of it; fewer repeat visibly
GUIDE_PATCH = 5  # side in pixels of the patches whose distribution guides the texture


def limited_detail(lightness: torch.Tensor, sigma: float = DETAIL_SIGMA) -> torch.Tensor:
    """Lightness (B, 1, H, W) without what varies more slowly than `sigma`, over 10, large steps softly limited."""
    detail = lightness - gaussian_blur(lightness, sigma)
    return DETAIL_LIMIT * torch.tanh(detail / DETAIL_LIMIT) / DETAIL_UNIT


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


def tile_size(side: float) -> int:
    """Side of the tiles of a canvas with the area of a square of `side` pixels."""
    coarse = min(max(1.0, side / LAYOUT_SIDE), LARGEST_TILE / TILE)
    return 12 * round(coarse * TILE / 12)  # a fourth of them overlaps, a sixth is from one to the next


def draw_tiles(
    detail: torch.Tensor,
    weight: torch.Tensor,
    num_tiles: int,
    generator: torch.Generator | None = None,
    mask: torch.Tensor | None = None,
    size: int = TILE,
) -> torch.Tensor:
    """Tiles of the detail in random order, (B, num_tiles, size, size): all that is left of the layout is inside a tile.

    Positions are drawn without replacement, and again from the start when there are too few. Those where `weight` is
    low, at borders between regions, come late: a border is shape, not texture. And they are spread over the picture:
    each further one in the same sixteenth of it is less likely. With a mask only those that lie in it as well as a tile
    can are drawn at all. Without a generator the draw is the same in every call. (Texture from shuffled exemplar
    patches: Efros and Freeman, "Image quilting", SIGGRAPH 2001.)
    """
    stride = size // 6
    tiles = F.unfold(detail, size, stride=stride)
    calm = F.unfold(weight, size, stride=stride).mean(1)
    generator = generator or torch.Generator().manual_seed(0)
    uniform = torch.rand(calm.shape[1], generator=generator, dtype=torch.float32).to(calm).clamp(1e-6, 1 - 1e-6)
    priority = 8 * torch.log(calm + 1e-4) - torch.log(-torch.log(uniform))  # Gumbel: a draw in proportion to calm^8
    rows, columns = ((side - size) // stride + 1 for side in detail.shape[2:])
    priority = priority - 2 * rank_in_cell(priority, rows, columns)
    allowed = torch.ones_like(calm, dtype=torch.bool) if mask is None else allowed_places(mask, size)
    order = priority.where(allowed, -torch.inf).argsort(dim=1, descending=True)
    # Shuffled again, or the first would be the calmest, and references that share the places would lend unlike parts.
    ranks = torch.randperm(num_tiles, generator=generator).to(order.device)
    order = order.gather(1, ranks % allowed.sum(1, keepdim=True))
    tiles = tiles.gather(2, order.unsqueeze(1).expand(-1, size * size, -1))
    return tiles.transpose(1, 2).unflatten(2, (size, size))


def stronger_texture(tiles: torch.Tensor) -> torch.Tensor:
    """Which of tiles (B, K, p, p) have the stronger of two contrasts, where there are two, and all where not: (B, K).

    A canvas of two textures is a flat one with scraps, or a rough one with holes. Whoever shows a knitted sweater on a
    sheet means the sweater. (The split: Otsu, "A threshold selection method from gray-level histograms", 1979.)
    """
    contrast = torch.log(tiles.float().var((2, 3)).sqrt() + 0.02)
    ordered, places = contrast.sort(1).values, torch.arange(1, contrast.shape[1], device=tiles.device)
    sums, rest = ordered.cumsum(1), contrast.shape[1] - places
    apart = (sums[:, -1:] - sums[:, :-1]) / rest - sums[:, :-1] / places
    split = (places * rest * apart.square()).argmax(1, keepdim=True)
    are_two = (apart.gather(1, split) >= math.log(TWO_CONTRASTS)) & (rest[split] >= SMALLEST_SHARE * contrast.shape[1])
    return (contrast > ordered.gather(1, split)) | ~are_two


def flattest(peak: torch.Tensor, among: torch.Tensor, count: int) -> torch.Tensor:
    """Places (B, count) of those tiles, in their order, in which no filter responds far more in one place than in all.

    What stands out of its tile is a thing and no texture: the border of a sleeve, a button, a hair. Without the
    tiles that have one, the canvas of a photograph has no scratches (docs/detail.md).

    Args:
        peak: how much the strongest response of a tile exceeds its mean, (B, K).
        among: which tiles count, (B, K) of bool. At most half of them are kept, and then taken again from the first on.
    """
    rank = peak.where(among, torch.inf).argsort(dim=1).argsort(dim=1)
    kept = rank < (among.sum(1, keepdim=True) // 2).clamp(1, count)
    order = (~kept).int().argsort(dim=1, stable=True)  # those that are kept first, as they were drawn
    return order.gather(1, torch.arange(count, device=peak.device) % kept.sum(1, keepdim=True))


def picked(values: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Entries (B, N, ...) of (B, K, ...) at places (B, N)."""
    return torch.stack([row[place] for row, place in zip(values, places, strict=True)])


def unlike(mean: torch.Tensor) -> torch.Tensor:
    """How much tiles differ (B,): the deviation of each filter's mean response to them, (B, K, 18) at equal contrast, over
    its mean, averaged over the filters."""
    return (mean.std(1) / (mean.mean(1) + 1e-3)).mean(1)


def allowed_places(mask: torch.Tensor, size: int) -> torch.Tensor:
    """Where in a mask (B, 1, H, W) tiles lie as well as they can: (B, N) of all places that `draw_tiles` knows."""
    inside = F.unfold(mask, size, stride=size // 6).mean(1)
    return inside >= 0.95 * inside.amax(1, keepdim=True)


def rank_in_cell(priority: torch.Tensor, rows: int, columns: int, cells: int = 4) -> torch.Tensor:
    """How many entries of (B, rows * columns) are larger and in the same cell of a grid of `cells` by `cells`."""
    down, across = (torch.arange(count, device=priority.device) * cells // count for count in (rows, columns))
    cell = (down[:, None] * cells + across).flatten()
    size = torch.bincount(cell, minlength=cells * cells)
    first = (size.cumsum(0) - size)[cell]  # the place of a cell's best entry when entries are sorted by cell
    order = (1e3 * cell.float() - priority.float()).argsort(dim=1)
    return order.argsort(dim=1) - first


def gabor_bank(size: int = 11) -> torch.Tensor:
    """18 Gabor filters (3 wavelengths, 6 orientations) of zero mean, (18, 1, size, size)."""
    axis = torch.linspace(-1, 1, size, dtype=torch.float32)
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


def patch_filters() -> torch.Tensor:
    """64 random projections of patches, of zero mean and unit norm: (64, 1, GUIDE_PATCH, GUIDE_PATCH)."""
    filters = torch.randn(
        64, 1, GUIDE_PATCH, GUIDE_PATCH, generator=torch.Generator().manual_seed(0), dtype=torch.float32
    )
    filters = filters - filters.mean((2, 3), keepdim=True)
    return filters / filters.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def patch_responses(detail: torch.Tensor, stride: int = 1) -> torch.Tensor:
    """Detail (B, 1, H, W) of any contrast to projections of its patches, (B, 64, N)."""
    even = detail / torch.sqrt(gaussian_blur(detail.square(), LOCAL_SIGMA) + 0.04)
    return F.conv2d(even, patch_filters().to(detail), stride=stride).flatten(2)


class TextureBranch(Branch):
    """Second-order statistics of filter magnitudes at two scales, learned means and deviations, and the contrast."""

    shared_out = ("tiles", "layout_tiles")

    def __init__(self, channels: int, num_tiles: int = 64):
        super().__init__()
        self.num_tiles = num_tiles
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

    @classmethod
    def from_encoder_config(cls, config: Any) -> "TextureBranch":
        return cls(config.texture_channels, config.num_tiles)

    def view(
        self, lab: torch.Tensor, smooth: torch.Tensor, mask: torch.Tensor, generator: torch.Generator | None = None
    ) -> dict[str, torch.Tensor]:
        view = texture_view(lab, smooth, mask)
        detail = view.pop("detail") * mask
        return {**view, "tiles": draw_tiles(detail, view["weight"], self.num_tiles, generator, mask)}

    def layout(self, lab: torch.Tensor, smooth: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        size = tile_size(math.sqrt(lab.shape[2] * lab.shape[3]))
        weight = texture_view(lab, smooth, mask)["weight"]
        detail = limited_detail(lab[:, :1], DETAIL_SIGMA * size / TILE)
        different = int(allowed_places(mask, size).sum(1).min())
        count = max(2 * LAYOUT_TILES, min(DRAWN_TILES, different))
        tiles = draw_tiles(detail * mask, weight, count, mask=mask, size=size)
        response = self._responses(tiles)
        mean = response.mean((3, 4))
        if unlike(mean).max() < THINGS:  # a wall: its joints stand out of its bricks and belong to them
            return {"layout_tiles": tiles[:, :LAYOUT_TILES]}
        peak = (response.amax((3, 4)) / (mean + 0.02)).mean(2)
        strong = stronger_texture(tiles)
        whole, part = (flattest(peak, among, LAYOUT_TILES) for among in (torch.ones_like(strong), strong))
        # What is stronger is the texture if it is more the same everywhere: a sweater is, the rims of a cup are not.
        is_one = unlike(picked(mean, part)) < unlike(picked(mean, whole))
        is_one &= torch.tensor(
            [len(row.unique()) >= FEWEST for row in picked(tiles.sum((2, 3)), part)], device=is_one.device
        )
        return {"layout_tiles": picked(tiles, torch.where(is_one[:, None], part, whole))}

    def unevenness(self, tiles: torch.Tensor) -> torch.Tensor:
        """How much tiles (B, K, p, p) differ, (B,)."""
        return unlike(self._responses(tiles).mean((3, 4)))

    def _responses(self, tiles: torch.Tensor) -> torch.Tensor:
        """How strongly the filters respond at equal contrast: tiles (B, K, p, p) to (B, K, 18, 24, 24)."""
        even = F.adaptive_avg_pool2d(tiles.float().flatten(0, 1).unsqueeze(1), TILE)
        even = even / (even.square().mean((1, 2, 3), keepdim=True) + 0.05**2).sqrt()
        return F.conv2d(even, self.bank.weight.float(), padding=5).abs().unflatten(0, tiles.shape[:2])

    def doubt(self, features: dict[str, torch.Tensor]) -> str | None:
        if self.unevenness(features["tiles"]).max() < UNEVEN:
            return None
        return (
            "looks like objects rather than like one texture: parts of them will lie about in the picture. Crop it to a "
            "part that is the same everywhere, or give it a mask of such a part"
        )

    def features(self, view: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        read = {key: value for key, value in view.items() if key != "tiles"}
        return {"vector": self(**read), "tiles": view["tiles"]}

    @property
    def card_shapes(self) -> dict[str, tuple[int | str, ...]]:
        return {
            "vector": (1, self.out_features),
            "tiles": (1, self.num_tiles, TILE, TILE),
            "layout_tiles": (1, LAYOUT_TILES, "side", "side"),
        }

    def target(self, features: dict[str, torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
        tiles = features["tiles"]
        responses = patch_responses(tiles.flatten(0, 1).unsqueeze(1))
        return quantiles(responses.unflatten(0, tiles.shape[:2]).transpose(1, 2).flatten(2))

    def distance(self, lab: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """As of color, of small patches of detail at equal contrast (as GPDM, Elnekave and Weiss, arXiv 2203.11862)."""
        inside = F.avg_pool2d(mask, GUIDE_PATCH, stride=2)
        return transport_cost(patch_responses(limited_detail(lab[:, :1]), 2), target, as_shares(inside))
