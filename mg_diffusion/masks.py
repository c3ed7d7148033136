"""The one reader of masks, those of edits, of references and of regions, in whatever form people have them.

Masks of 16 bits and of 8, of 0 and 1, with channels that are all the same: what can be read in one way only is read, all else
refused with what was expected, what came, and what to do.
"""

import warnings
from typing import Any

import numpy as np
import PIL.Image

from .arrays import as_numbers, is_array, is_tensor
from .pictures import as_rgba, has_alpha, is_transparent


CHANNELS = (1, 3, 4)  # that a mask may have, all of them the same, a fourth one opaque
FEW_COLORS = 64  # more of them are those of a JPEG or of soft edges
# For those without Python, too.
RESIZE = (
    "Resize it with nearest-neighbor interpolation: ImageMagick's -sample, or of a PIL image `mask.resize(size, 0)`."
)
NEARLY_GRAY = 16  # of 255, by which channels of a picture may differ: JPEG and resizing leave as much


def values_of_mask(mask: Any, name: str, is_cut_out: bool = False) -> np.ndarray:
    """The values of a mask that is decoded, of any shape, as they stand there.

    Args:
        mask: PIL image (upright), or array of numpy or torch.
        name: of what it is, for messages.
        is_cut_out: whether the alpha of a picture with transparent pixels is the mask; it is refused otherwise.

    Raises:
        ValueError: for another type, for what holds no numbers, for modes that are no gray, and for a colored picture.
    """
    if isinstance(mask, PIL.Image.Image):
        return _values_of_picture(mask, name, is_cut_out)
    if not is_array(mask):
        raise ValueError(
            f"{name} must be a PIL image, a path, or a numpy or torch array of numbers, got {type(mask).__name__}."
        )
    return as_numbers(mask, name)


