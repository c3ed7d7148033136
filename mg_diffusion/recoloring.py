"""Other colors at a picture's own resolution: nothing is painted, the palette moves.

The palette is laid into the regions of the picture at about 256 x 256 pixels, as into those of a shape reference, and what
has about one color in the picture is given one (`color_groups`). What that says of hue and chroma is carried up by
`LocalModel`, so that every edge of the picture is one of the result. Lightness is the picture's own: at large it is moved by
one rising curve toward that of the palette, so that what is lighter stays lighter; details, which the curve would flatten
where it is flat, are kept as they are (tone mapping by a base and details: Durand and Dorsey, SIGGRAPH 2002). Black and
white are no colors of a picture in color, and stay: the night around the stars, the paper around the drawing (`neutrals`).
"""

from collections.abc import Callable

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F

from .adapter.sketch import lay_palette, turn_colors
from .connected import connected
from .encoder.color_groups import one_color_each
from .encoder.references import parse_palette
from .encoder.structure import nearest_turn, structure_map
from .encoder.views import edge_preserving_smooth, gaussian_blur, half_light, lab_to_rgb, lit_alike, rgb_to_lab
from .hex_colors import check_selection
from .neutrals import as_neutral, counted, keeps_neutrals, share_of_color


SIDE = 256  # of a square with the area of what the palette is laid into
RADIUS = 4  # cells around each that its linear model is fitted to
FLOOR = 1e-3  # variance, of Lab over 100, below which a picture says nothing about where an edge is
SLOPES = (0.35, 2.5)  # of the curve of lightness: details neither vanish nor grow coarse
PASSES = 3  # of the smoothing that leaves lightness at large
CURVE_BLUR = 6.0  # units of lightness: a palette of few colors must not make steps
STRIP = 256  # rows that are computed at once


@torch.autocast("cpu", enabled=False)  # it would round colors
def recolored(
    image: np.ndarray,
    palette: torch.Tensor,
    mask: np.ndarray | None = None,
    turn: torch.Tensor | None = None,
    strength: float = 1.0,
    step: Callable[[float], None] = lambda share: None,
) -> np.ndarray:
    """The picture in the colors of a palette, (H, W, 3) of as many bits.

    Args:
        image: (H, W, 3) of 8 or 16 bits, sides of at least 16 pixels.
        palette: (1, N, 3) Lab colors of equal weight; a single color gives its shades.
        mask: (H, W) of 8 bits, 255 where the picture is recolored; where it is 0, not everywhere, no pixel differs.
        turn: (1, 3, 3) on the CPU, which color goes to which region (`random_turns`); by light if not given.
        strength: how far the colors move: 0 is the picture, 1 the palette, more goes beyond it.
        step: called with the share that is done, in [0, 1]; what it raises stops the work.
    """
    if strength == 0:
        return image.copy()
    small = small_lab(image)
    area = torch.ones_like(small[:, :1]) if mask is None else _small_area(mask, small)
    colored = area * share_of_color(small)
    is_kept = keeps_neutrals(small, area, colored, is_selected=mask is not None)
    colored = colored if is_kept else area
    laid, follows = counted(area, colored)
    palette, smooth = palette.to(small), edge_preserving_smooth(small)
    wanted = _shades(small, palette, colored) if _is_one_color(palette) else _laid(smooth, palette, laid, turn)
    for _ in range(PASSES - 1):
        smooth = edge_preserving_smooth(smooth)
    moves = share_of_color(small) if is_kept else torch.ones_like(area)
    model = LocalModel(small / 100, torch.cat([smooth[:, :1], wanted[:, 1:], 100 * moves], 1) / 100)
    curve = lightness_curve(small[:, :1], wanted[:, :1], colored)
    curve = follows * curve + (1 - follows) * np.arange(101)
    result = image.copy()
    for top in range(0, len(image), STRIP):
        rows = slice(top, top + STRIP)
        lab = rgb_to_lab(to_rgb(image[rows]))
        found = 100 * model(lab / 100, top, len(image))
        at_large = torch.from_numpy(np.interp(found[:, :1].numpy(), np.arange(101), curve)).to(lab)
        moves = (found[:, 3:] / 100).clamp(0, 1)
        lightness = (lab[:, :1] + moves * (at_large - found[:, :1])).clamp(0, 100)
        moved = torch.cat([lightness, as_neutral(lab, found[:, 1:3], moves)], 1)
        share = strength if mask is None else strength * to_rgb(mask[rows, :, None])
        made = lab_to_rgb(torch.lerp(lab, moved, torch.as_tensor(share, dtype=torch.float32)))
        made = to_pixels(made, image.dtype)
        result[rows] = made if mask is None else np.where(mask[rows, :, None] > 0, made, image[rows])
        step(min(1.0, (top + STRIP) / len(image)))
    return result


