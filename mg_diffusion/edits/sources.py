"""A picture to edit: what edits compute on, and what has to come back as it was.

Edits compute on RGB without transparency, of as many bits as the picture has. What comes back is in the form of the picture:
gray stays gray unless the edit makes colors, 16 bits stay 16, an alpha stays, an array stays one. Where nothing was edited,
the samples are the picture's own.
"""

import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import PIL.Image

from .. import color_profiles
from ..depths import check_depth
from ..pictures import as_rgba, editable_rgb, has_alpha, is_transparent, upright
from ..unread_form import UnreadForm
from .masks import POLARITY, read_mask


Edited = PIL.Image.Image | np.ndarray
GRAY = ("1", "L", "LA", "La")
PROFILED = ("RGB", "RGBA", "L", "LA")  # whose color profile is that of what comes back, too
IN_SRGB = ("edit", "recolor", "reshape", "variation")  # edits that read colors of the picture as those of references
REMEDY_8_BIT = "`PIL.Image.fromarray((np.asarray(image) / 257).round().astype('uint8'))`"


@dataclass(frozen=True)
class Source:
    """A picture to edit.

    Attributes:
        own: (H, W, C) of 8 or 16 bits, its samples; C is 1, gray, or 3.
        pixels: (H, W, 3) of as many bits, what is computed on; where it is wholly transparent, what is near goes on.
        alpha: (H, W) of as many bits; or none.
        rank: of the array that came; none of a PIL image.
        profile: the ICC profile that `own` is in, if any; is_converted: whether `pixels` are in sRGB, and not in that.
    """

    own: np.ndarray
    pixels: np.ndarray
    alpha: np.ndarray | None = None
    rank: int | None = None
    profile: bytes | None = None
    is_converted: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.own.shape[1::-1]

    @property
    def most(self) -> int:
        """What white is."""
        return int(np.iinfo(self.own.dtype).max)

    @property
    def in_8_bits(self) -> np.ndarray:
        """Its `pixels` in 8 bits."""
        return self.pixels if self.most == 255 else (self.pixels / 257).round().astype(np.uint8)

    @property
    def visible(self) -> np.ndarray | None:
        """(H, W) bool, what is not wholly transparent; none if that is all of it."""
        return None if self.alpha is None or self.alpha.all() else self.alpha > 0

    def area(self, mask: Any, feather: int = 0) -> np.ndarray | None:
        """Where to edit, (H, W) of 8 bits: the mask, or the alpha without one; none if that is everywhere.

        Args:
            feather: width in pixels of the soft edge inside.

        Raises:
            ValueError: for a mask that is none, or selects only what is transparent.
        """
        visible = self.visible
        if mask is None and visible is None:
            return None
        area = feathered(read_mask(mask, self.size) if mask is not None else 255 * visible.astype(np.uint8), feather)
        area = area if visible is None else np.where(visible, area, 0)
        if not area.any():
            raise ValueError(
                f"The mask selects only what is transparent in the picture. Move it over what can be seen, or pass the "
                f"picture without its alpha: `image.convert('RGB')`. {POLARITY}"
            )
        return area

    def finish(self, made: np.ndarray, area: np.ndarray | None = None, is_colored: bool = False) -> Edited:
        """What was made, (H, W, 3), in the form of the picture; where `area` is 0, the picture's own samples."""
        if self.own.shape[2] == 3 and self.is_converted:  # what stayed as it was does not go there and back
            is_same = (made == self.pixels).all(2, keepdims=True)
            made = np.where(is_same, self.own, color_profiles.from_srgb(made, self.profile))
        samples = made if is_colored or self.own.shape[2] == 3 else as_gray(made)
        return self.packed(samples if area is None else np.where(area[..., None] > 0, samples, self.own), self.alpha)

    def packed(self, samples: np.ndarray, alpha: np.ndarray | None) -> Edited:
        """Samples (h, w, C) and an alpha (h, w) of any size in the form of the picture."""
        joined = samples if alpha is None else np.concatenate([samples, alpha[..., None]], 2)
        is_flat = joined.shape[2] == 1 and self.rank != 3
        joined = np.ascontiguousarray(joined[..., 0] if is_flat else joined)
        if self.rank is not None:
            return joined
        made = PIL.Image.fromarray(joined)
        if self.profile is not None and samples.shape[2] == self.own.shape[2]:  # not where gray became color
            made.info["icc_profile"] = self.profile
        return made

    def check_colors(self, name: str) -> None:
        """Raise a ValueError where an edit makes colors and the form of the picture has none."""
        if self.rank is None and self.most > 255:
            raise UnreadForm(
                f"`{name}` makes colors, and neither PIL nor a file that it writes has colors of 16 bits.",
                f"Pass the picture as an array, `np.asarray(image)`: an array (height, width, 3) of 16 bits comes back. Or "
                f"bring it to 8 bits first, for example {REMEDY_8_BIT}.",
            )

    def expanded(self, left: int, top: int, right: int, bottom: int) -> "Source":
        """The picture with black around it; its alpha goes on as it is at the edge."""
        sides = ((top, bottom), (left, right))
        own, pixels = (np.pad(one, (*sides, (0, 0))) for one in (self.own, self.pixels))
        alpha = None if self.alpha is None else np.pad(self.alpha, sides, mode="edge")
        return replace(self, own=own, pixels=pixels, alpha=alpha)