def _values_of_picture(mask: PIL.Image.Image, name: str, is_cut_out: bool) -> np.ndarray:
    if has_alpha(mask) and is_transparent(mask):
        alpha = as_rgba(mask).getchannel("A")
        if not is_cut_out:
            raise ValueError(
                f"{name} has transparent pixels in its alpha channel, where it is neither black nor white. Save it in black "
                f"and white, without alpha; if its alpha is what you mean, that in Python is `mask.convert('RGBA').getchannel('A')`."
            )
        return np.array(alpha)
    if mask.mode in ("1", "I", "F") or mask.mode.startswith("I;16"):
        return as_numbers(np.asarray(mask), name)
    if mask.mode in ("L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "La"):
        check_gray(mask, name)
        return np.array(as_rgba(mask).convert("RGB").convert("L"))
    raise ValueError(
        f"{name} has the mode {mask.mode}. Save it in gray, or convert it in Python: `mask.convert('RGB').convert('L')`."
    )


def check_gray(mask: PIL.Image.Image, name: str) -> None:
    """Raise a ValueError for a colored mask: by its luma a red one would be darker than middle gray, a green one lighter."""
    if mask.mode in ("1", "L", "LA", "La"):
        return
    picture = as_rgba(mask).convert("RGB")
    channels = np.asarray(picture)
    if not channels.size or (spread := channels.max(2) - channels.min(2)).max() <= NEARLY_GRAY:
        return
    rgb = "np.asarray(mask.convert('RGB'))"
    if picture.getcolors(FEW_COLORS) is not None:
        found = channels.reshape(-1, 3)[spread.argmax()].tolist()
        bright, alike = f"{rgb}.any(2)", f"({rgb} == {tuple(found)}).all(2)"
    else:  # what is black is not quite so, and no color is the same everywhere: of a JPEG, or with soft edges
        colored = np.flatnonzero(spread > NEARLY_GRAY)
        middle = colored[spread.ravel()[colored].argsort()[len(colored) // 2]]
        found = channels.reshape(-1, 3)[middle].tolist()
        bright = f"{rgb}.max(2) > {2 * int(channels.max()) // 5}"
        alike = (
            f"np.abs({rgb}.astype(int) - {tuple(found)}).max(2) < {max(NEARLY_GRAY, (max(found) - min(found)) // 2)}"
        )
    color = "#" + "".join(f"{value:02x}" for value in found)
    raise ValueError(
        f"{name} must be black, white or gray, got colors such as {color}, of which nobody knows how white they are. Save it in "
        f"black and white with an image program; or, in Python, if all but black is meant, pass `{bright}`; if one color is, `{alike}`."
    )


def levels_of_mask(values: np.ndarray, name: str) -> np.ndarray:
    """Values of any type as float32 in [0, 1]; what could be read in two ways is refused.

    Raises:
        ValueError: for values of which no white is known, and for none at all.
    """
    if not values.size:
        raise ValueError(f"{name} has no pixels, its shape is {values.shape}. Pass one of (height, width).")
    if values.dtype.kind == "b":
        return values.astype(np.float32)
    low, high = values.min(), values.max()
    expected = f"{name} must lie in [0, 1], or as integers between 0 and 255 (of 16 bits 65535)"
    if not (low >= 0 and high < np.inf):  # nor are they numbers
        raise ValueError(
            f"{expected}, got {values.dtype} from {low:g} to {high:g}. Clean it: `np.clip(np.nan_to_num(mask), 0, 1)`."
        )
    if high <= 1:
        return values.astype(np.float32)
    return (values / _white_of(values, high, expected)).astype(np.float32)


def _white_of(values: np.ndarray, high: Any, expected: str) -> int:
    """What white is in values that go beyond 1."""
    is_two = bool(((values == 0) | (values == high)).all())
    if high == 255 and (is_two or values.dtype != np.uint16 and values.dtype.kind != "f"):
        return 255
    divide = "Divide it by what is white in it, for example `mask / mask.max()`"
    if values.dtype.kind == "f":
        raise ValueError(f"{expected}; in floating point it lies in [0, 1], got up to {high:g}. {divide}.")
    if values.dtype == np.uint16:
        if high > 255:
            return 65535
        raise ValueError(
            f"{expected}; this one is of 16 bits, but none of its values is above 255 (the largest is {high}), and 255 is "
            f"black there. If 255 is white in it, pass `np.asarray(mask).astype(np.uint8)`."
        )
    if high < 255:
        return 255
    if is_two and high in (65535, np.iinfo(values.dtype).max):
        return int(high)
    raise ValueError(f"{expected}, got values up to {high} of {values.dtype}. {divide}.")


def one_channel(levels: np.ndarray, name: str, is_channels_first: bool = False) -> np.ndarray:
    """(H, W) of a mask with or without a dimension of channels, which are the same.

    Raises:
        ValueError: for another shape, for channels that differ, or that are transparent.
    """
    if levels.ndim == 2:
        return levels
    if levels.ndim == 3:
        places = (0, 2) if is_channels_first else (2, 0)
        singles = [axis for axis in places if levels.shape[axis] == 1]
        for axis in [*singles, *(axis for axis in places if levels.shape[axis] in CHANNELS)]:
            return _same_channel(np.moveaxis(levels, axis, 0), name)
    raise ValueError(f"{name} must have one channel, (height, width), got the shape {levels.shape}. Pass one of them.")


def _same_channel(channels: np.ndarray, name: str) -> np.ndarray:
    """One of 1, 3 or 4 channels (C, H, W)."""
    if len(channels) == 4 and not (channels[3] == 1).all():
        raise ValueError(
            f"{name} must have one channel, got four, of which the last, alpha, is not white everywhere. Pass one of them, "
            f"for example `mask[..., 0]`."
        )
    if not (channels[:3] == channels[:1]).all():
        raise ValueError(
            f"{name} must have one channel, got {len(channels)} channels that differ. Pass one of them, for example "
            f"`mask[..., 0]`."
        )
    return channels[0].copy()


def check_binary(levels: np.ndarray, values: np.ndarray, name: str) -> None:
    """Raise a ValueError unless a mask, whose values are named, is black and white."""
    if not ((levels == 0) | (levels == 1)).all():
        some = np.unique(values[np.isfinite(values)])[:5].tolist()
        raise ValueError(
            f"{name} must be binary (bool, 0 and 1, or 0 and 255), got values such as {some}. Threshold it first, for "
            f"example `np.asarray(mask) > 127`, or above 0.5 where white is 1."
        )


def split_at_middle_gray(levels: np.ndarray, name: str) -> np.ndarray:
    """Levels in [0, 1] as zeros and ones of float32; a warning says so where some are neither."""
    if not ((levels == 0) | (levels == 1)).all():
        warnings.warn(f"{name} is not only black and white: what is lighter than middle gray is read.", stacklevel=2)
    return ((255 * levels).round() > 127).astype(np.float32)


def read_one_mask(mask: Any, name: str, is_cut_out: bool = False) -> np.ndarray:
    """A mask that is decoded as (H, W) in [0, 1], float32; arguments and errors as of the parts above."""
    values = values_of_mask(mask, name, is_cut_out)
    levels = levels_of_mask(values, name)
    return one_channel(levels, name, is_channels_first=is_tensor(mask))


def read_masks(masks: Any, name: str) -> list[np.ndarray]:
    """Black and white masks that come together, each (H, W) of zeros and ones.

    Args:
        masks: PIL image, or array (H, W), (B, H, W) or with channels behind as numpy has them, before as torch does.

    Raises:
        ValueError: as of the parts above, and where channels may be as many masks.
    """
    values = values_of_mask(masks, name)
    levels = levels_of_mask(values, name)
    check_binary(levels, values, name)
    is_first = is_tensor(masks)
    if levels.ndim == 4:
        return [one_channel(one, name, is_first) for one in levels]
    if levels.ndim != 3:
        return [one_channel(levels, name)]
    if is_first and len(levels) == 3 and (levels == levels[:1]).all():
        raise ValueError(
            f"{name} of the shape (3, H, W) with three times the same values may be one mask of three channels, or three "
            f"masks. Pass one channel, `mask[0]`, or three masks as (3, 1, H, W)."
        )
    if levels.shape[2] in CHANNELS:
        return [one_channel(levels, name)]
    return [one.copy() for one in levels]
