"""Edits that a pipeline paints."""

import inspect
from typing import Any

import numpy as np
import PIL.Image

from ..granularities import GRANULARITIES
from .inputs import Picture, Pictures, check_unplaced, named
from .masks import POLARITY
from .sources import Edited, Source, grown_into, opened


GRAY = 128  # where nothing of a picture is known


@named
def reshape(
    pipe: Any,
    image: Picture,
    mask_image: Any = None,
    shape: Any = None,
    color: Any = None,
    texture: Any = None,
    **options: Any,
) -> Pictures:
    """New content in the mask, in the shape of a reference or, without one, of the mask itself.

    Args:
        mask_image: white is painted anew, gray in part; if not given, what is not wholly transparent.
        shape: a shape reference or a list of them, laid over the box around the mask.
        color, texture: what the content is made of; at least one of them, or it would go on with its surroundings.
        height, width: of what is computed, in pixels; the result has the size of the picture.

    Returns:
        what is gray comes back in color, all else in its form; what is new has 8 bits: see `edits.sources`.

    Raises:
        ValueError: if neither color nor texture is given, a shape has a region of its own, or there is neither a mask nor
            an alpha.
    """
    _check_listed(options)
    _check_whole(options)
    wanted = _generating(pipe, "reshape").__name__.replace("Pipeline", "InpaintPipeline")
    if "mask_image" not in inspect.signature(pipe.__call__).parameters:
        raise ValueError(
            f"`reshape` paints in a mask, which {type(pipe).__name__} does not. Pass `{wanted}(**pipe.components)`, which "
            f"has the same parts."
        )
    source = opened(image, "reshape")
    area = reshaped_area(source, mask_image, color, texture, shape)
    mask = PIL.Image.fromarray(255 * (area > 0).astype(np.uint8))
    laid = mask.convert("RGB") if shape is None else _laid(shape, mask)
    references = {"color": color, "texture": texture, "shape": laid}
    references = {name: reference for name, reference in references.items() if reference is not None}
    if source.visible is not None and not (source.visible & (area == 0)).any():
        options.setdefault("context_scale", 0.0)  # nothing surrounds the mask that could lend anything
    shown = _shown(source, area)
    made = pipe(image=shown, mask_image=mask, reference_image=references, **options).images
    return [_kept(source, one, area) for one in made]


@named
def variation(pipe: Any, image: Picture, **options: Any) -> Pictures:
    """Another picture of the same colors, texture and shape, at the model's own size in the aspect of the picture.

    What is transparent is not read; the new picture is in color, of 8 bits and opaque, whatever came.

    Args:
        granularity_scale: how near each of them stays, a number or {"color": ..., "texture": ..., "shape": ...}.
        height, width: of the new picture, in pixels.
    """
    _check_listed(options)
    kind = _generating(pipe, "variation")
    source = opened(image, "variation")
    reference = PIL.Image.fromarray(source.in_8_bits)
    if source.visible is not None:
        reference = {"image": reference, "mask": source.visible}
    generating = kind(**pipe.components)
    generating.set_progress_bar_config(**getattr(pipe, "_progress_bar_config", {}))
    return generating(reference_image=dict.fromkeys(GRANULARITIES, reference), **options).images


def reshaped_area(
    source: Source, mask_image: Any, color: Any = None, texture: Any = None, shape: Any = None
) -> np.ndarray:
    """Where `reshape` paints, or a ValueError for what it refuses whatever the pipeline is."""
    if color is None and texture is None:
        raise ValueError("`reshape` needs a color or a texture reference: what is the new content made of?")
    check_unplaced(shape, "`reshape` lays its shape over the box around the mask")
    source.check_colors("reshape")
    area = source.area(mask_image)
    if area is None:
        raise ValueError(
            "`reshape` needs a mask, or a picture that is transparent around what is to be painted anew. Pass "
            f"`mask_image` (`--mask`). {POLARITY}"
        )
    return area


def _generating(pipe: Any, name: str) -> type:
    """The class of ours that generates with the parts of a pipeline, also where that has a class of the user's.

    Args:
        name: of the edit, for messages.
    """
    from .. import pipelines

    generating = {
        pipelines.MGPipeline: pipelines.MGPipeline,
        pipelines.MGInpaintPipeline: pipelines.MGPipeline,
        pipelines.MGXLPipeline: pipelines.MGXLPipeline,
        pipelines.MGXLInpaintPipeline: pipelines.MGXLPipeline,
    }
    # By name: code that came with weights has classes of its own.
    names = {one.__name__: made for one, made in generating.items()}
    found = next((names[one.__name__] for one in type(pipe).__mro__ if one.__name__ in names), None)
    if found is None:
        raise ValueError(
            f"`{name}` takes a pipeline of {', '.join(names)}, or of a class made of them; got {type(pipe).__name__}."
        )
    return found


def _laid(shape: Any, mask: PIL.Image.Image) -> list[dict[str, Any]]:
    """Shape references, over the box around a mask."""
    left, top, right, bottom = mask.getbbox()
    box = (left / mask.width, top / mask.height, right / mask.width, bottom / mask.height)
    shapes = shape if isinstance(shape, (list, tuple)) else [shape]
    entries = [entry if isinstance(entry, dict) else {"image": entry} for entry in shapes]
    return [{**entry, "region": box} for entry in entries]


def _check_listed(options: dict[str, Any]) -> None:
    if not options.get("return_dict", True):
        raise ValueError("Named edits return a list of pictures, whatever `return_dict` is: leave it out.")
    if options.get("output_type", "pil") != "pil":
        raise ValueError(
            f"Named edits give back pictures; got the `output_type` {options['output_type']!r}. Leave it out."
        )


def _check_whole(options: dict[str, Any]) -> None:
    """Shapes and masks of these edits lie over the whole picture, so that is what has to be computed."""
    if options.get("padding_mask_crop") is not None:
        raise ValueError(
            "This edit takes its shape from the whole picture and cannot compute a part alone: leave `padding_mask_crop` "
            "out, or crop picture and mask first."
        )


def _shown(source: Source, area: np.ndarray) -> PIL.Image.Image:
    """The picture as a pipeline takes it: where it is transparent, what can be seen outside the mask goes on."""
    pixels = source.in_8_bits
    if source.visible is not None:
        known = source.visible & (area == 0)
        around = grown_into(pixels, ~known) if known.any() else np.full_like(pixels, GRAY)
        pixels = np.where(source.visible[..., None], pixels, around)
    return PIL.Image.fromarray(pixels)


def _kept(source: Source, made: PIL.Image.Image, area: np.ndarray) -> Edited:
    """What was painted, at the picture's own size and depth, where the area has it, and in part where that is gray."""
    made = made if made.size == source.size else made.resize(source.size, PIL.Image.Resampling.LANCZOS)
    pixels = np.asarray(made).astype(source.own.dtype) * (source.most // 255)
    share = area[..., None] / np.float32(255)
    part = (source.pixels + share * (pixels.astype(np.float32) - source.pixels)).round().astype(source.own.dtype)
    return source.finish(part, area, is_colored=True)