def opened(image: Any, edit: str | None = None, is_filled: bool = True) -> Source:
    """A picture to edit.

    Args:
        edit: the name of one of `IN_SRGB`: then the `pixels` of a picture with another color profile are in sRGB. Its
            `own` are not: what is not edited stays as it is, and what is comes back in the profile. CMYK is always converted.
        is_filled: whether its `pixels` go on in what is wholly transparent; a check has no need of that.
        image: PIL image or path, upright or with an EXIF orientation, of the modes RGB, L, 1, P, with or without
            alpha, and I;16; or numpy (H, W), (H, W, 1), (H, W, 3) or, with alpha, (H, W, 4) of 8 or 16 bits.

    Raises:
        ValueError: for another type, mode or shape, colors of 16 bits in a file (Pillow reads 8 of them), a picture
            that is wholly transparent, or a damaged file.
    """
    profile = converted = None
    if isinstance(image, np.ndarray):
        samples, alpha, rank = *_array_samples(image), image.ndim
    elif isinstance(image, (str, os.PathLike, PIL.Image.Image)):
        image, rank = _read(image), None
        samples, alpha = _picture_samples(image)
        profile = image.info.get("icc_profile") if image.mode in PROFILED else None
        if edit in IN_SRGB and profile is not None and (shown := color_profiles.in_srgb(image)) is not image:
            if image.mode in ("RGB", "RGBA"):  # comes back in its own colors
                color_profiles.check_way_back(profile)
            converted = np.asarray(shown.convert("RGB"))
    else:
        raise ValueError(
            f"A named edit takes one picture, a PIL image, a path or a numpy array of 8 or 16 bits, got "
            f"{type(image).__name__}. Several pictures: one by one."
        )
    if alpha is not None and not alpha.any():
        raise ValueError(
            "The picture is wholly transparent, so there is nothing to edit. Pass it without its alpha, "
            "`image.convert('RGB')`, if its colors are what you mean."
        )
    pixels = (
        np.ascontiguousarray(np.broadcast_to(samples, (*samples.shape[:2], 3))) if converted is None else converted
    )
    pixels = pixels if not is_filled or alpha is None or alpha.all() else grown_into(pixels, alpha == 0)
    return Source(samples, pixels, alpha, rank, profile, converted is not None)


def _read(image: Any) -> PIL.Image.Image:
    image = upright(image, "image", check_depth)
    # What keeps no form of its own is sRGB from here on.
    return color_profiles.in_srgb(image) if image.mode in ("CMYK", "P", "PA") else image


def _picture_samples(image: PIL.Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    if image.mode.startswith("I;16") and is_transparent(image):
        raise UnreadForm(
            "The picture is gray of 16 bits with one level that stands for transparent, and PIL has no alpha of 16 bits.",
            "Pass it as an array, RGB and alpha: `np.dstack([x, x, x, 65535 * (x != image.info['transparency'])])"
            ".astype(np.uint16)` with `x = np.asarray(image)`; or, if nothing is meant to be transparent, "
            "`PIL.Image.fromarray(np.asarray(image))`.",
        )
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)[..., None], None
    if has_alpha(image):
        channels = np.asarray(as_rgba(image))
        return channels[..., : 1 if image.mode in GRAY else 3], channels[..., 3]
    if image.mode in GRAY:
        return np.asarray(image.convert("L"))[..., None], None
    if image.mode == "RGB":
        return np.asarray(image), None  # in its own colors
    return np.asarray(editable_rgb(image)), None  # which refuses what has no well-defined color


def _array_samples(array: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    if isinstance(array, np.ma.MaskedArray):
        raise ValueError(
            "A picture as an array must not be masked: pass `array.filled(0)`, and what is masked as `mask`."
        )
    array = np.asarray(array)  # a matrix would stay one
    samples = array[..., None] if array.ndim == 2 else array
    if samples.ndim != 3 or samples.shape[2] not in (1, 3, 4) or not samples.size:
        raise ValueError(
            f"A picture as an array has the shape (height, width), (height, width, 3) or, with alpha, (height, width, 4), "
            f"got {array.shape}. Several pictures: one by one."
        )
    if array.dtype.newbyteorder("=") not in (np.uint8, np.uint16):
        raise ValueError(
            f"A picture as an array is of uint8 or uint16, got {array.dtype}. Of values in [0, 1]: "
            f"`(65535 * image).round().astype(np.uint16)`."
        )
    samples = samples.astype(samples.dtype.newbyteorder("="))
    return (samples[..., :3], samples[..., 3]) if samples.shape[2] == 4 else (samples, None)


def grown_into(pixels: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Pixels (H, W, 3) of which those in a hole (H, W) go on with what is around it."""
    import torch

    from ..encoder.filling import grow_into

    picture, unknown = (torch.from_numpy(one.astype(np.float32)) for one in (pixels, hole))
    grown = grow_into(picture.permute(2, 0, 1)[None], unknown[None, None])[0].permute(1, 2, 0)
    return grown.round().clamp(0, np.iinfo(pixels.dtype).max).numpy().astype(pixels.dtype)


def as_gray(made: np.ndarray) -> np.ndarray:
    """(H, W, 3) of nearly equal channels to (H, W, 1)."""
    return made.mean(2, dtype=np.float32, keepdims=True).round().astype(made.dtype)


def feathered(area: np.ndarray, width: int) -> np.ndarray:
    """A mask (H, W) of 8 bits with a soft edge of so many pixels, all of it inside the mask."""
    if not width:
        return area
    import torch

    from ..pipelines import pictures

    alpha = pictures.feathered(torch.from_numpy(area > 0)[None, None].float(), width)[0, 0].numpy()
    return (area * alpha).round().clip(area > 0, 255).astype(np.uint8)
