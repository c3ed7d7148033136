"""Exact paste: where the mask is black the picture comes back bit for bit, whatever a VAE did to it."""

from typing import Any

import torch

from mg_diffusion.sizes import check_pixels

from .images import check_image, check_mask
from .models import CATEGORY


class MGExactPaste:
    """An edited picture over the one it was made of."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "The edit where the mask is white, the picture itself where it is black, bit for bit, a mix of both where it is "
        "gray. Ends the drift of colors that decoding leaves outside of an inpainted part."
    )
    FUNCTION = "paste"
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE", {"tooltip": "What is kept where the mask is black."}),
                "edited": ("IMAGE", {"tooltip": "What is pasted where it is white; of the same size."}),
                "mask": ("MASK",),
                "feather": (
                    "INT",
                    {
                        "default": 0,
                        "min": 0,
                        "max": 512,
                        "tooltip": "Width in pixels of a soft edge, all of it inside the mask.",
                    },
                ),
            }
        }

    def paste(self, image: Any, edited: Any, mask: Any, feather: int = 0) -> tuple[torch.Tensor]:
        kept, made = check_image("image", image), check_image("edited", edited)
        if made.shape[1:] != kept.shape[1:] or len(made) % len(kept):
            raise ValueError(
                f"`edited` must have the size and channels of `image`, {_form(kept)}, one or several for each picture; got "
                f"{_form(made)}. Resize the edit, not the picture, or crop the picture before it is edited."
            )
        kept = kept.repeat_interleave(len(made) // len(kept), 0)
        share = check_mask("mask", mask, made)[..., None]
        feather = check_pixels(feather, "feather")
        if feather:
            share = share * _inner_edge(share, feather)
        mixed = torch.lerp(kept, made, share)
        # Of 0 and 1 the samples themselves, whatever the formula of the interpolation.
        return (torch.where(share == 0, kept, torch.where(share == 1, made, mixed)),)


def _inner_edge(share: torch.Tensor, width: int) -> torch.Tensor:
    """(B, H, W, 1): rises from 0 to 1 over so many pixels inward from the border of what is white."""
    from mg_diffusion.pipelines.pictures import feathered

    return feathered((share > 0).float().movedim(3, 1), width).movedim(1, 3)


def _form(image: torch.Tensor) -> str:
    count, height, width, channels = image.shape
    return f"{count} of {width} x {height} with {channels} channels"
