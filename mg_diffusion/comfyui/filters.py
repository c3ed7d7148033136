"""Named edits that need no base model: recolor, denoise, enlarge, each picture of a batch by itself."""

from typing import Any

import numpy as np
import torch

from .composing import SEED, STRENGTH, drawing_by
from .host import without_gradients
from .images import check_image, check_mask, each_edited
from .models import CATEGORY, Networks, given
from .references import PALETTE, joined, one_reference


SHARE = {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.05, "tooltip": "0 is the picture, bit for bit."}
FEATHER = {"default": 0, "min": 0, "max": 512, "tooltip": "Width in pixels of the soft edge inside the mask."}


def masks_of(mask: Any, image: torch.Tensor) -> list[np.ndarray | None]:
    """A mask for each picture of a batch; none where none is given."""
    if mask is None:
        return [None] * len(image)
    masks = check_mask("mask", mask, image).numpy()
    return [masks[number % len(masks)] for number in range(len(image))]


class MGRecolor:
    """Other colors: a palette, or those of a picture, laid into a picture."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Other colors at the picture's own size; every line, all light and shade stay. Nothing is painted."
    FUNCTION = "recolor"
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE",),
                "palette": ("STRING", PALETTE),
                "strength": ("FLOAT", STRENGTH),
                "assignment": (["light", "free"], {"tooltip": "Dark stays dark, or as the seed has it."}),
                "select": ("STRING", {"default": "", "tooltip": "Recolor only what has about this color, #rrggbb."}),
                "tolerance": ("FLOAT", {"default": 20.0, "min": 0.5, "max": 100.0, "step": 0.5}),
                "feather": ("INT", FEATHER),
                "seed": ("INT", SEED),
            },
            "optional": {
                "color": (
                    "IMAGE",
                    {"tooltip": "A picture that lends its colors, in place of a palette or beside it."},
                ),
                "mask": ("MASK", {"tooltip": "White is recolored, gray in part."}),
                "mg_model": ("MG_MODEL",),
            },
        }

    @without_gradients
    def recolor(
        self,
        image: Any,
        palette: str = "",
        strength: float = 1.0,
        assignment: str = "light",
        select: str = "",
        tolerance: float = 20.0,
        feather: int = 0,
        seed: int = 0,
        color: Any = None,
        mask: Any = None,
        mg_model: Networks | None = None,
    ) -> tuple[torch.Tensor]:
        from mg_diffusion.edits import recolor

        image = check_image("image", image)
        reference = joined(one_reference("color", color, palette)).get("color")
        if reference is None:
            raise ValueError(
                "There are no colors: write a palette such as #ff8800:3, #224466, or connect a color IMAGE."
            )
        networks, masks = given(mg_model), masks_of(mask, image)

        def edit(pixels: np.ndarray, number: int) -> np.ndarray:
            return recolor(
                networks,
                pixels,
                reference,
                masks[number],
                select=select.strip() or None,
                tolerance=tolerance,
                assignment=assignment,
                granularity_scale=strength,
                mask_feather=feather,
                generator=drawing_by(seed),
            )[0]

        return (each_edited(image, edit),)


class MGDenoise:
    """Less noise, no blocks of JPEG."""

    CATEGORY = CATEGORY
    DESCRIPTION = "The picture without noise and without the blocks of JPEG, at its own size, tile by tile."
    FUNCTION = "denoise"
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        tip = "Deviation of the noise, of 255; -1 estimates it, or is 0 where blocks of JPEG show; 0 takes only these away."
        return {
            "required": {
                "image": ("IMAGE",),
                "strength": ("FLOAT", SHARE),
                "noise_level": ("FLOAT", {"default": -1.0, "min": -1.0, "max": 60.0, "step": 0.5, "tooltip": tip}),
                "feather": ("INT", FEATHER),
            },
            "optional": {"mask": ("MASK",), "mg_model": ("MG_MODEL",)},
        }

    @without_gradients
    def denoise(
        self,
        image: Any,
        strength: float = 1.0,
        noise_level: float = -1.0,
        feather: int = 0,
        mask: Any = None,
        mg_model: Networks | None = None,
    ) -> tuple[torch.Tensor]:
        from mg_diffusion.edits import denoise

        image = check_image("image", image)
        networks, masks = given(mg_model), masks_of(mask, image)
        options = {"strength": strength, "noise_level": None if noise_level < 0 else noise_level}

        def edit(pixels: np.ndarray, number: int) -> np.ndarray:
            return denoise(networks, pixels, masks[number], **options, mask_feather=feather)[0]

        return (each_edited(image, edit),)


class MGEnlarge:
    """Twice or four times the size."""

    CATEGORY = CATEGORY
    DESCRIPTION = "The picture at 2 or 4 times its size, its edges sharp, tile by tile."
    FUNCTION = "enlarge"
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        tip = "0 is bicubic interpolation, 1 the network."
        return {
            "required": {
                "image": ("IMAGE",),
                "factor": ([2, 4], {"default": 2}),
                "strength": ("FLOAT", {**SHARE, "tooltip": tip}),
            },
            "optional": {
                "texture": ("IMAGE", {"tooltip": "A texture that lends what no smaller picture has."}),
                "mg_model": ("MG_MODEL",),
            },
        }

    @without_gradients
    def enlarge(
        self, image: Any, factor: int = 2, strength: float = 1.0, texture: Any = None, mg_model: Networks | None = None
    ) -> tuple[torch.Tensor]:
        from mg_diffusion.edits import enlarge

        image, networks = check_image("image", image), given(mg_model)
        reference = one_reference("texture", texture).get("texture")
        return (
            each_edited(image, lambda pixels, _: enlarge(networks, pixels, factor, reference, strength=strength)[0]),
        )
