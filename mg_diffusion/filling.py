"""Filling a hole with what surrounds it, at a picture's own resolution: no network paints, patches of the picture go on.

From coarse to fine (Wexler, Shechtman and Irani, "Space-time completion of video", TPAMI 2007): each picture of a pyramid
begins with the places that the smaller one found. Patches are compared by Lab and by how much texture there is, so that
a smooth patch is no likeness of a rough one (Newson et al., SIIMS 2014). Where they meet what surrounds the hole, `seams`
joins them.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from .encoder.views import lab_to_rgb, rgb_to_lab
from .patches import PatchLevel, extents, grown
from .recoloring import to_pixels, to_rgb
from .seams import joined


DEEPEST = 4  # rings of pixels from the edge of the hole to its middle, at most, in the smallest picture
LEAST_SIDE = 24  # of that picture
ROUNDS = (12, 3)  # of search and vote, in the smallest picture and in the largest; between them in between
NEAR = 8  # pixels around what a smaller picture found that are searched
TEXTURE = 4.0  # how much the amount of texture counts beside Lab
LEAST_MARGIN = 64  # pixels around the hole that are read
NEARNESS, RARITY = 8.0, 0.0  # in a hole, the first times the picture's variance; what is rare there may be needed
NEARNESS_AROUND, RARITY_AROUND = 16.0, 0.1  # around a picture: its ground near the edge goes on, not a second moon


@torch.autocast("cpu", enabled=False)  # it would round colors
def fill(
    image: np.ndarray,
    mask: np.ndarray,
    margin: int | None = None,
    seed: int = 0,
    step: Callable[[float], None] = lambda share: None,
    unknown: np.ndarray | None = None,
    around: bool = False,
) -> np.ndarray:
    """The picture (H, W, 3) of 8 or 16 bits, filled where `mask` (H, W) bool is; elsewhere it is the same, bit for bit.

    Args:
        margin: pixels around the hole that are read; as many as it is large if not given, at least 64.
        seed: of the places that are tried.
        step: called now and then with the share that is done, in [0, 1]; what it raises stops the work.
        unknown: (H, W) bool, what is not to be read although it is not filled, such as what is transparent.
        around: whether the hole lies around what is known: then nothing that is far from the edge goes on, or that is there
            only once.

    Raises:
        ValueError: for a mask without anything inside, or with too little outside.
    """
    if not mask.any():
        raise ValueError("The mask is empty: there is nothing to fill.")
    rows, columns = _around(mask, margin)
    part, hole = image[rows, columns], mask[rows, columns]
    unread = hole if unknown is None else hole | unknown[rows, columns]
    lab = rgb_to_lab(to_rgb(part)) / 100
    filled = _completed(lab, torch.from_numpy(unread.copy()), torch.Generator().manual_seed(seed), step, around)
    made = to_pixels(lab_to_rgb(100 * filled), part.dtype)
    result = image.copy()
    result[rows, columns] = np.where(hole[..., None], made, part)
    return result


def _around(mask: np.ndarray, margin: int | None) -> tuple[slice, slice]:
    """The rows and columns that are read: those of the hole and a margin."""
    found = []
    for first, end in extents(torch.from_numpy(mask)):
        wide = max(LEAST_MARGIN, end - first) if margin is None else margin
        found.append(slice(max(0, first - wide), end + wide))
    return tuple(found)


def _completed(
    lab: torch.Tensor, hole: torch.Tensor, generator: torch.Generator, step: Callable[[float], None], around: bool
) -> torch.Tensor:
    """(1, 3, H, W) Lab over 100, its hole (H, W) filled."""
    levels = _pyramid(lab, hole)
    nearness = NEARNESS_AROUND if around else NEARNESS * float(lab[0, :, ~hole].var(1).sum())
    size, level = sum(hole.numel() for _, hole in levels), None
    done = 0
    for number, (picture, hole) in enumerate(levels):
        smaller, level = level, _level_of(picture, hole, nearness)
        if smaller is None:
            level.peel(RARITY_AROUND if around else RARITY)
        else:
            level.carry(smaller, generator)
        rounds = round(np.interp(number, (0, max(1, len(levels) - 1)), ROUNDS))
        for turn in range(rounds):
            is_last = number == len(levels) - 1 and turn == rounds - 1
            level.search(generator, max(level.height, level.width) if smaller is None else NEAR)
            level.vote(keeps_grain=is_last)
            done += hole.numel() / rounds
            step(min(1.0, done / size))
    return joined(level).permute(2, 0, 1)[None]


def _pyramid(lab: torch.Tensor, hole: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Pictures (1, 5, h, w) and holes (h, w), the smallest first; a cell is known if half of it is."""
    holes = [hole]
    while _depth(holes[-1]) > DEEPEST and min(holes[-1].shape) >= 2 * LEAST_SIDE:
        height, width = (side // 2 * 2 for side in holes[-1].shape)
        holes.append(F.avg_pool2d(holes[-1][None, None, :height, :width].float(), 2)[0, 0] > 0.5)
    picture = torch.cat([lab, TEXTURE * _texture(lab[:, :1], ~hole, 2 ** (len(holes) - 1))], 1)
    known, pictures = (~hole)[None, None].float(), [picture]
    for smaller in holes[1:]:
        height, width = (2 * side for side in smaller.shape)
        known, picture = known[..., :height, :width], picture[..., :height, :width]
        share = F.avg_pool2d(known, 2)
        picture = F.avg_pool2d(picture * known, 2) / share.clamp(min=1e-6)
        known = (~smaller)[None, None].float()
        pictures.append(picture)
    return list(zip(pictures, holes, strict=True))[::-1]


def _level_of(picture: torch.Tensor, hole: torch.Tensor, nearness: float) -> PatchLevel:
    try:
        return PatchLevel(picture[0].permute(1, 2, 0).contiguous(), hole, nearness)
    except ValueError:
        raise ValueError(
            "Around the mask too little of the picture is left to go on with. Make the mask smaller, or what is read around it "
            "(`padding_mask_crop`, `--crop`) larger; where you outpaint, add less at a time."
        ) from None


def _texture(lightness: torch.Tensor, known: torch.Tensor, radius: int) -> torch.Tensor:
    """Mean differences between known neighbors along and across, (1, 2, H, W), over three cells of the smallest picture."""
    known = known[None, None].float()
    across = (lightness[..., 1:] - lightness[..., :-1]).abs() * known[..., 1:] * known[..., :-1]
    along = (lightness[..., 1:, :] - lightness[..., :-1, :]).abs() * known[..., 1:, :] * known[..., :-1, :]
    both = torch.cat([F.pad(across, (0, 1)), F.pad(along, (0, 0, 0, 1))], 1)
    cells = F.avg_pool2d(torch.cat([both, known], 1), radius, ceil_mode=True)
    mean = F.avg_pool2d(cells, 3, 1, 1)
    return F.interpolate(mean[:, :2] / mean[:, 2:].clamp(min=1e-6), known.shape[2:], mode="bilinear")


def _depth(hole: torch.Tensor) -> int:
    """Rings of pixels from the edge of a hole to its middle, counted up to one more than `DEEPEST`."""
    rings = 0
    while hole.any() and rings <= DEEPEST:
        hole, rings = ~grown(~hole, 1), rings + 1
    return rings
