"""ComfyUI's pictures and masks: IMAGE is float (B, H, W, C) in 0..1, MASK float (B, H, W)."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch


WHITE = 65535  # pictures pass through edits in 16 bits: floats from 8 bits come back as they were


def check_image(name: str, image: Any) -> torch.Tensor:
    """An IMAGE as float32 on the CPU, in a tensor of its own, or a ValueError that says what it is instead."""
    expected = f"`{name}` must be an IMAGE, floating point (batch, height, width, 3 or 4) in 0..1"
    if not isinstance(image, torch.Tensor):
        raise ValueError(f"{expected}; got {type(image).__name__}. Connect the IMAGE output of another node.")
    if image.ndim != 4 or image.shape[3] not in (3, 4) or not image.numel() or not image.is_floating_point():
        hint = " A MASK becomes one by the node Convert Mask to Image." if image.ndim == 3 else ""
        raise ValueError(f"{expected}; got {image.dtype} of the shape {tuple(image.shape)}.{hint}")
    image = image.detach().to("cpu", torch.float32, copy=True)
    if not torch.isfinite(image).all():
        raise ValueError(
            f"{expected}; it holds NaN or infinite values. A VAE in half precision makes such pictures: decode with "
            f"--fp32-vae or --bf16-vae."
        )
    return image


def check_mask(name: str, mask: Any, image: torch.Tensor | None = None) -> torch.Tensor:
    """A MASK (1 or B, H, W) as float32 in 0..1 on the CPU; of the size of an `image` (B, H, W, C) if one is given."""
    expected = f"`{name}` must be a MASK, floating point (batch, height, width) in 0..1"
    if not isinstance(mask, torch.Tensor):
        raise ValueError(f"{expected}; got {type(mask).__name__}. Connect the MASK output of another node.")
    mask = mask[None] if mask.ndim == 2 else mask
    if mask.ndim != 3 or not mask.numel() or not mask.is_floating_point():
        hint = " An IMAGE becomes one by the node Convert Image to Mask." if mask.ndim == 4 else ""
        raise ValueError(f"{expected}; got {mask.dtype} of the shape {tuple(mask.shape)}.{hint}")
    mask = mask.detach().to("cpu", torch.float32, copy=True)
    if not (mask.min() >= 0 and mask.max() <= 1):
        raise ValueError(f"{expected}; its values go from {mask.min():.3g} to {mask.max():.3g}. Bring them to 0..1.")
    if image is not None and (mask.shape[1:] != image.shape[1:3] or len(mask) not in (1, len(image))):
        raise ValueError(
            f"`{name}` must have the size of its picture, {image.shape[2]} x {image.shape[1]}, and one mask for all of "
            f"{len(image)} or one for each; got {len(mask)} of {mask.shape[2]} x {mask.shape[1]}. Resize the mask, or the "
            f"picture, first. (Load Image gives a mask of 64 x 64 where a file has no alpha.)"
        )
    return mask


def to_array(image: torch.Tensor) -> np.ndarray:
    """(H, W, C) in 0..1 to 16 bits."""
    return (WHITE * image.clamp(0, 1).double()).round().numpy().astype(np.uint16)


def to_image(array: np.ndarray) -> torch.Tensor:
    """An array (H, W, C) of 16 bits to (H, W, C) in 0..1."""
    return torch.from_numpy(array.astype(np.float32) / np.float32(WHITE))


def each_edited(image: torch.Tensor, edit: Callable[[np.ndarray, int], np.ndarray]) -> torch.Tensor:
    """Every picture of a batch edited as an array of 16 bits.

    Where an edit left a sample as it was, the batch's own float comes back, bit for bit.
    """
    made = []
    for number, one in enumerate(image):
        before = to_array(one)
        after = edit(before, number)
        same = after.shape == before.shape
        made.append(torch.where(torch.from_numpy(after == before), one, to_image(after)) if same else to_image(after))
    return torch.stack(made)
