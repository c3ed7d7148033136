"""Restoring by the detail network: what lies under noise, blur and the blocks of JPEG, in one evaluation (noise: in four).

The network reads a picture with faults where it otherwise reads a sketch; the strength `FAULTY`, which no sketch has, says so.
In place of the strength of a canvas it is told how far the picture is blurred, and noise is told as that of a smaller picture
is. It begins from nothing at the first, noisiest step, and gives what is to be added to the faulty picture (residual
learning: Zhang et al., DnCNN, arXiv 1608.03981; at half the size, told the level: FFDNet, arXiv 1710.04026).
"""

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F

from .noise_level import estimate_noise
from .octaves import HAAR_CHANNELS, build_scheduler, condition, predict_cells, to_cells, to_picture


FAULTY = -1.0  # in place of a sketch's strength
HALF = 127.5  # of 255 are 1 in [-1, 1]
MOST_BLUR = 1.5  # deviation in pixels
TILE = 512  # side in pixels of what is computed at once
OVERLAP = 64
AVERAGES = 3  # channels of Haar cells; all others are details
SHIFTS = ((0, 0), (1, 1), (0, 1), (1, 0))  # places of the grid of cells on the pixels
LARGE = 4_000_000  # pixels of a picture above which two of them have to do


def faulty_condition(picture: torch.Tensor, blur: torch.Tensor) -> torch.Tensor:
    """What the network reads of a picture (B, 3, H, W) in [-1, 1] with faults, blurred by `blur` (B, 1, 1, 1) pixels."""
    smaller = F.avg_pool2d(picture, 2)
    blank = torch.zeros_like(picture[:, :1])
    return condition(smaller, blank, blur, FAULTY * picture, torch.full_like(blur, FAULTY))


def details_of(conditions: torch.Tensor) -> torch.Tensor:
    """Haar cells (B, 12, h, w) that the prediction is added to besides the smaller picture: those of faulty pictures."""
    sketch, scale = conditions[:, 8:20], conditions[:, 20:21]
    cells = to_cells(F.pixel_shuffle(sketch, 2))
    cells[:, :AVERAGES] = 0  # these are the smaller picture
    return cells * (scale < 0)


