"""Edits that paint nothing: a picture with the colors or the texture of a reference, at its own resolution.

All take a `callback`, called with the share that is done, in [0, 1]; what it raises stops the work.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..arrays import check_count, plain_number
from ..hex_colors import check_selection
from ..sizes import check_pixels
from .hinted import recolored_by_hint
from .inputs import (
    Picture,
    Pictures,
    check_side,
    check_unplaced,
    copies,
    generators_of,
    is_one_color,
    named,
    strength_of,
)
from .masks import POLARITY
from .progress import progress
from .sources import Source, opened


Callback = Callable[[float], None] | None
TEXTURE_SIDE = 1024  # of a square with the area of the largest canvas; it is enlarged to more


@named
def recolor(
    pipe: Any,
    image: Picture,
    color: Any = None,
    mask_image: Any = None,
    *,
    hint: Any = None,
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
        mask_image: white is recolored, gray in part; if not given, all but what is wholly transparent.
        hint: in place of `color`, a picture of the same size with strokes of color, painted over nothing (RGBA) or over
            the picture itself. What is connected with a stroke and has about the color under it becomes shades of that
            of the stroke; all else stays.
        select: recolor only what has about this color, "#rrggbb".
        tolerance: of `select` and `hint`, in Delta-E, lightness counted half; above 0 and at most 100.
        assignment: "light" keeps dark what is dark; "free" leaves to the generator which region gets which color.
        granularity_scale: how far colors move, a number or that of "color"; 0 is the picture, bit for bit.
        mask_feather: width in pixels of the soft edge inside the mask.

    Returns:
        what is gray comes back in color, all else in its form: see `edits.sources`.

    Raises:
        ValueError: for anything out of range, a reference with a region, a color to select that is nowhere, or a hint
            without strokes.
    """
    from ..recoloring import recolored, select_color  # with it comes torch

    image = opened(image, "recolor")
    strength, distance, feather = check_recolor(
        image, color, hint, select, tolerance, assignment, granularity_scale, mask_feather
    )
    num_images_per_prompt = check_count(num_images_per_prompt)
    if num_images_per_prompt > 1 and assignment == "free" and is_one_color(color):
        raise ValueError(
            f"A single color leaves nothing to assign, so {num_images_per_prompt} pictures would be the same. Ask for one, or "
            f"give two colors or more."
        )
    turns = _turns(assignment, num_images_per_prompt, generator)
    pixels, area = image.pixels, image.area(mask_image, feather)
    if hint is not None:
        made = recolored_by_hint(pipe, image, hint, area, distance, strength, callback)
        return copies(made, num_images_per_prompt)
    if select is not None:
        selected = select_color(pixels, select, distance)
        area = selected if area is None else np.minimum(selected, area)
        if not area.any():
            if mask_image is None:
                raise ValueError(
                    f"Nothing that can be seen has the color {select}. Select another, or raise the tolerance."
                )
            raise ValueError(
                f"Nothing in the mask has the color {select}. Enlarge the mask, or select another color. {POLARITY}"
            )
    palette = _palette_of(pipe, color)
    with progress(pipe, len(turns), callback) as step:
        made = [image.finish(recolored(pixels, palette, area, turn, strength, step), area, True) for turn in turns]
    return made if len(made) == num_images_per_prompt else copies(made[0], num_images_per_prompt)


def check_recolor(
    image: Source,
    color: Any = None,
    hint: Any = None,
    select: str | None = None,
    tolerance: float = 20.0,
    assignment: str = "light",
    granularity_scale: float | Mapping[str, float] = 1.0,
    mask_feather: int = 0,
) -> tuple[float, float, int]:
    """The strength of color, tolerance and feather, or a ValueError for what `recolor` refuses whatever the pipeline is."""
    check_side(image, "recolor")
    image.check_colors("recolor")
    check_unplaced(color, "`recolor` lays its colors over all that is white in the mask")
    distance = plain_number(tolerance)
    if distance is None or not 0 < distance <= 100:
        raise ValueError(f"`tolerance` is a Delta-E above 0 and at most 100, got {tolerance!r}.")
    if not isinstance(assignment, str) or assignment not in ("light", "free"):
        raise ValueError(f'`assignment` must be "light" or "free", got {assignment!r}.')
    if hint is not None and (color is not None or select is not None or assignment != "light"):
        raise ValueError(
            "A `hint` says which color goes where: leave `color`, `select` and `assignment` out, or the hint."
        )
    if select is not None:
        check_selection(select)
    return strength_of("color", granularity_scale), distance, check_pixels(mask_feather, "mask_feather")


