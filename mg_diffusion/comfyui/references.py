"""References as nodes get them, pictures, palettes and masks, in the form in which the library reads them."""

import re
from typing import Any

import numpy as np
import PIL.Image
import torch

from mg_diffusion.encoder.references import parse_palette
from mg_diffusion.granularities import GRANULARITIES

from .images import check_image, check_mask
from .models import CATEGORY


References = dict[str, list[dict[str, Any]]]  # {granularity: references}, as of `MGEncoder.encode`
PALETTE = {
    "default": "",
    "multiline": True,
    "tooltip": "Hex colors with weights, such as #ff8800:3, #224466; empty: none.",
}


def read_palette(text: Any) -> list[str]:
    """ "#ff8800:3, #224466" as a list; commas, blanks and lines separate.

    Raises:
        ValueError: for what is no palette.
    """
    if not isinstance(text, str):
        raise ValueError(f"A palette is text such as #ff8800:3, #224466; got {type(text).__name__}.")
    colors = [entry for entry in re.split(r"[\s,;]+", text) if entry]
    if colors:
        parse_palette(colors)
    return colors


def pictures(name: str, image: Any) -> list[Any]:
    """The pictures of an IMAGE, one reference each."""
    checked = check_image(name, image).clamp(0, 1)
    if checked.shape[3] == 3:
        return list(checked.permute(0, 3, 1, 2))
    # With an alpha only what can be seen is read, which the library knows of PIL's pictures.
    return [PIL.Image.fromarray((255 * one).round().numpy().astype(np.uint8)) for one in checked]


def one_reference(
    name: str,
    image: Any = None,
    palette: str = "",
    mask: Any = None,
    region: Any = None,
    weight: float = 1.0,
    scale: float = 1.0,
) -> References:
    """The references of one granularity: of a batch every picture is one, and a palette is one.

    Args:
        mask: (1 or B, H, W), what of the pictures is borrowed, above a half; region: (1, h, w) of any size, where in the
            output they count.

    Raises:
        ValueError: for a mask or a region without a picture, and what the library refuses.
    """
    if name not in GRANULARITIES:
        raise ValueError(f"The granularity must be one of {', '.join(GRANULARITIES)}, got {name!r}.")
    colors = read_palette(palette)
    if colors and name != "color":
        raise ValueError(f"Hex colors describe a palette: they serve as color references, not as {name}.")
    found = [{"image": one} for one in pictures(name, image)] if image is not None else []
    if mask is not None and not found:
        raise ValueError(f"A mask of the {name} reference needs an IMAGE, of which it is a part. Connect one.")
    if mask is not None:
        masks = check_mask("mask", mask, image) > 0.5
        for number, fields in enumerate(found):
            fields["mask"] = masks[number % len(masks)]
    found += [{"image": colors}] if colors else []
    if region is not None and not found:
        raise ValueError(f"There is a region for {name}, but no {name} reference. Connect an IMAGE, or leave it out.")
    for fields in found:
        fields |= {"weight": weight} if weight != 1 else {}
        fields |= {"scale": scale} if scale != 1 else {}
        fields |= {"region": _region(region)} if region is not None else {}
    return {name: found} if found else {}


def _region(region: Any) -> torch.Tensor:
    regions = check_mask("region", region)
    if len(regions) > 1:
        raise ValueError(f"A region is one mask, got a batch of {len(regions)}. Give each reference its own.")
    return regions[0]


def joined(*several: References | None) -> References:
    """All references of several dicts."""
    names = [name for name in GRANULARITIES if any(name in (one or {}) for one in several)]
    return {name: [fields for one in several for fields in (one or {}).get(name, [])] for name in names}


class MGReference:
    """One reference of several: with a part of its picture, a part of the output, a weight."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "A reference with a mask, a region of the output, a weight or a scale. Chain several by `references`."
    )
    FUNCTION = "add"
    RETURN_TYPES = ("MG_REFERENCES",)
    RETURN_NAMES = ("references",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "granularity": (list(GRANULARITIES), {"tooltip": "What is borrowed."}),
                "weight": ("FLOAT", {"default": 1.0, "min": 0.01, "max": 100.0, "step": 0.05}),
                "scale": (
                    "FLOAT",
                    {
                        "default": 1.0,
                        "min": 0.125,
                        "max": 8.0,
                        "step": 0.125,
                        "tooltip": "Of a texture: 2 is twice as coarse.",
                    },
                ),
            },
            "optional": {
                "image": ("IMAGE", {"tooltip": "Of a batch every picture is one reference."}),
                "palette": ("STRING", PALETTE),
                "mask": ("MASK", {"tooltip": "What of the picture is borrowed, above a half."}),
                "region": ("MASK", {"tooltip": "Where in the output it counts; gray counts in part. Any size."}),
                "references": ("MG_REFERENCES", {"tooltip": "Those that come before this one."}),
            },
        }

    def add(
        self,
        granularity: str,
        weight: float = 1.0,
        scale: float = 1.0,
        image: Any = None,
        palette: str = "",
        mask: Any = None,
        region: Any = None,
        references: References | None = None,
    ) -> tuple[References]:
        new = one_reference(granularity, image, palette, mask, region, weight, scale)
        if not new:
            raise ValueError(f"The {granularity} reference is empty: connect an IMAGE, or for color write a palette.")
        return (joined(references, new),)
