"""Pictures and masks of references as tensors; what has no well-defined reading is refused."""

import os
import warnings
from typing import Any

import numpy as np
import PIL.Image
import torch

from ..arrays import as_numbers
from ..color_profiles import in_srgb
from ..masks import read_one_mask
from ..pictures import UnreadablePicture, as_rgba, is_transparent, opaque_rgb, read_upright
from .filling import grow_into


MAX_PIXELS = 64_000_000  # A reference of more pixels is refused before it is decoded.
MAX_ASPECT = 16.0


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
    except UnreadablePicture as error:
        if error.reason == "missing":
            hint = " Hex colors are given as a list of their own, and only for color." if "#" in name else ""
            sentence = f"There is no reference picture at {name}.{hint}"
        elif error.reason == "too large":
            sentence = f"{name} has too many pixels (at most {MAX_PIXELS:,}). Shrink it first."
        else:
            sentence = f"{name} cannot be read as a picture: {error}. It may be truncated or of another format."
        raise ValueError(sentence) from error


def pil_to_rgb(image: PIL.Image.Image) -> torch.Tensor:
    """A PIL image to (3, H, W) in [0, 1]; only modes with a well-defined conversion."""
    if image.mode.startswith("I;16"):
        gray = torch.from_numpy(np.asarray(image).astype(np.float32) / 65535)
        return gray.expand(3, -1, -1).clone()
    rgb = opaque_rgb(
        image,
        f"A reference of mode {image.mode} has transparent pixels, whose color is not defined. Composite it on a "
        f"background, or pass its alpha as the mask: "
        f'{{"image": image.convert("RGB"), "mask": image.convert("RGBA").getchannel("A").point(lambda a: 255 * (a > 127))}}.',
        f"A reference of mode {image.mode} has no well-defined conversion to RGB here; accepted are RGB, L, 1, P, "
        f"16-bit gray and opaque RGBA, LA. Convert it with its color profile first, for example with "
        f"PIL.ImageCms, or `image.convert('RGB')` if that is what you want.",
    )
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1).float() / 255


def array_to_rgb(array: np.ndarray | torch.Tensor) -> torch.Tensor:
    """numpy (H, W, 3) or (H, W), or torch (3, H, W); uint8 or float in [0, 1] -> (3, H, W) in [0, 1]."""
    is_numpy = isinstance(array, np.ndarray)
    layout = "numpy (height, width, 3) or (height, width)" if is_numpy else "torch (3, height, width)"
    is_gray = is_numpy and array.ndim == 2
    if not is_gray and (array.ndim != 3 or array.shape[2 if is_numpy else 0] != 3):
        raise ValueError(
            f"A reference array must be {layout}, got shape {tuple(array.shape)}. Pass several references as a list, "
            f"not as one batched array."
        )
    values = as_numbers(array, "A reference array")
    is_bytes = values.dtype == np.uint8
    if not (is_bytes or values.dtype.kind == "f"):
        raise ValueError(
            f"A reference array must be uint8 or floating point in [0, 1], got {array.dtype}. Bring it to [0, 1] as "
            f"float32 first."
        )
    tensor = torch.from_numpy(values.astype(np.float32))
    if is_numpy:
        tensor = (tensor.unsqueeze(2).expand(-1, -1, 3) if is_gray else tensor).permute(2, 0, 1)
    if is_bytes:
        return tensor / 255
    if tensor.numel() and not torch.isfinite(tensor).all():
        raise ValueError("A reference array holds NaN or infinite values. Clean it before passing it.")
    if tensor.numel() and (tensor.min() < 0 or tensor.max() > 1):
        raise ValueError(
            f"A floating-point reference must lie in [0, 1], got [{tensor.min():.3g}, {tensor.max():.3g}]. "
            f"Images in [-1, 1] need `(image + 1) / 2`, images in [0, 255] need `image / 255`."
        )
    return tensor


def read_image(image: Any) -> torch.Tensor:
    """One picture to RGB (3, H, W) in [0, 1], float32 on the CPU.

    Args:
        image: PIL image, path, numpy (H, W, 3) or (H, W), or torch (3, H, W); uint8 or float in [0, 1].

    Raises:
        ValueError: for another type, rank, range, mode or size, for a file that is no picture; the message says what
            to do.
    """
    if isinstance(image, (str, os.PathLike, PIL.Image.Image)):
        rgb = pil_to_rgb(read_picture(image, "A reference"))
    elif isinstance(image, (np.ndarray, torch.Tensor)):
        rgb = array_to_rgb(image)
    else:
        raise ValueError(
            f"A reference must be a PIL image, a path, a numpy array, a torch tensor, a list of hex colors (color "
            f'only), or a dict {{"image", "mask", "weight", "region"}}; got {type(image).__name__}.'
        )
    _check_form(*rgb.shape[1:])
    return rgb


def read_cut_out(image: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """As `read_image`, and what of a picture can be seen: (1, H, W) of zeros and ones, or none if that is all of it.

    What is more than half transparent has no color of its own: what is around it goes on there.

    Raises:
        ValueError: as `read_image`, and for a picture in which nothing can be seen.
    """
    if not isinstance(image, (str, os.PathLike, PIL.Image.Image)):
        return read_image(image), None
    picture = read_picture(image, "A reference")
    if not is_transparent(picture):
        return read_image(picture), None
    _check_form(picture.height, picture.width)
    channels = torch.from_numpy(np.array(as_rgba(in_srgb(picture)))).permute(2, 0, 1)[None].float()
    visible = (channels[:, 3:] > 127).float()
    if not visible.any():
        raise ValueError(
            "A reference is transparent, so there is nothing to read. Pass it without its alpha, "
            "`image.convert('RGB')`, if its colors are what you mean."
        )
    return grow_into(channels[:, :3] / 255, 1 - visible)[0], visible[0]


def _check_form(height: int, width: int) -> None:
    if height * width == 0:
        raise ValueError(f"A reference has no pixels: its size is {width} x {height}.")
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise ValueError(
            f"A reference of {width} x {height} pixels is too long and narrow (at most {MAX_ASPECT:.0f}:1). Crop it."
        )


def read_mask(mask: Any, height: int, width: int) -> torch.Tensor:
    """A mask inside a reference to (1, H, W) of zeros and ones.

    Args:
        mask: PIL image, path, or array of numpy or torch, (H, W) or with 1, 3 or 4 channels that are the same: bool, 0 and
            1, 0 and 255, or white of 16 bits; true selects.

    Raises:
        ValueError: if its size is not (height, width), if it holds other values, or selects nothing.
    """
    name = "A reference's mask"
    if isinstance(mask, (str, os.PathLike, PIL.Image.Image)):
        mask = read_picture(mask, name)
    values = read_one_mask(mask, name, is_binary=True)
    if values.shape != (height, width):
        raise ValueError(
            f"{name} must have the size of the reference, (height, width) = {(height, width)}, got {values.shape}. Resize "
            f"it with nearest-neighbor interpolation."
        )
    if not values.any():
        raise ValueError(f"{name} selects nothing (it is all zero). White is what is borrowed.")
    return torch.from_numpy(values).unsqueeze(0)
