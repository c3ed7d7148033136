"""What comes from outside, checked before it is decoded: pictures, masks, palettes, granularity cards.

Every function raises a `ValueError` that can be shown as it is: it names no path of the server.
"""

import io
import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from safetensors import SafetensorError, safe_open

from demo.settings import shown
from mg_diffusion.color_profiles import in_srgb
from mg_diffusion.masks import check_gray
from mg_diffusion.pictures import UnreadablePicture, as_rgba, is_transparent, opaque_rgb, read_upright


MAX_BYTES = 20 * 2**20  # of an uploaded file
MAX_PIXELS = 16_000_000  # of a picture, read in its header
MAX_EDIT_PIXELS = 12_500_000  # of a picture to edit, such as one of a phone: it comes back at its full size
MAX_ASPECT = 8.0
MIN_SIDE = 8
REFERENCE_SIDE = 512  # references are reduced to it: no encoder of ours reads more, and they travel in results
FORMATS = ("PNG", "JPEG", "WEBP")
MAX_COLORS = 16
MAX_PALETTE = 500  # characters
MAX_CARD_BYTES = 4 * 2**20
CARD_FORMAT = "mg_diffusion granularity card 1"  # what `MGEncoder.save_card` writes
PALETTE_ENTRY = re.compile(r"#[0-9a-fA-F]{6}(:[0-9]{1,4}(\.[0-9]{1,4})?)?")


def file_bytes(path: str | os.PathLike, limit: int = MAX_BYTES) -> bytes:
    """The content of an uploaded file of limited size."""
    if not Path(path).is_file():
        raise ValueError("The uploaded file is no longer there. Upload it again.")
    size = Path(path).stat().st_size
    if size > limit:
        raise ValueError(f"The file has {size / 2**20:.1f} MB; at most {limit / 2**20:.0f} MB are accepted.")
    return Path(path).read_bytes()


def decode(content: bytes, what: str, max_pixels: int) -> PIL.Image.Image:
    """The first frame of a PNG, JPEG or WebP file, upright, as it is stored; without its metadata.

    Args:
        content: of the file; what: how messages name it; max_pixels: counted before anything is decoded.
    """

    def check(opened: PIL.Image.Image) -> None:
        width, height = opened.size
        if width * height > max_pixels:
            share = math.sqrt(max_pixels / (width * height))
            raise ValueError(
                f"{what} has {width} x {height} pixels; at most {max_pixels / 1e6:g} million are accepted. "
                f"Shrink it to {int(width * share)} x {int(height * share)} or less first."
            )
        if min(width, height) < MIN_SIDE or max(width, height) > MAX_ASPECT * min(width, height):
            raise ValueError(
                f"{what} has {width} x {height} pixels; each side must have at least {MIN_SIDE}, and none more than "
                f"{MAX_ASPECT:.0f} times the other. Crop it."
            )

    try:
        return read_upright(io.BytesIO(content), check, FORMATS)
    except UnreadablePicture as error:
        is_of_phones = content[4:8] == b"ftyp"  # of HEIC and its kin
        of_phones = " HEIC, as phones write it, is not read here: save it as JPEG." if is_of_phones else ""
        sentences = {
            "too large": f"{what} has too many pixels; at most {max_pixels / 1e6:g} million are accepted.",
            "foreign": f"{what} cannot be read as a picture. Accepted are {', '.join(FORMATS)} files.{of_phones}",
            "damaged": f"{what} is damaged: it breaks off or holds errors. Save it anew.",
        }
        raise ValueError(sentences[error.reason]) from error


def as_rgb(image: PIL.Image.Image, what: str) -> PIL.Image.Image:
    """The pixels of a picture in RGB and nothing else; transparency and unusual modes are refused."""
    rgb = opaque_rgb(
        image,
        f"{what} has transparent parts, whose color nobody knows. Save it on a background.",
        f"{what} is stored as {image.mode}",
        "Save it as an ordinary RGB picture.",
    )
    return PIL.Image.fromarray(np.asarray(rgb))  # a copy that carries no metadata along


def read_reference(content: bytes, what: str) -> PIL.Image.Image:
    """A reference picture, RGB, at most `REFERENCE_SIDE` on a side."""
    image = as_rgb(decode(content, what, MAX_PIXELS), what)
    image.thumbnail((REFERENCE_SIDE, REFERENCE_SIDE), PIL.Image.Resampling.LANCZOS)
    return image


