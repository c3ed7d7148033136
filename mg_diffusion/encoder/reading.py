"""Pictures and masks of references as tensors; what has no well-defined reading is refused."""

import os
from typing import Any

import numpy as np
import PIL.Image
import torch

from ..arrays import as_numbers
from ..reference_pictures import check_form, read_picture, read_reference_mask, read_shown, reference_rgb
from .filling import grow_into


def pil_to_rgb(image: PIL.Image.Image) -> torch.Tensor:
    """A PIL image to (3, H, W) in [0, 1]; only modes with a well-defined conversion."""
    if image.mode.startswith("I;16"):
        gray = torch.from_numpy(np.asarray(image).astype(np.float32) / 65535)
        return gray.expand(3, -1, -1).clone()
    rgb = reference_rgb(image)
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
    check_form(*rgb.shape[1:])
    return rgb


def read_cut_out(image: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """As `read_image`, and what of a picture can be seen: (1, H, W) of zeros and ones, or none if that is all of it.

    What is more than half transparent has no color of its own: what is around it goes on there.

    Raises:
        ValueError: as `read_image`, and for a picture in which nothing can be seen.
    """
    if not isinstance(image, (str, os.PathLike, PIL.Image.Image)):
        return read_image(image), None
    picture, visible = read_shown(image)
    rgb = pil_to_rgb(picture)
    if visible is None:
        return rgb, None
    seen = torch.from_numpy(visible)[None].float()
    return grow_into(rgb[None], 1 - seen[None])[0], seen


def read_mask(mask: Any, height: int, width: int) -> torch.Tensor:
    """A mask inside a reference to (1, H, W) of zeros and ones.

    Args:
        mask: PIL image, path, or array of numpy or torch, (H, W) or with 1, 3 or 4 channels that are the same: bool, 0 and
            1, 0 and 255, or white of 16 bits; true selects. Of one with gray, as with soft edges, what is lighter than
            middle gray does, and a warning says so.

    Raises:
        ValueError: if its size is not (height, width), if what is white in it is not known, or if it selects nothing.
    """
    return torch.from_numpy(read_reference_mask(mask, height, width)).unsqueeze(0)
