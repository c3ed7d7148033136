"""Files that pictures are written to: each of the format that its suffix says, with its recipe."""

import json
import os
from pathlib import Path
from typing import Any

import PIL.Image

from .recipe import DESCRIPTION, KEY, Place, save_encoded, save_png, versions


# Of what comes back bit for bit where it can. JPEG cannot; WebP would drop colors that are transparent.
FORMATS = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"lossless": True, "exact": True}),
    ".tif": ("TIFF", {"compression": "tiff_deflate"}),
    ".tiff": ("TIFF", {"compression": "tiff_deflate"}),
}
MODES = {"JPEG": ("RGB", "L"), "WEBP": ("RGB", "RGBA", "L", "LA")}  # of those that hold not all modes of ours


def is_lossy(path: Place) -> bool:
    return FORMATS[Path(path).suffix.lower()][0] == "JPEG"


def check_format(path: Place, mode: str) -> None:
    """Raise a ValueError where the format of a file cannot hold a picture of this mode."""
    kind = FORMATS[Path(path).suffix.lower()][0]
    if mode not in MODES.get(kind, (mode,)):
        lacking = "no transparency" if mode in ("RGBA", "LA") else "no 16 bits"
        raise ValueError(
            f"{os.fspath(path)!r} cannot hold the result: {kind} has {lacking} (the mode is {mode}). Write a .png file."
        )


def save_picture(
    image: PIL.Image.Image, path: Place, recipe: dict[str, Any], icc_profile: bytes | None = None
) -> None:
    """Write a picture in the format of the suffix of `path`, which is replaced in one step; it holds its recipe.

    Args:
        recipe, icc_profile: as of `save_png`.

    Raises:
        ValueError: where the format cannot hold the picture.
    """
    check_format(path, image.mode)
    kind, options = FORMATS[Path(path).suffix.lower()]
    if kind == "PNG":
        return save_png(image, path, recipe, icc_profile)
    exif = PIL.Image.Exif()
    exif[DESCRIPTION] = json.dumps({KEY: {**recipe, "versions": versions()}}, sort_keys=True)
    save_encoded(image, path, format=kind, exif=exif, icc_profile=icc_profile, **options)
