"""References as far as they are read without torch, so that what is wrong is told at once: pictures, masks, numbers, places."""

import math
import os
import warnings
from typing import Any

import numpy as np
import PIL.Image

from .arrays import plain_number
from .color_profiles import in_srgb
from .hex_colors import LEAST_WEIGHT, MOST_WEIGHT, is_palette, read_palette
from .masks import RESIZE, read_one_mask, split_at_middle_gray
from .pictures import UnreadablePicture, as_rgba, is_transparent, opaque_rgb, read_upright, way_to_rgb
from .sizes import MAX_ASPECT
from .unread_form import UnreadForm


MAX_PIXELS = 64_000_000  # A reference of more pixels is refused before it is decoded.
CARD = ".safetensors"  # ending of granularity cards, see `MGEncoder.save_card`
KEYS = ("image", "mask", "weight", "region", "scale")  # of a reference with more than a picture
Box = tuple[float, float, float, float]


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
            hint = ' Hex colors are written as "#rrggbb" or "#rrggbb:weight".' if "#" in name else ""
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
        f"16-bit gray, and RGBA and LA, of which what is transparent is not read",
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
        try:
            return picture if picture.mode.startswith("I;16") else reference_rgb(picture), None
        except UnreadForm as error:
            if isinstance(image, PIL.Image.Image):
                raise
            raise error.about(repr(os.fspath(image))) from error
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
            f"{name} must have the size of the reference, (height, width) = {(height, width)}, got {values.shape}. {RESIZE}"
        )
    white = split_at_middle_gray(values, name)
    if not white.any():
        raise ValueError(f"{name} selects nothing: none of it is lighter than middle gray. White is what is borrowed.")
    return white


def check_reference(name: str, reference: Any, texture_scale: float = 1.0) -> None:
    """Raise the ValueError that `MGEncoder.encode` would, whatever the encoder is; of cards only for what stands beside them.

    Args:
        name: of the granularity that it lends.
        reference: a picture or a path, a palette, or a dict with one of them.
        texture_scale: that of the call.
    """
    fields = reference if isinstance(reference, dict) else {"image": reference}
    check_fields(fields)
    read_weight(fields)
    read_scale(name, fields, texture_scale)
    if fields.get("region") is not None:
        read_place(fields["region"])
    if is_palette(fields["image"]):
        check_palette(name, fields["image"])
    elif not is_card(fields["image"]):
        picture, visible = read_shown(fields["image"])
        if fields.get("mask") is not None:
            mask = read_reference_mask(fields["mask"], picture.height, picture.width)
            check_seen(mask if visible is None else mask * visible)


def check_fields(fields: dict[str, Any]) -> None:
    """Raise a ValueError for keys that no reference has, and for the mask of one that is no picture."""
    if not {"image"} <= set(fields) <= set(KEYS):
        raise ValueError(
            f'A reference dict has the keys "image" and, optional, "mask", "weight", "region" and "scale"; got '
            f"{list(fields)}."
        )
    image = fields["image"]
    if fields.get("mask") is not None and (is_palette(image) or is_card(image)):
        kind = f"The card {os.fspath(image)!r}" if is_card(image) else "A palette"
        raise ValueError(f"{kind} takes a weight and a region, but no mask: it holds no picture to mask.")


def check_palette(name: str, palette: Any) -> None:
    """Raise a ValueError for hex colors that are none, or are to lend anything but color."""
    if name != "color":
        raise ValueError(f"Hex colors describe a palette: they serve as color references, not as {name}.")
    read_palette(palette)


def check_seen(mask: Any) -> None:
    """Raise a ValueError where nothing is left of a mask inside a reference, in what can be seen of it."""
    if not mask.any():
        raise ValueError("A reference's mask selects only what is transparent. White is what is borrowed; move it.")


def read_weight(fields: dict[str, Any]) -> float:
    """The weight of a reference given as a dict; 1 where none is named."""
    weight = plain_number(fields.get("weight", 1.0))
    if weight is None or not LEAST_WEIGHT <= weight <= MOST_WEIGHT:
        raise ValueError(
            f"A reference's weight must be a positive number, {LEAST_WEIGHT:g} to {MOST_WEIGHT:g}, got {fields['weight']!r}."
        )
    return float(weight)


def read_scale(name: str, fields: dict[str, Any], texture_scale: float = 1.0) -> float:
    """How large a reference is read, its "scale" times that of the call; 1 of all but textures.

    Raises:
        ValueError: for a scale of another granularity, or one that is not between 1/8 and 8 in all.
    """
    given = fields.get("scale")
    if name != "texture":
        if given is not None:
            raise ValueError(f'A texture reference has a "scale", how coarse it is laid; a {name} reference has none.')
        return 1.0
    given = 1.0 if given is None else given
    factors = [plain_number(given), plain_number(texture_scale)]
    scale = None if None in factors else float(math.prod(factors))
    if scale is None or not 1 / 8 <= scale <= 8:
        raise ValueError(
            f"A texture's scale, times `texture_scale`, must be a number from 0.125 to 8 (2 is twice as coarse), got "
            f"{given!r} and {texture_scale!r}."
        )
    return scale


def read_place(region: Any) -> np.ndarray | Box:
    """Where in the output a reference counts: a mask, (H, W) in [0, 1], or the sides of a box in fractions of the output.

    Raises:
        ValueError: for another type, other values, or a region without any area.
    """
    if isinstance(region, (tuple, list)):
        return _box(region)
    if isinstance(region, (str, os.PathLike, PIL.Image.Image)):
        region = read_picture(region, "A region")
    mask = read_one_mask(region, "A region")
    if not mask.any():
        raise ValueError("A reference's region is empty (all black). White is where the reference counts.")
    return mask


def _box(region: Any) -> Box:
    sides = [plain_number(value) for value in region]
    if len(sides) != 4 or None in sides:
        raise ValueError(f"A region is a mask or a box (left, top, right, bottom), got {region!r}.")
    left, top, right, bottom = map(float, sides)
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise ValueError(
            f"A region's box is (left, top, right, bottom) in fractions of the output, with 0 <= left < right <= 1 and "
            f"0 <= top < bottom <= 1; got {tuple(region)}."
        )
    return left, top, right, bottom
