"""What each granularity sees of a reference: its palette, a patch of its texture, the map of its structure."""

from typing import Any

import numpy as np
import PIL.Image

from demo.references import SIDE, swatch
from mg_diffusion.training.renderer import lab_to_rgb


COLORS, ROWS = 6, 4


def see(encoder: Any, granularity: str, references: list[Any], size: tuple[int, int]) -> PIL.Image.Image:
    """A picture of the features of references, `SIDE` pixels on a side.

    Args:
        references: of one granularity, as for `MGEncoder.encode`: pictures, palettes, paths of granularity cards; averaged.
        size: (height, width) of the pictures that the model makes.
    """
    (features,) = encoder.encode({granularity: references}, size)[granularity]
    if granularity == "color":
        return swatch(palette_of(features["palette"][0].float().cpu().numpy()))
    if granularity == "texture":
        return quilt(features["tiles"][0].float().cpu().numpy())
    return false_colors(features["structure"][0].float().cpu().numpy())


def palette_of(lab: np.ndarray) -> list[str]:
    """The colors (N, 3) of a bag in Lab, brought down to a few, as hex with their shares in percent."""
    pixels = (lab_to_rgb(lab)[None] * 255).round().astype(np.uint8)
    few = PIL.Image.fromarray(pixels).quantize(COLORS, kmeans=COLORS, dither=PIL.Image.Dither.NONE)
    shades = np.reshape(few.getpalette(), (-1, 3))
    found = sorted(few.getcolors(), key=lambda entry: -entry[0])
    return ["#{:02x}{:02x}{:02x}:{}".format(*shades[at], max(1, round(100 * n / len(lab)))) for n, at in found]


def quilt(tiles: np.ndarray) -> PIL.Image.Image:
    """Some of the tiles (K, h, w) of luminance detail, side by side in gray."""
    rows = [np.concatenate(list(tiles[ROWS * row : ROWS * row + ROWS]), 1) for row in range(ROWS)]
    detail = np.concatenate(rows, 0)
    gray = 128 + 110 * detail / max(float(np.abs(detail).max()), 0.2)
    return PIL.Image.fromarray(gray.astype(np.uint8)).resize((SIDE, SIDE), PIL.Image.Resampling.BICUBIC).convert("RGB")


def false_colors(structure: np.ndarray) -> PIL.Image.Image:
    """A structure map (3, h, w) in [-1, 1]: regions in colors that say nothing but which belong together."""
    pixels = ((structure.transpose(1, 2, 0) + 1) * 127.5).clip(0, 255).astype(np.uint8)
    image = PIL.Image.fromarray(pixels)
    return image.resize((SIDE, SIDE), PIL.Image.Resampling.NEAREST)
