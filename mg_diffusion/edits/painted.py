"""Edits that a pipeline paints."""

from typing import Any

from ..granularities import GRANULARITIES
from .inputs import Picture, Pictures, mask_of, opened


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
    image = opened(image)
    mask = mask_of(image, mask_image)
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


def variation(pipe: Any, image: Picture, **options: Any) -> Pictures:
    """Another picture of the same colors, texture and shape, at the model's own size in the aspect of the picture.

    Args:
        granularity_scale: how near each of them stays, a number or {"color": ..., "texture": ..., "shape": ...}.
        height, width: of the new picture, in pixels.
    """
    from .. import pipelines

    image = opened(image)
    kind = getattr(pipelines, type(pipe).__name__.replace("Inpaint", ""))
    generating = kind(**pipe.components)
    generating.set_progress_bar_config(**getattr(pipe, "_progress_bar_config", {}))
    return generating(reference_image=dict.fromkeys(GRANULARITIES, image), **options).images


def _check_whole(options: dict[str, Any]) -> None:
    """Shapes and masks of these edits lie over the whole picture, so that is what has to be computed."""
    if options.get("padding_mask_crop") is not None:
        raise ValueError(
            "This edit takes its shape from the whole picture and cannot compute a part alone: leave `padding_mask_crop` "
            "out, or crop picture and mask first."
        )


def _edited(pipe: Any, image: Picture, mask: Picture, references: Any, options: dict[str, Any]) -> Pictures:
    return pipe(image=image, mask_image=mask, reference_image=references, **options).images
