"""What named edits take: a picture, a mask, a strength, and how many results."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import PIL.Image

from ..granularities import GRANULARITIES


Picture = Any  # a PIL image or a path
Pictures = list[PIL.Image.Image]
MOST_STRENGTH = 4  # of a granularity; beyond it, little but the corners of the gamut is left


def opened(image: Picture) -> PIL.Image.Image:
    """A picture in RGB, upright; what has no well-defined color is refused, as by the pipeline."""
    from ..pipelines.pictures import list_images  # with it comes most of diffusers

    if not isinstance(image, (str, os.PathLike, PIL.Image.Image)):
        raise ValueError(
            f"A named edit takes one picture, a PIL image or a path, got {type(image).__name__}. Arrays: "
            f"`PIL.Image.fromarray(array)`; several pictures: one by one."
        )
    return list_images(image)[0]


def mask_of(image: PIL.Image.Image, mask: Picture | None) -> PIL.Image.Image:
    """A mask in black and white; all white if none is given."""
    from ..pipelines.pictures import upright

    if mask is None:
        return PIL.Image.new("L", image.size, 255)
    mask = upright(mask, "mask_image")
    if mask.size != image.size:
        raise ValueError(f"The mask must have the size of the picture, {image.size}, got {mask.size}.")
    if "A" in mask.getbands():
        raise ValueError("The mask has an alpha channel. Save it in black and white; white is repainted.")
    mask = mask.convert("L")
    if mask.getbbox() is None:
        raise ValueError("The mask is all black, so there is nothing to repaint. White is repainted.")
    if mask.getextrema()[1] == 1:
        raise ValueError("The mask is of 0 and 1, which is black to a picture. Multiply it by 255.")
    return mask


def feathered_mask(mask: PIL.Image.Image, width: int) -> np.ndarray:
    import torch

    from ..pipelines.pictures import feathered

    area = np.array(mask)
    if not width:
        return area
    alpha = feathered(torch.from_numpy(area > 0)[None, None].float(), width)[0, 0].numpy()
    return (area * alpha).round().clip(area > 0, 255).astype(np.uint8)


def strength_of(granularity: str, scale: float | Mapping[str, float]) -> float:
    """How much a granularity counts, of a number or of strengths by granularity."""
    if isinstance(scale, Mapping) and not set(scale) <= set(GRANULARITIES):
        raise ValueError(f"Strengths are those of {', '.join(GRANULARITIES)}, got {sorted(scale)}.")
    strength = scale.get(granularity, 1.0) if isinstance(scale, Mapping) else scale
    return check_strength(strength, f"The strength of {granularity}", MOST_STRENGTH)


def check_strength(value: Any, what: str, most: float = 1) -> float:
    """The value, or a ValueError unless it is a number from 0 to `most`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= most:
        raise ValueError(f"{what} must be a number from 0 (off) to {most:g}, got {value!r}.")
    return value


def check_pixels(value: Any, what: str) -> int:
    """The value, or a ValueError unless it is a number of pixels."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"`{what}` is a number of pixels, an integer of at least 0; got {value!r}.")
    return value


def check_side(image: PIL.Image.Image, name: str) -> None:
    if min(image.size) < 16:
        raise ValueError(f"`{name}` reads pictures of at least 16 x 16 pixels, got {image.size}; enlarge it first.")


def generators_of(count: int, generator: Any) -> list[Any]:
    """The generators of `count` pictures, one for each or a single one for all.

    Raises:
        ValueError: for a count that is none, and generators that are none or do not match it.
    """
    import torch

    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"`num_images_per_prompt` must be an integer of at least 1, got {count!r}.")
    is_list = isinstance(generator, (list, tuple))
    generators = list(generator) if is_list else [generator]
    if is_list and len(generators) != count:
        raise ValueError(f"Pass one generator, or one for each of the {count} pictures; got {len(generators)}.")
    if not all(isinstance(one, torch.Generator) for one in generators if is_list or one is not None):
        raise ValueError(f"`generator` must be a `torch.Generator().manual_seed(...)`, or a list, got {generator!r}.")
    return generators


def seeds_of(count: int, generator: Any) -> list[int]:
    """A seed for each picture, drawn from the generators, or from torch's own if there are none."""
    import torch

    generators = generators_of(count, generator)
    drawn = generators if isinstance(generator, (list, tuple)) else generators * count
    return [int(torch.randint(2**31, (), generator=one, device="cpu" if one is None else one.device)) for one in drawn]


def copies(picture: PIL.Image.Image, count: int) -> Pictures:
    """One result for all, where nothing is drawn."""
    return [picture.copy() for _ in range(count)]
