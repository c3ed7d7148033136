"""Masks of named edits, in whatever form they come."""

import os
from typing import Any

import numpy as np
import PIL.Image


POLARITY = "White is edited."  # said in every error about a mask


def read_mask(mask: Any, size: tuple[int, int] | None = None, use: str = "edited") -> np.ndarray:
    """A mask as (H, W) of 8 bits: 255 is edited, 0 is not, gray in part.

    Args:
        mask: PIL image or path of any gray mode or RGB; of one with transparent pixels its alpha is the mask, and its
            colors are not read. Or an array, numpy or torch, (H, W), (H, W, 1) or (1, H, W): bool, floating point in
            [0, 1], 8 or 16 bits, 0 and 1, or 0 and 255.
        size: (width, height) of the picture it belongs to.
        use: what happens to what is white, for messages.

    Raises:
        ValueError: for another type, shape, range or size, a damaged file, or if nothing is selected.
    """
    try:
        levels = _levels(_picture_values(mask) if _is_picture(mask) else _array_values(mask))
        if size is not None and levels.shape[::-1] != tuple(size):
            raise ValueError(
                f"The mask must have the size of the picture, {tuple(size)}, got {levels.shape[::-1]}. Resize it with "
                f"nearest-neighbor interpolation."
            )
        if not levels.any():
            raise ValueError(
                f"The mask is all black, so nothing would be {use}. Paint white what is to be, or invert the mask."
            )
    except ValueError as error:
        raise ValueError(f"{error} {POLARITY.replace('edited', use)}") from error
    return levels


def _is_picture(mask: Any) -> bool:
    return isinstance(mask, (str, os.PathLike, PIL.Image.Image))


def _picture_values(mask: Any) -> np.ndarray:
    from ..pictures import has_alpha, is_transparent  # here, as what is beside it
    from ..pipelines.pictures import upright  # with it comes most of diffusers

    mask = upright(mask, "mask_image")
    if has_alpha(mask) and is_transparent(mask):
        return np.asarray(mask.convert("RGBA").getchannel("A"))
    if mask.mode in ("1", "I", "F") or mask.mode.startswith("I;16"):
        return np.asarray(mask)
    if mask.mode in ("L", "LA", "P", "PA", "RGB", "RGBA", "RGBa"):
        return np.asarray(mask.convert("RGBA").convert("RGB").convert("L"))
    raise ValueError(
        f"The mask has the mode {mask.mode}. Convert it to gray first: `mask.convert('RGB').convert('L')`."
    )


def _array_values(mask: Any) -> np.ndarray:
    import torch

    values = mask.detach().cpu() if isinstance(mask, torch.Tensor) else mask
    if isinstance(values, torch.Tensor):
        values = (values.float() if values.is_floating_point() else values).numpy()
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "buif":
        raise ValueError(f"A mask is a PIL image, a path or an array of numbers, got {type(mask).__name__}.")
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]):
        values = values[..., 0] if values.shape[2] == 1 else values[0]
    if values.ndim != 2 or not values.size:
        raise ValueError(f"A mask has one channel, (height, width), got the shape {values.shape}.")
    return values


def _levels(values: np.ndarray) -> np.ndarray:
    """Values of any type to 8 bits; what could be read in two ways is refused."""
    if values.dtype.kind == "b":
        return 255 * values.astype(np.uint8)
    low, high = values.min(), values.max()
    if not (low >= 0 and high < np.inf):  # nor are they numbers
        raise ValueError(f"A mask lies between 0 and 1 or 0 and 255, got values from {low:g} to {high:g}.")
    if high <= 1:
        return (255 * values.astype(np.float32)).round().astype(np.uint8)
    if ((values == 0) | (values == 255)).all() or values.dtype == np.uint8:
        return values.astype(np.uint8)
    if values.dtype.kind == "f":
        raise ValueError(
            f"A mask in floating point lies in [0, 1], got up to {high:g}. Divide it by its largest value."
        )
    if values.dtype.itemsize == 2 and values.dtype.kind == "u":
        if high > 255:
            return (values / 257).round().astype(np.uint8)
        raise ValueError(
            f"The mask is of 16 bits, but none of its values is above 255 (the largest is {high}), and 255 is black "
            f"there. If 255 is white in it, pass `np.asarray(mask).astype(np.uint8)`."
        )
    if high <= 255:
        return values.astype(np.uint8)
    raise ValueError(f"The mask has values up to {high} of {values.dtype}. Divide it by its largest value.")
