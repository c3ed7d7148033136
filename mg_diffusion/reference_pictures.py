"""Pictures and masks of references, as far as they are read without torch: so that what is wrong is told at once."""

import os
import warnings
from typing import Any

import numpy as np
import PIL.Image

from .color_profiles import in_srgb
from .masks import read_one_mask, split_at_middle_gray
from .pictures import UnreadablePicture, as_rgba, is_transparent, opaque_rgb, read_upright, way_to_rgb
from .unread_form import UnreadForm


MAX_PIXELS = 64_000_000  # A reference of more pixels is refused before it is decoded.
MAX_ASPECT = 16.0
CARD = ".safetensors"  # ending of granularity cards, see `MGEncoder.save_card`


def is_card(image: Any) -> bool:
    """Whether a reference is the path of a granularity card, by its ending."""
    return isinstance(image, (str, os.PathLike)) and os.fspath(image).lower().endswith(CARD)


def read_picture(picture: PIL.Image.Image | str | os.PathLike, name: str) -> PIL.Image.Image:
    """A picture that is not too large, upright; messages name a file by its path, any other by `name`."""
    is_path = isinstance(picture, (str, os.PathLike))
    name = repr(os.fspath(picture)) if is_path else name

    def check(image: PIL.Image.Image) -> None:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(
                f"A reference has {image.width} x {image.height} pixels; at most {MAX_PIXELS:,} are accepted. "
                f"Shrink it first, for example with `image.thumbnail((2048, 2048))`."
            )

    try:
        with warnings.catch_warnings():
            # Pillow warns near its own limit; ours is below that and refused before anything is decoded.
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            return read_upright(picture, check)
    except UnreadForm as error:
        raise error.about(name) from error
    except UnreadablePicture as error:
        if error.reason == "missing":
            hint = " Hex colors are given as a list of their own, and only for color." if "#" in name else ""
            sentence = f"There is no reference picture at {name}.{hint}"
        elif error.reason == "too large":
            sentence = f"{name} has too many pixels (at most {MAX_PIXELS:,}). Shrink it first."
        else:
            sentence = f"{name} cannot be read as a picture: {error}. It may be truncated or of another format."
        raise ValueError(sentence) from error


def reference_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """A reference in RGB; only modes with a well-defined conversion."""
    return opaque_rgb(
        image,
        f"A reference of mode {image.mode} has transparent pixels, whose color is not defined. Composite it on a "
        f"background, or pass its alpha as the mask: "
        f'{{"image": image.convert("RGB"), "mask": image.convert("RGBA").getchannel("A").point(lambda a: 255 * (a > 127))}}.',
        f"A reference of mode {image.mode} has no well-defined conversion to RGB here; accepted are RGB, L, 1, P, "
        f"16-bit gray and opaque RGBA, LA",
        f"Convert it with its color profile first, for example with PIL.ImageCms, or {way_to_rgb(image)} if that is what you "
        f"want.",
    )


def read_shown(image: PIL.Image.Image | str | os.PathLike) -> tuple[PIL.Image.Image, np.ndarray | None]:
    """The picture of a reference, in RGB or gray of 16 bits, and what of it can be seen, (H, W) bool; none if that is all.

    Raises:
        ValueError: for what cannot be read, and for a picture in which nothing can be seen.
    """
    picture = read_picture(image, "A reference")
    check_form(picture.height, picture.width)
    if not is_transparent(picture):
        return picture if picture.mode.startswith("I;16") else reference_rgb(picture), None
    shown = as_rgba(in_srgb(picture))
    visible = np.asarray(shown.getchannel("A")) > 127
    if not visible.any():
        raise ValueError(
            "A reference is transparent, so there is nothing to read. Pass it without its alpha, "
            "`image.convert('RGB')`, if its colors are what you mean."
        )
    return shown.convert("RGB"), visible


def check_form(height: int, width: int) -> None:
    """Raise a ValueError for a reference without pixels, or one that is too long and narrow."""
    if height * width == 0:
        raise ValueError(f"A reference has no pixels: its size is {width} x {height}.")
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise ValueError(
            f"A reference of {width} x {height} pixels is too long and narrow (at most {MAX_ASPECT:.0f}:1). Crop it."
        )


def read_reference_mask(mask: Any, height: int, width: int) -> np.ndarray:
    """A mask inside a reference, (H, W) of zeros and ones; arguments and errors as of `encoder.reading.read_mask`."""
    name = "A reference's mask"
    if isinstance(mask, (str, os.PathLike, PIL.Image.Image)):
        mask = read_picture(mask, name)
    values = read_one_mask(mask, name)
    if values.shape != (height, width):
        raise ValueError(
            f"{name} must have the size of the reference, (height, width) = {(height, width)}, got {values.shape}. Resize "
            f"it with nearest-neighbor interpolation."
        )
    white = split_at_middle_gray(values, name)
    if not white.any():
        raise ValueError(f"{name} selects nothing: none of it is lighter than middle gray. White is what is borrowed.")
    return white
