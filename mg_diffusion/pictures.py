"""The one reader of pictures: decodes them, turns them upright by their EXIF orientation, brings them to RGB.

Whoever reads pictures has limits and sentences of their own; they come in as `check`, and go out as `UnreadablePicture`.
"""

import contextlib
import importlib
import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

import numpy as np
import PIL.Image
import PIL.ImageOps

from .color_profiles import in_srgb
from .depths import check_read, with_known_white
from .unread_form import UnreadForm


ANIMATED = ("GIF", "PNG", "WEBP")  # not MPO, which phones write for a picture and its depth
HEIC = (".heic", ".heif", ".hif")
WHITE_UNKNOWN = "Nobody knows what white is there"


class UnreadablePicture(Exception):
    """Why a picture could not be read; its text is that of the error that was met, which is its cause.

    Attributes:
        reason: "missing", "too large" (Pillow opens no more), "foreign" (no picture, by its header) or "damaged".
    """

    def __init__(self, reason: str, error: Exception):
        super().__init__(str(error))
        self.reason = reason


def read_upright(
    picture: PIL.Image.Image | str | os.PathLike | BinaryIO,
    check: Callable[[PIL.Image.Image], Any] | None = None,
    formats: Sequence[str] | None = None,
) -> PIL.Image.Image:
    """A picture, decoded and turned as its EXIF orientation says, in its own mode; of gray of 16 bits, in that.

    Args:
        picture: PIL image, path or open file.
        check: called when the header is read and nothing is decoded yet; what it raises is raised as it is.
        formats: of Pillow, of which a file may be.

    Raises:
        UnreadablePicture: if it cannot be decoded.
        UnreadForm: if it is a file that Pillow reads wrong.
    """
    is_decoded = isinstance(picture, PIL.Image.Image)
    try:
        image = picture if is_decoded else _open(picture, formats)
    except FileNotFoundError as error:
        raise UnreadablePicture("missing", error) from error
    except PIL.Image.DecompressionBombError as error:
        raise UnreadablePicture("too large", error) from error
    except Exception as error:  # decoders of damaged files raise errors of any type
        raise UnreadablePicture("foreign", error) from error
    with contextlib.nullcontext() if is_decoded else image:
        if check is not None:
            check(image)
        check_read(image)
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format in ANIMATED:
            warnings.warn(f"The picture has {frames} frames; the first one is taken.", stacklevel=2)
        try:
            image.load()
            return with_known_white(PIL.ImageOps.exif_transpose(image), image)
        except Exception as error:
            raise UnreadablePicture("damaged", error) from error


def _open(picture: str | os.PathLike | BinaryIO, formats: Sequence[str] | None) -> PIL.Image.Image:
    """As `PIL.Image.open`; HEIC by the package pillow-heif, where that is installed."""
    try:
        return PIL.Image.open(picture, formats=formats)
    except PIL.UnidentifiedImageError:
        if not (isinstance(picture, (str, os.PathLike)) and os.fspath(picture).lower().endswith(HEIC)):
            raise
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except ImportError as error:
        raise ImportError("HEIC pictures need the package pillow-heif: pip install pillow-heif") from error
    return PIL.Image.open(picture, formats=formats)


def upright_size(image: PIL.Image.Image) -> tuple[int, int]:
    """(width, height) of a picture as `read_upright` returns it, by its header alone."""
    is_turned = image.getexif().get(0x0112, 1) >= 5  # Orientation: the sensor lay on its side
    return image.size[::-1] if is_turned else image.size


def has_alpha(image: PIL.Image.Image) -> bool:
    """Whether a picture may be transparent: by a channel, or by a color that stands for it."""
    has_key = "transparency" in image.info and (image.mode in ("RGB", "L", "1", "P") or image.mode.startswith("I;16"))
    return has_key or image.mode in ("RGBA", "LA", "PA", "RGBa", "La")


def as_rgba(image: PIL.Image.Image) -> PIL.Image.Image:
    """In RGBA of 8 bits; Pillow knows no way there from some modes, and cuts gray of 16 bits off."""
    if image.mode == "La":
        return image.convert("LA").convert("RGBA")
    if not image.mode.startswith("I;16"):
        return image.convert("RGBA")
    levels, key = np.asarray(image), image.info.get("transparency")
    made = PIL.Image.fromarray((levels / 257).round().astype(np.uint8)).convert("RGBA")
    if key is not None:
        made.putalpha(PIL.Image.fromarray(255 * (levels != key).astype(np.uint8)))
    return made


