"""Palettes as text: out of a picture, and changed by hand. `MGRecolor` lays them into a picture."""

import re
from typing import Any

import torch

from mg_diffusion.encoder.references import parse_palette

from .host import without_gradients
from .images import check_mask
from .models import CATEGORY, Networks, given
from .references import pictures, read_palette


CHANGE = re.compile(r"^(\d+)=(#[^\s,;]+)?$")
SWATCH = 256  # pixels, the side of the picture of a palette


class MGExtractPalette:
    """The palette of a picture as text."""

    CATEGORY = CATEGORY
    DESCRIPTION = "The colors of a picture with their shares in percent, such as #c8a27c:42, #224466:7."
    FUNCTION = "extract"
    RETURN_TYPES = ("STRING", "IMAGE")
    RETURN_NAMES = ("palette", "swatch")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"image": ("IMAGE",), "colors": ("INT", {"default": 5, "min": 1, "max": 256})},
            "optional": {
                "mask": ("MASK", {"tooltip": "Of what part of the picture, above a half."}),
                "mg_model": ("MG_MODEL",),
            },
        }

    @without_gradients
    def extract(
        self, image: Any, colors: int = 5, mask: Any = None, mg_model: Networks | None = None
    ) -> tuple[str, torch.Tensor]:
        found = pictures("image", image)
        if len(found) > 1:
            raise ValueError(f"A palette is that of one picture, got a batch of {len(found)}. Take one of it first.")
        reference = {"image": found[0]}
        if mask is not None:
            reference["mask"] = check_mask("mask", mask, image)[0] > 0.5
        from mg_diffusion.palettes import extract_palette

        palette = extract_palette(given(mg_model).mg_encoder, reference, colors)
        return ", ".join(palette), swatch(palette)


class MGEditPalette:
    """A palette, written by hand or changed."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "A palette written by hand, or one that comes in with changes: 2=#1d6fd1:40 replaces its second color, 3= takes "
        "the third away, #ffffff:5 adds one. Separate them by commas or lines."
    )
    FUNCTION = "edit"
    RETURN_TYPES = ("STRING", "IMAGE")
    RETURN_NAMES = ("palette", "swatch")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "changes": (
                    "STRING",
                    {
                        "default": "",
                        "multiline": True,
                        "tooltip": "2=#1d6fd1:40 replaces, 3= removes, #ffffff:5 adds.",
                    },
                )
            },
            "optional": {"palette": ("STRING", {"forceInput": True})},
        }

    def edit(self, changes: str = "", palette: str = "") -> tuple[str, torch.Tensor]:
        colors = changed(read_palette(palette), changes)
        return ", ".join(colors), swatch(colors)


def changed(colors: list[str], changes: str) -> list[str]:
    """A palette with `2=#1d6fd1:40` (replace), `3=` (remove) and `#ffffff:5` (add), numbers being those before all changes.

    Raises:
        ValueError: for what is no change, numbers beyond the palette, and a palette without colors.
    """
    kept: list[str | None] = list(colors)
    for entry in (one for one in re.split(r"[\s,;]+", changes) if one):
        match = CHANGE.match(entry)
        if match is None and not entry.startswith("#"):
            raise ValueError(f"A change is 2=#1d6fd1:40, 3= or #ffffff:5, got {entry!r}.")
        if match is None:
            kept += read_palette(entry)
            continue
        number, color = int(match.group(1)), match.group(2)
        if not 1 <= number <= len(colors):
            raise ValueError(f"{entry!r} changes color {number} of a palette that has {len(colors)}.")
        kept[number - 1] = read_palette(color)[0] if color else None
    left = [color for color in kept if color is not None]
    if not left:
        raise ValueError("The palette has no colors. Write some, such as #ff8800:3, #224466, or connect a palette.")
    return left


def swatch(colors: list[str]) -> torch.Tensor:
    """The colors of a palette side by side, each as wide as its share: IMAGE (1, SWATCH, SWATCH, 3)."""
    rgb, shares = parse_palette(colors)
    reached = shares.cumsum(0)
    place = (torch.arange(SWATCH) + 0.5) / SWATCH
    return rgb[torch.searchsorted(reached, place).clamp(max=len(rgb) - 1)].expand(1, SWATCH, -1, -1).contiguous()