def restored_cells(unet: torch.nn.Module, conditions: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """The clean cells (B, 12, h, w) in one evaluation; `levels` (B,) as of `predict_cells`."""
    nothing = conditions.new_zeros(len(conditions), HAAR_CHANNELS, *conditions.shape[2:])
    noisiest = torch.full((len(conditions),), len(build_scheduler().alphas_cumprod) - 1, device=conditions.device)
    return predict_cells(unet, nothing, noisiest, conditions, levels) + details_of(conditions)


@torch.no_grad()
def restore(
    unet: torch.nn.Module,
    image: np.ndarray,
    noise_level: float | None = None,
    blur: float = 0.0,
    step: Callable[[float], None] = lambda share: None,
    overshoot: float = 1.0,
) -> np.ndarray:
    """What a picture (H, W, 3) of 8 or 16 bits would be without noise, blur and the blocks of JPEG, of the same kind.

    Args:
        noise_level: deviation of the noise, of 255, at most `noise_level.MOST_NOISE`; estimated if not given.
        blur: deviation in pixels of what the picture was blurred by, at most `MOST_BLUR`.
        step: called with the share that is done, in [0, 1]; what it raises stops the work.
        overshoot: how much is left, in [0, 1], of what goes beyond the darkest and the lightest pixels around: a picture
            that was not blurred gets outlines and halos there.
    """
    noise_level = estimate_noise(image) if noise_level is None else noise_level
    shifts = SHIFTS[: 1 if noise_level == 0 else 4 if image.shape[0] * image.shape[1] <= LARGE else 2]

    def restored(tile: torch.Tensor) -> torch.Tensor:
        amount = torch.full((len(tile), 1, 1, 1), blur, dtype=torch.float32).to(tile)
        level = torch.full((len(tile),), noise_level / HALF, dtype=torch.float32).to(tile)
        return to_picture(restored_cells(unet, faulty_condition(tile, amount), level))

    unit = _unit(unet)

    def computed(tile: torch.Tensor) -> torch.Tensor:
        made = _over_shifts(tile, restored, shifts, unit)
        return made if overshoot == 1 else torch.lerp(_within_range_of(tile, made), made, overshoot)

    return _by_tiles(unet, image, computed, 1, step)


@torch.no_grad()
def enlarge(
    unet: torch.nn.Module, image: np.ndarray, step: Callable[[float], None] = lambda share: None
) -> np.ndarray:
    """A picture (2 H, 2 W, 3) of 8 or 16 bits of one of half the size."""

    def enlarged(tile: torch.Tensor) -> torch.Tensor:
        nothing = torch.zeros_like(tile[:, :1])
        blank = F.interpolate(nothing, scale_factor=2)
        conditions = condition(tile, blank, nothing, blank.expand(-1, 3, -1, -1), nothing)
        return to_picture(restored_cells(unet, conditions, tile.new_zeros(len(tile))))

    return _by_tiles(unet, image, enlarged, 2, step)


def _within_range_of(tile: torch.Tensor, made: torch.Tensor) -> torch.Tensor:
    """What was made of a tile, cut off at the darkest and the lightest of the 3 x 3 pixels of the tile around each."""
    return torch.clamp(made, -F.max_pool2d(-tile, 3, 1, 1), F.max_pool2d(tile, 3, 1, 1))


def _over_shifts(
    tile: torch.Tensor, compute: Callable[[torch.Tensor], torch.Tensor], shifts: Sequence[tuple[int, int]], unit: int
) -> torch.Tensor:
    """Mean of what is made of a tile (B, 3, H, W) with the grid of cells at several places.

    A cell is two pixels wide: what is left of noise has its weave, another one at each place (cycle spinning: Coifman and
    Donoho, "Translation-invariant de-noising", 1995).
    """
    height, width = tile.shape[2:]
    total = torch.zeros_like(tile)
    for down, right in shifts:
        moved = F.pad(tile, (right, -right % unit, down, -down % unit), mode="replicate")
        total += compute(moved)[..., down : down + height, right : right + width]
    return total / len(shifts)


def _by_tiles(
    unet: torch.nn.Module,
    image: np.ndarray,
    compute: Callable[[torch.Tensor], torch.Tensor],
    factor: int,
    step: Callable[[float], None],
) -> np.ndarray:
    """A picture of `factor` times the size, tile by tile; where tiles overlap one fades into the other."""
    unit = _unit(unet)
    height, width = image.shape[:2]
    bottom, right = (max(-side % unit, unit - side) for side in (height, width))
    padded = np.pad(
        image, ((0, bottom), (0, right), (0, 0)), mode="symmetric" if min(height, width) >= unit else "edge"
    )
    tile, half = TILE // factor, np.iinfo(image.dtype).max / 2
    rows, columns = (_starts(side, tile) for side in padded.shape[:2])
    total = np.zeros((factor * padded.shape[0], factor * padded.shape[1], 3), np.float32)
    weight = np.zeros((*total.shape[:2], 1), np.float32)
    done = 0
    for top, left in product(rows, columns):
        part = padded[top : top + tile, left : left + tile]
        pixels = torch.from_numpy(part.astype(np.float32)).permute(2, 0, 1)[None] / half - 1
        pixels = pixels.to(unet.device, unet.dtype)
        made = compute(pixels)[0].permute(1, 2, 0).float().cpu().numpy()
        share = _ramp(made.shape[0])[:, None, None] * _ramp(made.shape[1])[None, :, None]
        place = slice(factor * top, factor * (top + tile)), slice(factor * left, factor * (left + tile))
        total[place] += share * made
        weight[place] += share
        done += 1
        step(done / (len(rows) * len(columns)))
    made = (total / weight)[: factor * height, : factor * width]
    return ((made + 1) * half).round().clip(0, 2 * half).astype(image.dtype)


def _unit(unet: torch.nn.Module) -> int:
    """Pixels that the sides of what the network reads are multiples of."""
    return 2 ** len(unet.config.block_out_channels)


def _starts(side: int, tile: int) -> list[int]:
    """Where tiles begin that cover a side, each overlapping the one before."""
    if side <= tile:
        return [0]
    count = 1 + -(-(side - tile) // (tile - OVERLAP))
    return [round(number * (side - tile) / (count - 1)) // 2 * 2 for number in range(count)]


def _ramp(length: int) -> np.ndarray:
    """Weights along a tile: they rise from its ends over what overlaps."""
    places = np.minimum(np.arange(length), np.arange(length)[::-1]) + 1
    return np.minimum(1, places / OVERLAP).astype(np.float32)