def is_transparent(image: PIL.Image.Image) -> bool:
    """Whether any pixel of a picture is."""
    return has_alpha(image) and 0 not in image.size and as_rgba(image).getchannel("A").getextrema()[0] < 255


def upright(
    picture: PIL.Image.Image | str | os.PathLike, name: str, check: Callable[[PIL.Image.Image], Any] | None = None
) -> PIL.Image.Image:
    """A PIL image or that of a file, decoded and turned as its EXIF orientation says; `name` is the argument's.

    Args:
        check: called when the header is read and nothing is decoded yet.

    Raises:
        ValueError: if it cannot be decoded, or is a file that Pillow reads wrong.
    """
    is_path = isinstance(picture, (str, os.PathLike))
    try:
        return read_upright(picture, check)
    except UnreadForm as error:
        raise error.about(repr(os.fspath(picture)) if is_path else f"`{name}`") from error
    except UnreadablePicture as error:
        place = f" from {os.fspath(picture)!r}" if is_path else ""
        raise ValueError(
            f"`{name}` cannot be read{place}: {error}. It may be missing, truncated, too large or of another format."
        ) from error


def editable_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """A picture to edit in RGB.

    Raises:
        ValueError: for transparent pixels, and modes without a well-defined color.
    """
    return opaque_rgb(
        image,
        "`image` has transparent pixels, whose color is not defined. Composite it first.",
        f"`image` has the mode {image.mode}",
        f"Convert it first, for example {way_to_rgb(image)}.",
    )


def way_to_rgb(image: PIL.Image.Image) -> str:
    """Code that brings a picture of an unusual mode to RGB."""
    if image.mode[0] in "IF":  # which Pillow would cut off and not scale
        return "`PIL.Image.fromarray((255 * (x / x.max())).astype('uint8')).convert('RGB')` with `x = np.asarray(image).clip(0)`"
    return "`image.convert('RGB')`"


def converted(image: PIL.Image.Image) -> PIL.Image.Image:
    """A picture of any form that has a known range in 8 bits a channel, of colors in RGB, with its alpha if it has one.

    CMYK and the like are taken as Pillow takes them where no color profile says more.
    """
    if image.mode.startswith("I;16"):
        return as_rgba(image).convert("LA" if has_alpha(image) else "L")
    image = in_srgb(image) if image.mode == "CMYK" else image
    if has_alpha(image) or image.mode in ("1", "L", "P", "RGB", "I", "F"):
        return image
    made = image.convert("RGB")
    made.info.pop("icc_profile", None)  # that of other colors
    return made


def opaque_rgb(image: PIL.Image.Image, transparent: str, other_mode: str, remedy: str) -> PIL.Image.Image:
    """A picture in sRGB, by its color profile if it has one; what has no well-defined color is refused rather than given one.

    Args:
        transparent, other_mode: the sentences that refuse what has transparent pixels, and other modes than RGB, gray
            of 8 bit or 1, palettes, and these with an opaque alpha channel.
        remedy: for other modes, in Python.

    Raises:
        ValueError: with one of them.
    """
    image = in_srgb(image)
    image = as_rgba(image) if has_alpha(image) else image
    if is_transparent(image):
        raise ValueError(transparent)
    if image.mode == "CMYK":
        lacking = "CMYK is converted by its color profile, and this one has none that can be read."
        raise UnreadForm(f"{other_mode}. {lacking}", remedy)
    if image.mode not in ("RGB", "RGBA", "L", "1", "P"):
        raise UnreadForm(f"{other_mode}.", remedy, WHITE_UNKNOWN if image.mode in ("I", "F") else None)
    return image.convert("RGB")


def centered_square(image: PIL.Image.Image, size: int, resample: PIL.Image.Resampling) -> PIL.Image.Image:
    """The largest square in the middle of a picture, resized to `size` pixels a side."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side)).resize((size, size), resample)
