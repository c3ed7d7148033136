"""Named edits: what people ask for, each one call of an `MGInpaintPipeline`.

    from mg_diffusion import MGInpaintPipeline
    from mg_diffusion.edits import recolor

    pipe = MGInpaintPipeline.from_pretrained("path/to/exported/repository")
    (recolored,) = recolor(pipe, image, ["#1d3557", "#f1faee"])

Every one returns a list of PIL images in which no pixel outside the mask differs, takes a PIL image or a path, and passes
what else it is given on to the pipeline (`generator`, `num_images_per_prompt`, `feature_guidance_scale`, ...).
"""

from collections.abc import Sequence
from typing import Any

import PIL.Image
import PIL.ImageOps

from .granularities import GRANULARITIES


Picture = Any  # a PIL image or a path
SIDES = ("left", "top", "right", "bottom")  # of a picture that is enlarged


def recolor(
    pipe: Any, image: Picture, color: Any, mask_image: Picture | None = None, **options: Any
) -> list[PIL.Image.Image]:
    """Other colors; texture and shape are those of the picture.

    Args:
        color: a color reference, picture or palette.
        mask_image: white is recolored; everything if not given.
    """
    return _exchanged(pipe, image, mask_image, {"color": color}, options)


def retexture(
    pipe: Any, image: Picture, texture: Any, mask_image: Picture | None = None, **options: Any
) -> list[PIL.Image.Image]:
    """Another texture; colors and shape are those of the picture.

    Args:
        texture: a texture reference.
        mask_image: white is retextured; everything if not given.
    """
    return _exchanged(pipe, image, mask_image, {"texture": texture}, options)


def reshape(
    pipe: Any,
    image: Picture,
    mask_image: Picture,
    shape: Any = None,
    color: Any = None,
    texture: Any = None,
    **options: Any,
) -> list[PIL.Image.Image]:
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
        entries = [entry if isinstance(entry, dict) else {"image": entry} for entry in _as_list(shape)]
        if any(entry.get("region") is not None for entry in entries):
            raise ValueError("`reshape` lays its shape over the box around the mask; leave the region out.")
        laid = [{**entry, "region": box} for entry in entries]
    references = {"color": color, "texture": texture, "shape": laid}
    return _edited(pipe, image, mask, {k: v for k, v in references.items() if v is not None}, options)


def remove(pipe: Any, image: Picture, mask_image: Picture, **options: Any) -> list[PIL.Image.Image]:
    """What is in the mask goes; its surroundings go on there."""
    image = _opened(image)
    return _edited(pipe, image, _mask_of(image, mask_image), None, options)


def variation(pipe: Any, image: Picture, **options: Any) -> list[PIL.Image.Image]:
    """Another picture of the same colors, texture and shape; how near, `granularity_scale` says."""
    image = _opened(image)
    return _edited(pipe, image, _mask_of(image, None), dict.fromkeys(GRANULARITIES, image), options)


def outpaint(
    pipe: Any, image: Picture, left: int = 0, top: int = 0, right: int = 0, bottom: int = 0, **options: Any
) -> list[PIL.Image.Image]:
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
) -> list[PIL.Image.Image]:
    """The edit of this name, with what it takes of a mask, of references and of pixels added on each of `SIDES`."""
    if name in ("recolor", "retexture"):
        edit, reference = (recolor, "color") if name == "recolor" else (retexture, "texture")
        return edit(pipe, image, references[reference], mask, **options)
    if name == "reshape":
        return reshape(pipe, image, mask, **references, **options)
    if name == "remove":
        return remove(pipe, image, mask, **options)
    return variation(pipe, image, **options) if name == "variation" else outpaint(pipe, image, *added, **options)


def _as_list(reference: Any) -> list[Any]:
    return list(reference) if isinstance(reference, (list, tuple)) else [reference]


def _opened(image: Picture) -> PIL.Image.Image:
    """A picture in RGB, upright; what has no well-defined color is refused, as by the pipeline."""
    from .pipelines.pictures import list_images  # with it comes most of diffusers

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
    return mask


def _check_whole(options: dict[str, Any]) -> None:
    """Shapes and masks of these edits lie over the whole picture, so that is what has to be computed."""
    if options.get("padding_mask_crop") is not None:
        raise ValueError(
            "This edit takes its shape from the whole picture and cannot compute a part alone: leave `padding_mask_crop` "
            "out, or crop picture and mask first."
        )


def _exchanged(
    pipe: Any, image: Picture, mask: Picture | None, given: dict[str, Any], options: dict[str, Any]
) -> list[PIL.Image.Image]:
    """The picture with one attribute of another: the others are its own, color and texture those of what is masked."""
    _check_whole(options)
    image = _opened(image)
    mask = _mask_of(image, mask)
    masked = {"image": image, "mask": mask}
    return _edited(pipe, image, mask, {"color": masked, "texture": masked, "shape": image} | given, options)


def _edited(
    pipe: Any,
    image: PIL.Image.Image,
    mask: PIL.Image.Image,
    references: dict[str, Any] | None,
    options: dict[str, Any],
) -> list[PIL.Image.Image]:
    return pipe(image=image, mask_image=mask, reference_image=references, **options).images
