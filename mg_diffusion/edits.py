"""Named edits: what people ask for, each one call with an `MGInpaintPipeline`.

    from mg_diffusion import MGInpaintPipeline
    from mg_diffusion.edits import recolor

    pipe = MGInpaintPipeline.from_pretrained("path/to/exported/repository")
    (recolored,) = recolor(pipe, image, ["#1d3557", "#f1faee"])

Every one returns a list of PIL images in which no pixel outside the mask differs, and takes a PIL image or a path. All but
`recolor`, which paints nothing, pass what else they are given on to the pipeline (`generator`, `num_images_per_prompt`,
`feature_guidance_scale`, ...).
"""

import inspect
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps

from .granularities import GRANULARITIES


Picture = Any  # a PIL image or a path
Pictures = list[PIL.Image.Image]
MOST_STRENGTH = 4  # of `recolor`; beyond it, little but the corners of the gamut is left
SIDES = ("left", "top", "right", "bottom")  # of a picture that is enlarged


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
    from .recoloring import recolored, select_color  # with it comes torch

    image = _opened(image)
    mask = None if mask_image is None else _mask_of(image, mask_image)
    strength = _color_strength(granularity_scale)
    _check_recoloring(image, tolerance, assignment, mask_feather)
    turns = _turns(assignment, num_images_per_prompt, generator)
    pixels, area = np.asarray(image), None if mask is None else _feathered(mask, mask_feather)
    if select is not None:
        selected = select_color(pixels, select, tolerance)
        area = selected if area is None else np.minimum(selected, area)
        if not area.any():
            raise ValueError(f"Nothing in the mask has the color {select}. Enlarge the mask, or select another color.")
    palette = _palette_of(pipe, color)
    made = [PIL.Image.fromarray(recolored(pixels, palette, area, turn, strength)) for turn in turns]
    return made if len(made) == num_images_per_prompt else [made[0].copy() for _ in range(num_images_per_prompt)]


def retexture(pipe: Any, image: Picture, texture: Any, mask_image: Picture | None = None, **options: Any) -> Pictures:
    """Another texture; colors and shape are those of the picture.

    Args:
        texture: a texture reference.
        mask_image: white is retextured; everything if not given.
    """
    _check_whole(options)
    image = _opened(image)
    mask = _mask_of(image, mask_image)
    references = {"color": {"image": image, "mask": mask}, "texture": texture, "shape": image}
    return _edited(pipe, image, mask, references, options)


def reshape(
    pipe: Any,
    image: Picture,
    mask_image: Picture,
    shape: Any = None,
    color: Any = None,
    texture: Any = None,
    **options: Any,
) -> Pictures:
    """New content in the mask, in the shape of a reference or, without one, of the mask itself.

    Args:
        shape: a shape reference or a list of them, laid over the box around the mask.
        color, texture: what the content is made of; at least one of them, or it would go on with its surroundings.

    Raises:
        ValueError: if neither color nor texture is given, or a shape has a region of its own.
    """
    if color is None and texture is None:
        raise ValueError("`reshape` needs a color or a texture reference: what is the new content made of?")
    _check_whole(options)
    image = _opened(image)
    mask = _mask_of(image, mask_image)
    laid = mask.convert("RGB")
    if shape is not None:
        left, top, right, bottom = mask.getbbox()
        box = (left / image.width, top / image.height, right / image.width, bottom / image.height)
        shapes = shape if isinstance(shape, (list, tuple)) else [shape]
        entries = [entry if isinstance(entry, dict) else {"image": entry} for entry in shapes]
        if any(entry.get("region") is not None for entry in entries):
            raise ValueError("`reshape` lays its shape over the box around the mask; leave the region out.")
        laid = [{**entry, "region": box} for entry in entries]
    references = {"color": color, "texture": texture, "shape": laid}
    return _edited(pipe, image, mask, {k: v for k, v in references.items() if v is not None}, options)


def remove(pipe: Any, image: Picture, mask_image: Picture, **options: Any) -> Pictures:
    """What is in the mask goes; its surroundings go on there."""
    image = _opened(image)
    return _edited(pipe, image, _mask_of(image, mask_image), None, options)


def variation(pipe: Any, image: Picture, **options: Any) -> Pictures:
    """Another picture of the same colors, texture and shape; how near, `granularity_scale` says."""
    image = _opened(image)
    return _edited(pipe, image, _mask_of(image, None), dict.fromkeys(GRANULARITIES, image), options)


def outpaint(
    pipe: Any, image: Picture, left: int = 0, top: int = 0, right: int = 0, bottom: int = 0, **options: Any
) -> Pictures:
    """A larger picture, of which the picture is an unchanged part.

    Args:
        left, top, right, bottom: pixels to add.

    Raises:
        ValueError: if nothing is to be added, or less than nothing, or more than the picture is large.
    """
    image = _opened(image)
    added = (left, top, right, bottom)
    if any(not isinstance(side, int) or side < 0 for side in added) or not any(added):
        raise ValueError(f"`outpaint` adds whole pixels, at least 1 on some side; got {added}.")
    if left + right > image.width or top + bottom > image.height:
        raise ValueError(
            f"`outpaint` adds at most as much as there is, {image.width} x {image.height}; got {added}. Go step by step."
        )
    mask = PIL.ImageOps.expand(PIL.Image.new("L", image.size, 0), added, 255)
    return _edited(pipe, PIL.ImageOps.expand(image, added), mask, None, options)