def read_photo(content: bytes) -> tuple[PIL.Image.Image, bytes | None]:
    """A picture to edit, RGB, at its own size, and the color profile that its pixels are in, if it has one.

    Pictures in other colors than sRGB are converted: they are edited and shown by a browser.
    """
    image = in_srgb(decode(content, "The picture to edit", MAX_EDIT_PIXELS))
    profile = image.info.get("icc_profile") if image.mode == "RGB" else None  # of other modes it would not fit RGB
    return as_rgb(image, "The picture to edit"), profile


def read_mask(content: bytes, size: tuple[int, int]) -> PIL.Image.Image:
    """An uploaded mask, split at middle gray into 0 and 255.

    Args:
        size: (width, height) of the picture it belongs to.
    """
    mask = decode(content, "The mask", MAX_EDIT_PIXELS)
    if "A" in mask.getbands() and is_transparent(mask):
        raise ValueError("The mask has transparent parts. Save it in black and white; white is repainted.")
    try:
        check_gray(mask, "The mask")
    except ValueError as error:  # whose remedy is one for programs
        raise ValueError("The mask has colors. Save it in black and white; white is repainted.") from error
    if mask.size != size:
        raise ValueError(
            f"The mask has {mask.width} x {mask.height} pixels, the picture {size[0]} x {size[1]}. They must agree."
        )
    return as_rgba(mask).convert("RGB").convert("L").point(lambda value: 255 * (value > 127))


def read_strokes(content: bytes, size: tuple[int, int]) -> PIL.Image.Image:
    """A layer painted with the brush, on a canvas of any size, as a mask of `size` (width, height)."""
    layer = decode(content, "The painted mask", MAX_EDIT_PIXELS).convert("RGBA").getchannel("A")
    return layer.resize(size, PIL.Image.Resampling.BILINEAR).point(lambda value: 255 * (value > 127))


def read_palette(text: str) -> list[str]:
    """ "#ff8800:3, #224466" -> ["#ff8800:3", "#224466"]; an empty text is an empty list."""
    if not isinstance(text, str) or len(text) > MAX_PALETTE:
        came = f"{len(text)} characters" if isinstance(text, str) else type(text).__name__
        raise ValueError(
            f"A palette is a short text of hex colors, such as #ff8800:3, #224466, of at most {MAX_PALETTE} characters; "
            f"got {came}."
        )
    entries = [entry.strip() for entry in text.replace(";", ",").split(",") if entry.strip()]
    for entry in entries:
        if not PALETTE_ENTRY.fullmatch(entry) or float(entry.partition(":")[2] or 1) <= 0:
            raise ValueError(
                f"'{shown(entry)}' is no color. A palette has entries such as #ff8800 or, with a weight, #ff8800:3, "
                f"between commas."
            )
    if len(entries) > MAX_COLORS:
        raise ValueError(f"The palette has {len(entries)} colors; at most {MAX_COLORS} are accepted.")
    return entries


def check_card(path: str | os.PathLike, granularity: str, encoder: Any, blank: dict[str, tuple[int, ...]]) -> None:
    """Check all of a granularity card, which must be of this granularity and made by this encoder.

    Args:
        blank: what a granularity card of this encoder holds: shapes by name. Sides of maps may differ, up to four times the area.
    """
    file_bytes(path, MAX_CARD_BYTES)
    try:
        with safe_open(path, "pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 (no dict)
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError("The card cannot be read: it is no .safetensors file, or it is damaged.") from error
    if metadata.get("format") != CARD_FORMAT or metadata.get("granularity") is None:
        raise ValueError("The file is no granularity card. The tab Cards writes them, or `mg-diffusion encode`.")
    if metadata["granularity"] != granularity:
        made = re.sub(r"\W", "", metadata["granularity"])[:20]
        raise ValueError(f"This is a {made} card; it cannot serve as {granularity}. Put it where {made} goes.")
    if metadata.get("encoder") != encoder.fingerprint(granularity):
        raise ValueError("The card was made by another model. Make it anew from its picture with this one.")
    encoder.check_card(tensors, granularity)
    for name, shape in blank.items():
        if name not in tensors or tensors[name].numel() > 4 * math.prod(shape):
            raise ValueError("The card does not hold what a card of this model holds. Make it anew.")