@torch.autocast("cpu", enabled=False)  # it would round colors
def select_color(image: np.ndarray, color: str, tolerance: float) -> np.ndarray:
    """Where a picture (H, W, 3) of 8 or 16 bits has about a color, "#rrggbb": (H, W) of 8 bits, with soft edges.

    What is clearly of the color is selected, and what is connected with that and of about it: the shade of a coat, and not
    the flag behind it (two thresholds, as in Canny's detector of edges).

    Args:
        tolerance: Delta-E (CIE76) up to which what is connected is selected; at half as much again nothing is, and up to
            half of it, or beyond what is nearest, a place is clearly of the color. Differences of lightness count half, and
            shades are compared as if they were in the light: a red in the shade is a red.

    Raises:
        ValueError: if there is nothing, with what is nearest; for another color than one in hex.
    """
    check_selection(color)
    small = small_lab(image)
    wanted = rgb_to_lab(parse_palette([color])[0].view(1, 3, 1, 1))
    smooth = edge_preserving_smooth(small)
    lit = lit_alike(smooth, wanted[:, :1])
    distance = (lit - half_light(wanted)).square().sum(1, keepdim=True).sqrt()
    share = (3 - 2 * distance / tolerance).clamp(0, 1)
    if share.max() < 1:
        nearest = smooth.flatten(2)[..., distance.flatten().argmin()]
        red, green, blue = (lab_to_rgb(nearest[..., None, None]).flatten() * 255).round().int().tolist()
        raise ValueError(
            f"No part of the picture is within {tolerance:g} of {color}; the nearest, #{red:02x}{green:02x}{blue:02x}, is "
            f"{distance.min():.0f} away (Delta-E, lightness counted half, shades brought to the light). Select that, or raise the tolerance."
        )
    clearly = distance <= torch.clamp(distance.min(), max=tolerance / 2) + tolerance / 2
    share = share * connected(lit, clearly[0, 0], share[0, 0] > 0)[0]
    model = LocalModel(small / 100, share)
    mask = np.zeros(image.shape[:2], np.uint8)
    for top in range(0, len(image), STRIP):
        found = model(rgb_to_lab(to_rgb(image[top : top + STRIP])) / 100, top, len(image))[0, 0]
        mask[top : top + STRIP] = (255 * found.where(found > 0.05, 0).clamp(0, 1)).round()  # what is left of blur
    return mask


class LocalModel:
    """Values of a small picture as a function of its colors that is linear around each cell, to be read at any size.

    (Fast guided filter with a guide of three channels: He et al., TPAMI 2013; He and Sun, arXiv 1505.00996.)

    Args:
        guide: (1, 3, h, w), Lab over 100; values: (1, C, h, w).
    """

    def __init__(self, guide: torch.Tensor, values: torch.Tensor):
        mean, target = _box(guide), _box(values)
        variance = _products(guide, guide) - mean.unsqueeze(2) * mean.unsqueeze(1)
        shared = _products(guide, values) - mean.unsqueeze(2) * target.unsqueeze(1)
        variance, shared = (x.permute(0, 3, 4, 1, 2) for x in (variance, shared))
        slopes = torch.linalg.solve(variance + FLOOR * torch.eye(3, dtype=torch.float32).to(variance), shared).permute(
            0, 3, 4, 1, 2
        )
        offsets = target - (slopes * mean.unsqueeze(2)).sum(1)
        self.coefficients = _box(torch.cat([slopes, offsets.unsqueeze(1)], 1).flatten(1, 2))

    def __call__(self, guide: torch.Tensor, top: int, height: int) -> torch.Tensor:
        """Values (1, C, n, W) of the rows (1, 3, n, W) that begin at `top` of a picture of this height."""
        count, width = guide.shape[2:]
        small = self.coefficients.shape[2]
        places = ((torch.arange(top, top + count, dtype=torch.float32) + 0.5) * small / height - 0.5).clamp(
            0, small - 1
        )
        above = places.long()
        below = (above + 1).clamp(max=small - 1)
        rows = torch.lerp(
            self.coefficients[:, :, above],
            self.coefficients[:, :, below],
            (places - above).to(guide).view(1, 1, -1, 1),
        )
        rows = F.interpolate(rows, (count, width), mode="bilinear").unflatten(1, (4, -1))
        return (rows[:, :3] * guide.unsqueeze(2)).sum(1) + rows[:, 3]


