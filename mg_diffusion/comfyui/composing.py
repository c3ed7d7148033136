"""Compose: palette laid into regions, texture over it, by no network."""

from typing import Any

import torch

from mg_diffusion.arrays import whole_number

from .host import without_gradients
from .models import CATEGORY, Networks, given
from .references import PALETTE, References, joined, one_reference


SIDE = {"default": 512, "min": 64, "max": 2048, "step": 8}
STRENGTH = {"default": 1.0, "min": 0.0, "max": 2.0, "step": 0.05, "tooltip": "0 is off."}
SEED = {"default": 0, "min": 0, "max": 0xFFFFFFFFFFFFFFFF, "control_after_generate": True}


def drawing_by(seed: Any) -> torch.Generator:
    """What draws by the seed of a node."""
    number = whole_number(seed)
    if number is None or not 0 <= number <= SEED["max"]:
        raise ValueError(f"`seed` must be an integer from 0 to {SEED['max']}, got {seed!r}.")
    return torch.Generator().manual_seed(number)


class MGCompose:
    """The composition of references of color, texture and shape."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Lays the colors of one picture into the regions of another, with the texture of a third over them. Paints "
        "nothing: a start for image-to-image, or a poster."
    )
    FUNCTION = "compose"
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        region = {"tooltip": "Where in the output this reference counts; gray counts in part. Any size."}
        return {
            "required": {
                "width": ("INT", SIDE),
                "height": ("INT", SIDE),
                "color_strength": ("FLOAT", STRENGTH),
                "texture_strength": ("FLOAT", STRENGTH),
                "shape_strength": ("FLOAT", STRENGTH),
                "texture_scale": ("FLOAT", {"default": 1.0, "min": 0.125, "max": 8.0, "step": 0.125}),
                "assignment": (
                    ["light", "free"],
                    {"tooltip": "Which region gets which color: as light as it was, or as the seed has it."},
                ),
                "seed": ("INT", SEED),
                "batch_size": ("INT", {"default": 1, "min": 1, "max": 64}),
            },
            "optional": {
                "color": ("IMAGE",),
                "texture": ("IMAGE",),
                "shape": ("IMAGE",),
                "palette": ("STRING", PALETTE),
                "color_region": ("MASK", region),
                "texture_region": ("MASK", region),
                "shape_region": ("MASK", region),
                "references": ("MG_REFERENCES", {"tooltip": "More of them, from MG Reference."}),
                "mg_model": ("MG_MODEL",),
            },
        }

    @without_gradients
    def compose(
        self,
        width: int = 512,
        height: int = 512,
        color_strength: float = 1.0,
        texture_strength: float = 1.0,
        shape_strength: float = 1.0,
        texture_scale: float = 1.0,
        assignment: str = "light",
        seed: int = 0,
        batch_size: int = 1,
        color: Any = None,
        texture: Any = None,
        shape: Any = None,
        palette: str = "",
        color_region: Any = None,
        texture_region: Any = None,
        shape_region: Any = None,
        references: References | None = None,
        mg_model: Networks | None = None,
    ) -> tuple[torch.Tensor]:
        reference_image = joined(
            one_reference("color", color, palette, region=color_region),
            one_reference("texture", texture, region=texture_region),
            one_reference("shape", shape, region=shape_region),
            references,
        )
        if not reference_image:
            raise ValueError(
                "There is nothing to compose: connect a color, a texture or a shape IMAGE, or write a palette."
            )
        from mg_diffusion import compose

        made = compose(
            reference_image,
            height,
            width,
            {"color": color_strength, "texture": texture_strength, "shape": shape_strength},
            texture_scale,
            assignment,
            batch_size,
            drawing_by(seed),
            "pt",
            given(mg_model).mg_encoder,
        )
        return (made.float().permute(0, 2, 3, 1).contiguous().cpu(),)