def named_edit(
    name: str,
    pipe: Any,
    image: Picture,
    mask: Picture | None,
    references: dict[str, Any],
    added: Sequence[int],
    **options: Any,
) -> Pictures:
    """The edit of this name, with what it takes of a mask, of references and of pixels added on each of `SIDES`."""
    if name == "recolor":
        known = inspect.signature(recolor).parameters  # the rest is about sampling, which it does not
        options = {key: value for key, value in options.items() if key in known}
        return recolor(pipe, image, references["color"], mask, **options)
    if name == "retexture":
        return retexture(pipe, image, references["texture"], mask, **options)
    if name == "reshape":
        return reshape(pipe, image, mask, **references, **options)
    if name == "remove":
        return remove(pipe, image, mask, **options)
    return variation(pipe, image, **options) if name == "variation" else outpaint(pipe, image, *added, **options)


def _opened(image: Picture) -> PIL.Image.Image:
    """A picture in RGB, upright; what has no well-defined color is refused, as by the pipeline."""
    from .pipelines.pictures import list_images  # with it comes most of diffusers

    if not isinstance(image, (str, os.PathLike, PIL.Image.Image)):
        raise ValueError(
            f"A named edit takes one picture, a PIL image or a path, got {type(image).__name__}. Arrays: "
            f"`PIL.Image.fromarray(array)`; several pictures: one by one."
        )
    return list_images(image)[0]


def _mask_of(image: PIL.Image.Image, mask: Picture | None) -> PIL.Image.Image:
    """A mask in black and white; all white if none is given."""
    from .pipelines.pictures import upright

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


def _check_whole(options: dict[str, Any]) -> None:
    """Shapes and masks of these edits lie over the whole picture, so that is what has to be computed."""
    if options.get("padding_mask_crop") is not None:
        raise ValueError(
            "This edit takes its shape from the whole picture and cannot compute a part alone: leave `padding_mask_crop` "
            "out, or crop picture and mask first."
        )


def _color_strength(scale: float | Mapping[str, float]) -> float:
    """How far colors move, of a number or of strengths by granularity."""
    if isinstance(scale, Mapping) and not set(scale) <= set(GRANULARITIES):
        raise ValueError(f"Strengths are those of {', '.join(GRANULARITIES)}, got {sorted(scale)}.")
    strength = scale.get("color", 1.0) if isinstance(scale, Mapping) else scale
    if isinstance(strength, bool) or not isinstance(strength, (int, float)) or not 0 <= strength <= MOST_STRENGTH:
        raise ValueError(f"The strength of color must be a number from 0 (off) to {MOST_STRENGTH}, got {strength!r}.")
    return strength


def _check_recoloring(image: PIL.Image.Image, tolerance: float, assignment: str, feather: int) -> None:
    if min(image.size) < 16:
        raise ValueError(f"`recolor` reads pictures of at least 16 x 16 pixels, got {image.size}; enlarge it first.")
    if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)) or not 0 < tolerance <= 100:
        raise ValueError(f"`tolerance` is a Delta-E above 0 and at most 100, got {tolerance!r}.")
    if isinstance(feather, bool) or not isinstance(feather, int) or feather < 0:
        raise ValueError(f"`mask_feather` is a number of pixels, an integer of at least 0; got {feather!r}.")
    if assignment not in ("light", "free"):
        raise ValueError(f'`assignment` must be "light" or "free", got {assignment!r}.')


def _feathered(mask: PIL.Image.Image, width: int) -> np.ndarray:
    import torch

    from .pipelines.pictures import feathered

    area = np.array(mask)
    if not width:
        return area
    alpha = feathered(torch.from_numpy(area > 0)[None, None].float(), width)[0, 0].numpy()
    return (area * alpha).round().clip(area > 0, 255).astype(np.uint8)


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
    import torch

    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"`num_images_per_prompt` must be an integer of at least 1, got {count!r}.")
    is_list = isinstance(generator, (list, tuple))
    generators = list(generator) if is_list else [generator]
    if is_list and len(generators) != count:
        raise ValueError(f"Pass one generator, or one for each of the {count} pictures; got {len(generators)}.")
    if not all(isinstance(one, torch.Generator) for one in generators if is_list or one is not None):
        raise ValueError(f"`generator` must be a `torch.Generator().manual_seed(...)`, or a list, got {generator!r}.")
    if assignment == "light":
        return [None]
    from diffusers.utils.torch_utils import randn_tensor

    from .adapter.sketch import random_turns

    device = torch.device("cpu") if generators[0] is None else generators[0].device
    noise = randn_tensor((count, 3, 3), generators if is_list else generator, device, torch.float32)
    return list(random_turns(noise.cpu()).unsqueeze(1))


def _edited(pipe: Any, image: Picture, mask: Picture, references: Any, options: dict[str, Any]) -> Pictures:
    return pipe(image=image, mask_image=mask, reference_image=references, **options).images
