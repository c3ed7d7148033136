"""Pictures to edit, and masks: read, brought to a size, cropped and feathered."""

import os
from typing import Any

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F

from ..arrays import as_numbers
from ..depths import as_meant
from ..masks import read_masks
from ..pictures import editable_rgb, upright


def list_images(image: Any) -> list[PIL.Image.Image | torch.Tensor]:
    """The pictures to edit, one by one: PIL images in RGB, upright, or tensors (3, H, W) in [0, 1].

    Args:
        image: PIL image, path, numpy (H, W, 3) or (B, H, W, 3), torch (3, H, W) or (B, 3, H, W), uint8 or float in
            [0, 1]; or a list of those.

    Raises:
        ValueError: for another type, shape, range or mode, or a damaged file; the message says what to do.
    """
    if isinstance(image, (list, tuple)):
        return [one for entry in image for one in list_images(entry)]
    if isinstance(image, (str, os.PathLike, PIL.Image.Image)):
        return [editable_rgb(upright(image, "image"))]
    if isinstance(image, (np.ndarray, torch.Tensor)):
        return list(batch_of_images(image))
    raise ValueError(
        f"`image` must be a PIL image, a path, a numpy array, a torch tensor, or a list of those; got "
        f"{type(image).__name__}."
    )


def batch_of_images(array: np.ndarray | torch.Tensor) -> torch.Tensor:
    """An array of one or several images to (B, 3, H, W), float32 in [0, 1]."""
    is_numpy, dtype = isinstance(array, np.ndarray), array.dtype
    tensor = torch.from_numpy(as_numbers(array, "`image`"))
    tensor = tensor.unsqueeze(0) if tensor.ndim == 3 else tensor
    if tensor.ndim != 4 or tensor.shape[3 if is_numpy else 1] != 3 or tensor.numel() == 0:
        layout = "(height, width, 3) or (batch, height, width, 3)" if is_numpy else "(3, H, W) or (batch, 3, H, W)"
        raise ValueError(f"`image` as an array must have the shape {layout}, got {tuple(array.shape)}.")
    tensor = tensor.permute(0, 3, 1, 2) if is_numpy else tensor
    if tensor.dtype == torch.uint8:
        return tensor.float() / 255
    is_float, values = tensor.is_floating_point(), tensor.double()
    if not is_float or not (values.min() >= 0 and values.max() <= 1):
        raise ValueError(
            f"`image` as an array must be uint8, or floating point in [0, 1] without NaN; got {dtype} in "
            f"[{values.min()}, {values.max()}]. Images in [-1, 1] need `(image + 1) / 2`."
        )
    return tensor.float()


def list_masks(mask_image: Any) -> list[torch.Tensor]:
    """The masks, one by one: (1, H, W) of zeros and ones, ones are repainted; PIL images and files upright.

    Args:
        mask_image: PIL image, path, numpy (H, W), (H, W, C), (B, H, W) or (B, H, W, C), torch (H, W), (B, H, W) or
            (B, C, H, W), with 1, 3 or 4 channels that are the same: bool, 0 and 1, 0 and 255, or white of 16 bits or
            more; or a list of those.

    Raises:
        ValueError: for another type or shape, for other values, for a damaged file, or if nothing is selected.
    """
    if isinstance(mask_image, (list, tuple)):
        return [one for entry in mask_image for one in list_masks(entry)]
    if isinstance(mask_image, (str, os.PathLike, PIL.Image.Image)):
        mask_image = upright(mask_image, "mask_image")
    masks = read_masks(mask_image, "`mask_image`")
    if not all(mask.any() for mask in masks):
        raise ValueError("`mask_image` is all black, so there is nothing to repaint. White is repainted.")
    return [torch.from_numpy(mask)[None] for mask in masks]


def resize(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """(B, 3, H, W) in [0, 1] to another size; the very same tensor where that is its size already."""
    if image.shape[2:] == (height, width):
        return image
    return F.interpolate(image, size=(height, width), mode="bicubic", antialias=True).clamp(0, 1)


def to_tensor(image: PIL.Image.Image | torch.Tensor, size: tuple[int, int] | None = None) -> torch.Tensor:
    """One entry of `list_images` to (3, H, W) in [0, 1], at `size` (height, width) if given."""
    if isinstance(image, torch.Tensor):
        return image if size is None else resize(image.unsqueeze(0), *size)[0]
    if size is not None:
        image = image.resize(size[::-1], PIL.Image.Resampling.LANCZOS)  # as diffusers does
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def crop_alike(image: Any, region: tuple[int, int, int, int], size: tuple[int, int]) -> Any:
    """The part of a control image, or of each in a list, that lies over a region of a picture.

    Args:
        image: PIL, numpy (..., H, W, C) or torch (..., H, W), of any size.
        region: (left, top, right, bottom) in pixels of the picture, whose `size` is (height, width).
    """
    if isinstance(image, (list, tuple)):
        return [crop_alike(one, region, size) for one in image]
    if not isinstance(image, (PIL.Image.Image, np.ndarray, torch.Tensor)):
        return image  # none, or refused later
    if isinstance(image, PIL.Image.Image):
        image = as_meant(image)  # a part of it does not tell any more
        height, width = image.size[::-1]
    else:
        height, width = image.shape[-3:-1] if isinstance(image, np.ndarray) else image.shape[-2:]
    left, right = (round(x * width / size[1]) for x in region[::2])
    top, bottom = (round(y * height / size[0]) for y in region[1::2])
    if isinstance(image, PIL.Image.Image):
        return image.crop((left, top, right, bottom))
    rows, columns = slice(top, bottom), slice(left, right)
    return image[..., rows, columns, :] if isinstance(image, np.ndarray) else image[..., rows, columns]


def feathered(mask: torch.Tensor, pixels: int) -> torch.Tensor:
    """Mask (B, 1, H, W) of zeros and ones with a linear ramp of so many pixels, all of it inside the mask.

    Borders of the picture are no borders of the mask.
    """
    outside, inside = 1 - mask, mask.clone()
    for done in range(pixels):
        grown = F.max_pool2d(outside, 3, stride=1, padding=1)
        if torch.equal(grown, outside):  # nothing is left of the mask, or nothing ever was outside
            inside += (pixels - done) * (1 - outside)
            break
        outside = grown
        inside += 1 - outside
    return inside / (pixels + 1)
