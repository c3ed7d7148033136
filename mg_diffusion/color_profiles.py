"""Colors of pictures in sRGB, which encoders and UNets know, by the ICC profile that a picture brings along; and back."""

import io
import warnings

import numpy as np
import PIL.Image
import PIL.ImageCms


SPACES = {
    "RGB": "RGB",
    "RGBA": "RGB",
    "P": "RGB",
    "PA": "RGB",
    "CMYK": "CMYK",
}  # of a profile, by the mode of a picture
NEAR = 2  # of 255; profiles that change no color by more are those of sRGB, whatever they are called
INTENT = PIL.ImageCms.Intent.RELATIVE_COLORIMETRIC
FLAGS = PIL.ImageCms.Flags.BLACKPOINTCOMPENSATION  # or the black of paper would be a gray of screens
Transform = PIL.ImageCms.ImageCmsTransform


def in_srgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """A picture in sRGB, without the profile that was applied; the very same where there is nothing to convert.

    RGB (transparent or not), palettes and CMYK are converted; gray is not, nor what has no profile. A profile that cannot be
    read, or is that of other pictures, leaves the picture as it is, and a warning says so.
    """
    transform = _to_srgb(image)
    if transform is None:
        return image
    space = SPACES[image.mode]
    channels = image.convert("RGBA" if image.has_transparency_data else space)
    made = transform.apply(channels.convert(space))
    if image.has_transparency_data:
        made.putalpha(channels.getchannel("A"))
    made.info = {key: value for key, value in image.info.items() if key not in ("icc_profile", "transparency")}
    return made


def from_srgb(pixels: np.ndarray, profile: bytes) -> np.ndarray:
    """Pixels (H, W, 3) of 8 bits in sRGB in the colors of an RGB profile, as near as it has them."""
    transform = _transform(_srgb(), PIL.ImageCms.ImageCmsProfile(io.BytesIO(profile)), "RGB")
    return np.asarray(transform.apply(PIL.Image.fromarray(np.ascontiguousarray(pixels))))


def check_way_back(profile: bytes) -> None:
    """Raise a ValueError for a profile that tells what colors are and not how to make them, as those of scanners."""
    try:
        from_srgb(np.zeros((1, 1, 3), np.uint8), profile)
    except PIL.ImageCms.PyCMSError as error:
        raise ValueError(
            f"The picture's color profile leads to no colors of its own ({error}), so an edit could not be brought back into it. "
            f"Convert it first: `mg_diffusion.color_profiles.in_srgb(image)`."
        ) from error


def _to_srgb(image: PIL.Image.Image) -> Transform | None:
    """What brings a picture to sRGB; `None` where it is in sRGB already, as far as is known."""
    profile, space = image.info.get("icc_profile"), SPACES.get(image.mode)
    if not profile or space is None:
        return None
    try:
        opened = PIL.ImageCms.ImageCmsProfile(io.BytesIO(profile))
        found = opened.profile.xcolor_space.strip()
        if found != space:
            raise ValueError(f"it is of {found}, the picture of {space}")
        transform = _transform(opened, _srgb(), space)
    except (PIL.ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        taken = "Its colors are taken as those of sRGB." if space == "RGB" else "Its colors stay unknown."
        warnings.warn(f"The color profile of a picture cannot be applied ({error}). {taken}", stacklevel=3)
        return None
    return None if space == "RGB" and _changes_nothing(transform) else transform


def _changes_nothing(transform: Transform) -> bool:
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    colors = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
    made = np.asarray(transform.apply(PIL.Image.fromarray(colors))).astype(int)
    return bool(np.abs(made - colors).max() <= NEAR)


def _transform(source: PIL.ImageCms.ImageCmsProfile, target: PIL.ImageCms.ImageCmsProfile, space: str) -> Transform:
    return PIL.ImageCms.buildTransform(source, target, space, "RGB", INTENT, FLAGS)


def _srgb() -> PIL.ImageCms.ImageCmsProfile:
    return PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB"))
