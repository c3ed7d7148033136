"""The forms of a reference beside pictures: palettes, weights, regions."""

import math
import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F

from .reading import open_picture, pil_to_rgb, upright_reference


HEX_COLOR = re.compile(r"^#([0-9a-fA-F]{6})(?::([0-9]*\.?[0-9]+))?$")


def is_palette(reference: Any) -> bool:
    """Whether a reference is a palette of hex colors: a non-empty list of strings that begin with "#"."""
    return (
        isinstance(reference, (list, tuple))
        and len(reference) > 0
        and all(isinstance(entry, str) and entry.startswith("#") for entry in reference)
    )


def parse_palette(palette: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """`["#ff8800:3", "#224466"]` -> RGB (N, 3) in [0, 1] and weights (N,) that sum to 1.

    Raises:
        ValueError: for an entry that is not `#rrggbb` or `#rrggbb:weight` with a positive weight.
    """
    colors, weights = [], []
    for entry in palette:
        match = HEX_COLOR.match(entry)
        weight = float(match.group(2) or 1.0) if match else 0.0
        if weight <= 0 or not math.isfinite(weight):
            raise ValueError(
                f'A palette entry must be "#rrggbb" or "#rrggbb:weight" with a positive weight, got {entry!r}.'
            )
        colors.append([int(match.group(1)[i : i + 2], 16) / 255 for i in (0, 2, 4)])
        weights.append(weight)
    weights = torch.tensor(weights)
    return torch.tensor(colors), weights / weights.sum()


def read_weight(fields: dict[str, Any]) -> float:
    """The weight of a reference given as a dict; 1 where none is named."""
    try:
        weight = float(fields.get("weight", 1.0))
    except (TypeError, ValueError):
        weight = math.nan
    if not weight > 0 or not math.isfinite(weight):
        raise ValueError(f"A reference's weight must be a positive number, got {fields['weight']!r}.")
    return weight


def read_region(region: Any, size: tuple[int, int]) -> torch.Tensor:
    """Where in the output a reference counts, and how much: (1, 1, *size) in [0, 1].

    Args:
        region: a box (left, top, right, bottom) in fractions of the output, or a mask of any size, laid over the
            output: PIL image, path, numpy (H, W) or torch (H, W); bool, uint8 or floating point in [0, 1]. What is
            gray counts in part.
        size: (height, width).

    Raises:
        ValueError: for another type, other values, or a region without any area.
    """
    if isinstance(region, (tuple, list)):
        mask = box_mask(region, size)
    else:
        mask = gray_mask(region)
    if not mask.any():
        raise ValueError("A reference's region is empty (all black). White is where the reference counts.")
    return F.interpolate(mask[None, None], size=size, mode="area")


def box_mask(box: Sequence[float], size: tuple[int, int]) -> torch.Tensor:
    """A box in fractions as a mask of `size`; pixels that it cuts count in part."""
    try:
        left, top, right, bottom = (float(value) for value in box)
    except (TypeError, ValueError) as error:
        raise ValueError(f"A region is a mask or a box (left, top, right, bottom), got {box!r}.") from error
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise ValueError(
            f"A region's box is (left, top, right, bottom) in fractions of the output, with 0 <= left < right <= 1 and "
            f"0 <= top < bottom <= 1; got {tuple(box)}."
        )
    down, across = (
        (end * side - torch.arange(side)).clamp(0, 1) - (start * side - torch.arange(side)).clamp(0, 1)
        for start, end, side in ((top, bottom, size[0]), (left, right, size[1]))
    )
    return down[:, None] * across


def gray_mask(region: Any) -> torch.Tensor:
    """A mask with gray levels as (H, W) in [0, 1]."""
    if isinstance(region, (str, os.PathLike)):
        region = open_picture(region)
    if isinstance(region, PIL.Image.Image):
        return pil_to_rgb(upright_reference(region, "A region")).mean(0)
    array = region.detach().cpu().numpy() if isinstance(region, torch.Tensor) else region
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "buf" or array.ndim != 2 or not array.size:
        raise ValueError(
            f"A region must be a box, a PIL image, a path, or an array (height, width) of bool, uint8 or floating "
            f"point, got {getattr(array, 'shape', type(region).__name__)}."
        )
    mask = torch.from_numpy(array.astype(np.float32)) / (255 if array.dtype.kind == "u" else 1)
    if not (mask.min() >= 0 and mask.max() <= 1):
        raise ValueError(f"A region in floating point must lie in [0, 1], got [{mask.min():.3g}, {mask.max():.3g}].")
    return mask


def lay_into(x: torch.Tensor, region: torch.Tensor) -> torch.Tensor:
    """A map (1, C, h, w), resized to the bounding box of a region (1, 1, H, W) and zero around it: (1, C, H, W)."""
    rows, columns = (region[0, 0].amax(axis).nonzero().flatten().tolist() for axis in (1, 0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    size = (bottom - top, right - left)
    laid = F.interpolate(x, size=size, mode="bilinear", antialias=True, align_corners=False)
    height, width = region.shape[2:]
    return F.pad(laid, (left, width - right, top, height - bottom))


def share_out(values: list[torch.Tensor], weights: list[float]) -> torch.Tensor:
    """Fill the places of (1, K, ...) from several such tensors, each its share: a mean of tiles would be a blur."""
    count = values[0].shape[1]
    reached = torch.tensor(weights).cumsum(0) * count
    owner = torch.searchsorted(reached, torch.arange(count) + 0.5).clamp(max=len(values) - 1)
    return torch.stack(values)[owner, :, torch.arange(count)].transpose(0, 1)
