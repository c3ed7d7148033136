"""Masks of named edits, in whatever form they come."""

import os
from typing import Any

import numpy as np
import PIL.Image

from ..masks import RESIZE, read_one_mask
from ..pictures import upright


POLARITY = "White is edited."  # said in every error about a mask


def read_mask(mask: Any, size: tuple[int, int] | None = None, use: str = "edited") -> np.ndarray:
    """A mask as (H, W) of 8 bits: 255 is edited, 0 is not, gray in part.

    Args:
        mask: PIL image or path of any gray mode or RGB; of one with transparent pixels its alpha is the mask, and its
            colors are not read. Or an array, numpy or torch, (H, W), or with 1, 3 or 4 channels that are the same: bool,
            floating point in [0, 1], 8 or 16 bits, 0 and 1, or 0 and 255.
        size: (width, height) of the picture it belongs to.
        use: what happens to what is white, for messages.

    Raises:
        ValueError: for another type, shape, range or size, a damaged file, or if nothing is selected.
    """

    try:
        if isinstance(mask, (str, os.PathLike, PIL.Image.Image)):
            mask = upright(mask, "mask_image")
        levels = (255 * read_one_mask(mask, "The mask", is_cut_out=True)).round().astype(np.uint8)
        if size is not None and levels.shape[::-1] != tuple(size):
            raise ValueError(
                f"The mask must have the size of the picture, {tuple(size)}, got {levels.shape[::-1]}. {RESIZE}"
            )
        if not levels.any():
            raise ValueError(
                f"The mask is all black, so nothing would be {use}. Paint white what is to be, or invert the mask."
            )
    except ValueError as error:
        raise ValueError(f"{error} {POLARITY.replace('edited', use)}") from error
    return levels