@named
def retexture(
    pipe: Any,
    image: Picture,
    texture: Any,
    mask_image: Any = None,
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
        mask_image: white is retextured, gray in part; if not given, all but what is wholly transparent.
        texture_scale: how coarse the texture is laid; 1 keeps its size relative to the frame.
        granularity_scale: how strong it is, a number or that of "texture"; 0 is the picture, bit for bit.
        mask_feather: width in pixels of the soft edge inside the mask.
        generator: not needed, nothing is drawn; taken so that all edits are called alike.

    Raises:
        ValueError: for anything out of range, or a reference with a region.
    """
    from ..retexturing import retextured

    image = opened(image)
    strength, feather = check_retexture(image, texture, granularity_scale, mask_feather)
    generators_of(num_images_per_prompt, generator)
    area = image.area(mask_image, feather)
    canvas = canvas_of(pipe, texture, image.size, texture_scale)
    with progress(pipe, 1, callback) as step:
        made = image.finish(retextured(image.pixels, canvas, area, strength, step), area)
    return copies(made, num_images_per_prompt)


def check_retexture(
    image: Source, texture: Any = None, granularity_scale: float | Mapping[str, float] = 1.0, mask_feather: int = 0
) -> tuple[float, int]:
    """The strength of texture and the feather, or a ValueError for what `retexture` refuses whatever the pipeline is."""
    check_side(image, "retexture")
    check_laid_texture(texture, "retexture")
    return strength_of("texture", granularity_scale), check_pixels(mask_feather, "mask_feather")


def check_laid_texture(texture: Any, name: str) -> None:
    """Raise a ValueError unless there is a texture reference, for all that the edit of this name edits."""
    if texture is None:
        raise ValueError(f"`{name}` needs a texture reference: a picture or a card.")
    check_unplaced(texture, f"`{name}` lays its texture over all that is edited")


def canvas_of(pipe: Any, texture: Any, size: tuple[int, int], scale: float, name: str = "retexture") -> Any:
    """A texture canvas (1, 1, h, w) in the aspect of a picture of `size`, (width, height), for the edit of this name."""
    from ..retexturing import texture_canvas

    if getattr(pipe, "mg_encoder", None) is None:
        raise ValueError(f"`{name}` reads the texture reference with an encoder; this pipeline has no `mg_encoder`.")
    pipe.mg_encoder.encode({"texture": texture}, (8, 8), texture_scale=scale)  # checks it, warns
    factor = min(1.0, TEXTURE_SIDE / (size[0] * size[1]) ** 0.5)
    return texture_canvas(pipe.mg_encoder, texture, tuple(max(16, round(factor * side)) for side in size[::-1]), scale)


def _palette_of(pipe: Any, color: Any) -> Any:
    """The colors (1, N, 3) of a reference, as the pipeline's encoder reads it."""
    if getattr(pipe, "mg_encoder", None) is None:
        raise ValueError("`recolor` reads the color reference with an encoder; this pipeline has no `mg_encoder`.")
    if color is None:
        raise ValueError(
            "`recolor` needs a color reference, a picture, a card, or a list of hex colors; or a `hint` in its place."
        )
    return pipe.mg_encoder.encode({"color": color}, (8, 8))["color"][0]["palette"].float().cpu()


def _turns(assignment: str, count: int, generator: Any) -> list[Any]:
    """Which color goes where: by light, once for all pictures, or as the generator, or that of each picture, has it."""
    generators = generators_of(count, generator)
    if assignment == "light":
        return [None]
    import torch
    from diffusers.utils.torch_utils import randn_tensor

    from ..adapter.sketch import random_turns

    device = torch.device("cpu") if generators[0] is None else generators[0].device
    drawn = generators if isinstance(generator, (list, tuple)) else generator
    noise = randn_tensor((count, 3, 3), drawn, device, torch.float32)
    return list(random_turns(noise.cpu()).unsqueeze(1))
