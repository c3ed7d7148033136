"""Edits that paint nothing: computed at a picture's own resolution, with parts of it or of a reference.

All take a `callback`, called with the share that is done, in [0, 1]; what it raises stops the work.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps

from .inputs import (
    Picture,
    Pictures,
    check_pixels,
    check_side,
    copies,
    feathered_mask,
    generators_of,
    mask_of,
    opened,
    seeds_of,
    strength_of,
)
from .progress import progress


Callback = Callable[[float], None] | None
TEXTURE_SIDE = 1024  # of a square with the area of the largest canvas; it is enlarged to more


def recolor(
    pipe: Any,
    image: Picture,
    color: Any,
    mask_image: Picture | None = None,
    *,
    select: str | None = None,
    tolerance: float = 20.0,
    assignment: str = "light",
    granularity_scale: float | Mapping[str, float] = 1.0,
    mask_feather: int = 0,
    num_images_per_prompt: int = 1,
    generator: Any = None,
    callback: Callback = None,
) -> Pictures:
    """Other colors, at the picture's own resolution; every line and all light and shade of it stay. Nothing is painted.

    Args:
        pipe: a pipeline with an `MGEncoder`, which reads the color reference; nothing else of it is used.
        color: a color reference, picture or list of hex colors; a single one, `["#0a9396"]`, gives its shades.
        mask_image: white is recolored, gray in part; everything if not given.
        select: recolor only what has about this color, "#rrggbb".
        tolerance: of `select`, in Delta-E, lightness counted half; above 0 and at most 100.
        assignment: "light" keeps dark what is dark; "free" leaves to the generator which region gets which color.
        granularity_scale: how far colors move, a number or that of "color"; 0 is the picture, bit for bit.
        mask_feather: width in pixels of the soft edge inside the mask.

    Raises:
        ValueError: for anything out of range, a reference with a region, or a color to select that is nowhere.
    """
    from ..recoloring import recolored, select_color  # with it comes torch

    image = opened(image)
    check_side(image, "recolor")
    mask = None if mask_image is None else mask_of(image, mask_image)
    strength = strength_of("color", granularity_scale)
    if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)) or not 0 < tolerance <= 100:
        raise ValueError(f"`tolerance` is a Delta-E above 0 and at most 100, got {tolerance!r}.")
    check_pixels(mask_feather, "mask_feather")
    turns = _turns(assignment, num_images_per_prompt, generator)
    pixels, area = np.asarray(image), None if mask is None else feathered_mask(mask, mask_feather)
    if select is not None:
        selected = select_color(pixels, select, tolerance)
        area = selected if area is None else np.minimum(selected, area)
        if not area.any():
            raise ValueError(f"Nothing in the mask has the color {select}. Enlarge the mask, or select another color.")
    palette = _palette_of(pipe, color)
    with progress(pipe, len(turns), callback) as step:
        made = [PIL.Image.fromarray(recolored(pixels, palette, area, turn, strength, step)) for turn in turns]
    return made if len(made) == num_images_per_prompt else copies(made[0], num_images_per_prompt)


def retexture(
    pipe: Any,
    image: Picture,
    texture: Any,
    mask_image: Picture | None = None,
    *,
    texture_scale: float = 1.0,
    granularity_scale: float | Mapping[str, float] = 1.0,
    mask_feather: int = 0,
    num_images_per_prompt: int = 1,
    generator: Any = None,
    callback: Callback = None,
) -> Pictures:
    """Another texture, at the picture's own resolution; its colors, its light and its silhouettes stay. Nothing is painted.

    Args:
        pipe: a pipeline with an `MGEncoder`, which reads the texture reference; nothing else of it is used.
        texture: a texture reference, or a list of them.
        mask_image: white is retextured, gray in part; everything if not given.
        texture_scale: how coarse the texture is laid; 1 keeps its size relative to the frame.
        granularity_scale: how strong it is, a number or that of "texture"; 0 is the picture, bit for bit.
        mask_feather: width in pixels of the soft edge inside the mask.
        generator: not needed, nothing is drawn; taken so that all edits are called alike.

    Raises:
        ValueError: for anything out of range, or a reference with a region.
    """
    from ..retexturing import retextured

    image = opened(image)
    check_side(image, "retexture")
    mask = None if mask_image is None else mask_of(image, mask_image)
    strength = strength_of("texture", granularity_scale)
    check_pixels(mask_feather, "mask_feather")
    generators_of(num_images_per_prompt, generator)
    canvas = _canvas_of(pipe, texture, image.size, texture_scale)
    area = None if mask is None else feathered_mask(mask, mask_feather)
    with progress(pipe, 1, callback) as step:
        made = PIL.Image.fromarray(retextured(np.asarray(image), canvas, area, strength, step))
    return copies(made, num_images_per_prompt)


def remove(
    pipe: Any,
    image: Picture,
    mask_image: Picture,
    *,
    padding_mask_crop: int | None = None,
    num_images_per_prompt: int = 1,
    generator: Any = None,
    callback: Callback = None,
) -> Pictures:
    """What is in the mask goes, its surroundings go on there: patches of the picture itself, at its own resolution.

    Args:
        pipe: any pipeline; it lends its progress bar.
        mask_image: white is removed.
        padding_mask_crop: pixels around the mask that lend; as many as the mask is large if not given, at least 64.

    Raises:
        ValueError: for anything out of range, or where too little is left to lend.
    """
    image = opened(image)
    check_side(image, "remove")
    mask = mask_of(image, mask_image)
    if padding_mask_crop is not None:
        check_pixels(padding_mask_crop, "padding_mask_crop")
    return _filled(pipe, image, mask, padding_mask_crop, num_images_per_prompt, generator, callback)


def outpaint(
    pipe: Any,
    image: Picture,
    left: int = 0,
    top: int = 0,
    right: int = 0,
    bottom: int = 0,
    *,
    num_images_per_prompt: int = 1,
    generator: Any = None,
    callback: Callback = None,
) -> Pictures:
    """A larger picture, of which the picture is an unchanged part; what it shows at its edges goes on, as in `remove`.

    Args:
        pipe: any pipeline; it lends its progress bar.
        left, top, right, bottom: pixels to add.

    Raises:
        ValueError: if nothing is to be added, or less than nothing, or more than the picture is large.
    """
    image = opened(image)
    check_side(image, "outpaint")
    added = (left, top, right, bottom)
    if any(isinstance(side, bool) or not isinstance(side, int) or side < 0 for side in added) or not any(added):
        raise ValueError(f"`outpaint` adds whole pixels, at least 1 on some side; got {added}.")
    if left + right > image.width or top + bottom > image.height:
        raise ValueError(
            f"`outpaint` adds at most as much as there is, {image.width} x {image.height}; got {added}. Go step by step."
        )
    mask = PIL.ImageOps.expand(PIL.Image.new("L", image.size, 0), added, 255)
    whole = max(mask.size)  # all that there is may go on
    return _filled(pipe, PIL.ImageOps.expand(image, added), mask, whole, num_images_per_prompt, generator, callback)


def _filled(
    pipe: Any,
    image: PIL.Image.Image,
    mask: PIL.Image.Image,
    margin: int | None,
    count: int,
    generator: Any,
    callback: Callback,
) -> Pictures:
    from ..filling import fill  # with it comes torch

    seeds, pixels, hole = seeds_of(count, generator), np.asarray(image), np.asarray(mask) > 0
    with progress(pipe, count, callback) as step:
        return [PIL.Image.fromarray(fill(pixels, hole, margin, seed, step)) for seed in seeds]


def _canvas_of(pipe: Any, texture: Any, size: tuple[int, int], scale: float) -> Any:
    """A texture canvas (1, 1, h, w) in the aspect of a picture of `size`, (width, height)."""
    from ..retexturing import texture_canvas

    if getattr(pipe, "mg_encoder", None) is None:
        raise ValueError("`retexture` reads the texture reference with an encoder; this pipeline has no `mg_encoder`.")
    if texture is None:
        raise ValueError("`retexture` needs a texture reference: a picture or a card.")
    encoded = pipe.mg_encoder.encode({"texture": texture}, (8, 8), texture_scale=scale)["texture"]  # checks it, warns
    if len(encoded) > 1 or "region" in encoded[0]:
        raise ValueError("`retexture` lays its texture over all that is white in the mask; leave the region out.")
    factor = min(1.0, TEXTURE_SIDE / (size[0] * size[1]) ** 0.5)
    return texture_canvas(pipe.mg_encoder, texture, tuple(max(16, round(factor * side)) for side in size[::-1]), scale)


def _palette_of(pipe: Any, color: Any) -> Any:
    """The colors (1, N, 3) of a reference, as the pipeline's encoder reads it."""
    if getattr(pipe, "mg_encoder", None) is None:
        raise ValueError("`recolor` reads the color reference with an encoder; this pipeline has no `mg_encoder`.")
    if color is None:
        raise ValueError("`recolor` needs a color reference: a picture, a card, or a list of hex colors.")
    features = pipe.mg_encoder.encode({"color": color}, (8, 8))["color"]
    if len(features) > 1 or "region" in features[0]:
        raise ValueError("`recolor` lays its colors over all that is white in the mask; leave the region out.")
    return features[0]["palette"].float().cpu()


def _turns(assignment: str, count: int, generator: Any) -> list[Any]:
    """Which color goes where: by light, once for all pictures, or as the generator, or that of each picture, has it."""
    generators = generators_of(count, generator)
    if assignment not in ("light", "free"):
        raise ValueError(f'`assignment` must be "light" or "free", got {assignment!r}.')
    if assignment == "light":
        return [None]
    import torch
    from diffusers.utils.torch_utils import randn_tensor

    from ..adapter.sketch import random_turns

    device = torch.device("cpu") if generators[0] is None else generators[0].device
    drawn = generators if isinstance(generator, (list, tuple)) else generator
    noise = randn_tensor((count, 3, 3), drawn, device, torch.float32)
    return list(random_turns(noise.cpu()).unsqueeze(1))