def lightness_curve(source: torch.Tensor, wanted: torch.Tensor, weight: torch.Tensor) -> np.ndarray:
    """What lightness 0, 1, ... 100 becomes, (101,): the quantiles of one map go to those of another, where slopes allow.

    Args:
        source, wanted, weight: (1, 1, h, w), lightness and how much a place counts.
    """
    share = _histogram(source, weight)
    reached, asked = (_smooth(_histogram(one, weight) + 1e-5, 3.0).cumsum(0) for one in (source, wanted))
    matched = np.interp((reached / reached[-1]).numpy(), (asked / asked[-1]).numpy(), np.arange(101))
    matched = _smooth(torch.from_numpy(matched).float(), CURVE_BLUR)
    curve = F.pad(matched.diff().clamp(*SLOPES).cumsum(0), (1, 0))
    return (curve + ((matched - curve) * share).sum()).numpy()  # of the same mean


def _laid(smooth: torch.Tensor, palette: torch.Tensor, area: torch.Tensor, turn: torch.Tensor | None) -> torch.Tensor:
    structure = structure_map(smooth, area)
    turn = nearest_turn(structure.flatten(2), smooth.flatten(2), area.flatten(2)) if turn is None else turn
    # Without flow: groups of the picture's own colors get one color each, and more edges stay where they are.
    laid = lay_palette(turn_colors(structure, turn), palette, area, flow_rounds=0)
    return torch.cat([laid[:, :1], one_color_each(smooth, laid[:, 1:], area)], 1)


def _shades(small: torch.Tensor, palette: torch.Tensor, area: torch.Tensor) -> torch.Tensor:
    """One color, lighter and darker as the picture is."""
    color = palette.mean(1)[..., None, None]
    mean = (small[:, :1] * area).sum() / area.sum()
    return torch.cat([small[:, :1] - mean + color[:, :1], color[:, 1:].expand(-1, -1, *small.shape[2:])], 1)


def _is_one_color(palette: torch.Tensor) -> bool:
    return (palette.amax(1) - palette.amin(1)).max() < 1e-3


def small_lab(image: np.ndarray, side: float = SIDE) -> torch.Tensor:
    """Lab (1, 3, h, w) of a picture of about side x side pixels, if it is larger."""
    height, width = image.shape[:2]
    factor = min(1.0, side / (height * width) ** 0.5)
    size = (max(16, round(width * factor)), max(16, round(height * factor)))
    image = image if image.dtype == np.uint8 else (image / 257).round().astype(np.uint8)  # Pillow has no deeper colors
    return rgb_to_lab(to_rgb(np.asarray(PIL.Image.fromarray(image).resize(size, PIL.Image.Resampling.BOX))))


def _small_area(mask: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    """How much of each cell a mask covers, (1, 1, h, w); floating, so that a few of many million pixels are not nothing."""
    shrunk = PIL.Image.fromarray(mask).convert("F").resize(like.shape[:1:-1], PIL.Image.Resampling.BOX)
    return torch.from_numpy(np.array(shrunk))[None, None] / 255


def to_rgb(pixels: np.ndarray) -> torch.Tensor:
    """(H, W, C) of 8 or 16 bits to (1, C, H, W) in [0, 1]."""
    return torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None] / np.iinfo(pixels.dtype).max


def to_pixels(rgb: torch.Tensor, dtype: np.dtype) -> np.ndarray:
    """(1, C, H, W) to (H, W, C) of 8 or 16 bits; what is beyond [0, 1] is cut off."""
    most = np.iinfo(dtype).max
    return (most * rgb[0].permute(1, 2, 0).clamp(0, 1)).round().numpy().astype(dtype)


def _box(maps: torch.Tensor) -> torch.Tensor:
    """Means (B, C, h, w) over the cells around each."""
    padded = F.pad(maps, (RADIUS,) * 4, mode="replicate")
    return F.avg_pool2d(padded, 2 * RADIUS + 1, 1)


def _products(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Means of a_i b_j around each cell, (1, I, J, h, w)."""
    return _box((a.unsqueeze(2) * b.unsqueeze(1)).flatten(1, 2)).unflatten(1, (a.shape[1], b.shape[1]))


def _histogram(lightness: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    places = lightness.flatten().round().clamp(0, 100).long()
    return torch.zeros(101, dtype=torch.float32).to(lightness).index_add_(0, places, weight.flatten()) / weight.sum()


def _smooth(curve: torch.Tensor, sigma: float) -> torch.Tensor:
    return gaussian_blur(curve.view(1, 1, 1, -1), sigma).flatten()
