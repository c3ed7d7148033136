"""`compose`: what three references ask for, laid together in a moment: no network paints, no base model is loaded."""

import functools
from collections.abc import Callable
from typing import Any

import PIL.Image
import torch

from .adapter.composition import has_any
from .arrays import check_count
from .default_device import on_cpu
from .edits.progress import check_callback
from .encoder.references import read_reference
from .features import Features
from .loading import embedded_model
from .modeling_mg_encoder import MGEncoder
from .reference_pictures import is_card
from .sizes import COMPOSED_UNIT, LEAST_COMPOSED_SIDE, check_composed_size, is_side


READING = 0.5  # of the time goes into reading references
COSTS = {"color": 1, "texture": 25, "shape": 25}  # of reading, in shares of the time
SIDE = 512  # of a square with the area of what is composed where no size is given


@functools.cache
def _embedded_encoder() -> MGEncoder:
    """Alike whatever is the default type and device where it is first asked for: it is kept for all calls."""
    with torch.device("cpu"):
        return MGEncoder.from_pretrained(
            embedded_model(), subfolder="mg_encoder", low_cpu_mem_usage=False, torch_dtype=torch.float32
        )


def compose(
    reference_image: dict[str, Any],
    height: int | None = None,
    width: int | None = None,
    granularity_scale: float | dict[str, float | list[float]] = 1.0,
    texture_scale: float = 1.0,
    assignment: str = "light",
    num_images: int = 1,
    generator: torch.Generator | list[torch.Generator] | None = None,
    output_type: str = "pil",
    encoder: MGEncoder | None = None,
    callback: Callable[[float], None] | None = None,
) -> list[PIL.Image.Image] | torch.Tensor:
    """The composition of references: the palette laid into the regions of the shape, the texture over it.

    A sharp poster, a start for image-to-image on any checkpoint, and what `composed_start` of the pipelines begins with.
    Regions without colors are laid in grays; colors without regions into soft clouds; a texture alone over middle gray.

    Args:
        reference_image: {"color": ..., "texture": ..., "shape": ...} as of `MGPipeline`: pictures, palettes, cards, masks,
            weights, regions, scales.
        height, width: in pixels, multiples of 8; by default 512 x 512, or as much in the aspect of the shape reference, which a
            single one of them keeps, too.
        granularity_scale, texture_scale, assignment: as of `MGPipeline`.
        num_images: how many; they differ in what the references leave open.
        generator: random numbers for that; a list holds one for each picture.
        output_type: "pil", or "pt" for a tensor (num_images, 3, height, width) in [0, 1].
        encoder: reads the references; the embedded default's if not given.
        callback: called with the share that is done, in [0, 1], which takes minutes of the largest pictures; what it raises
            stops the work.

    Raises:
        ValueError: for references that cannot be read or have no strength, and for numbers out of range.
    """
    check_callback(callback)
    num_images = _checked_count(num_images, assignment, output_type, generator, encoder)
    encoder = _embedded_encoder() if encoder is None else encoder
    tell = callback or (lambda share: None)
    with on_cpu():  # what is read goes to the device of the encoder
        size = composed_size(height, width, reference_image)
        strengths = encoder.strengths(granularity_scale, num_images)
        # What is no dict, and names that are none, are refused before anything is read.
        is_dict = isinstance(reference_image, dict)
        encoder.encode(dict.fromkeys(reference_image) if is_dict else reference_image, size, num_images)
        given = {name: one for name, one in reference_image.items() if one is not None}
        if not has_any(strengths, list(encoder.branches), given):
            raise ValueError(
                "There is nothing to compose: give a color, texture or shape reference, with a `granularity_scale` above 0."
            )
        features = _read(encoder, given, num_images, size, texture_scale, lambda share: tell(READING * share))
        composed = encoder.compose(features, size, granularity_scale, num_images, assignment, generator)
    tell(1.0)
    pixels = composed / 2 + 0.5
    if output_type == "pt":
        return pixels
    arrays = (255 * pixels).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [PIL.Image.fromarray(one) for one in arrays]


def _read(
    encoder: MGEncoder,
    references: dict[str, Any],
    count: int,
    size: tuple[int, int],
    texture_scale: float,
    tell: Callable[[float], None],
) -> Features:
    """Features of references, one granularity after the other."""
    features, small = {}, tuple(side // 4 for side in size)
    costs = {name: COSTS.get(name, 0) for name in references}
    for number, name in enumerate(costs, 1):
        features |= encoder.encode({name: references[name]}, small, count, size, texture_scale)
        tell(sum(list(costs.values())[:number]) / max(1, sum(costs.values())))
    return features


def _checked_count(num_images: Any, assignment: Any, output_type: Any, generator: Any, encoder: Any) -> int:
    """How many pictures, or a ValueError for what cannot be."""
    if encoder is not None and not callable(getattr(encoder, "compose", None)):
        raise ValueError(f"`encoder` must be an `MGEncoder`, such as `pipe.mg_encoder`, got {encoder!r}.")
    count = check_count(num_images, "num_images")
    drawn_of = generator if isinstance(generator, list) else [generator] * count
    if generator is not None and not all(isinstance(one, torch.Generator) for one in drawn_of):
        raise ValueError(
            f"`generator` must be a `torch.Generator` or a list of them, got {generator!r}. A seed becomes one by "
            f"`torch.Generator().manual_seed(seed)`."
        )
    if len(drawn_of) != count:
        raise ValueError(f"A list of generators needs one for each of the {count} pictures, got {len(drawn_of)}.")
    if not isinstance(assignment, str) or assignment not in ("light", "free"):
        raise ValueError(f'`assignment` must be "light" or "free", got {assignment!r}.')
    if not isinstance(output_type, str) or output_type not in ("pil", "pt"):
        raise ValueError(f'`output_type` must be "pil" or "pt", got {output_type!r}.')
    return count


def composed_size(
    height: int | None, width: int | None, reference_image: dict[str, Any], side: int = SIDE
) -> tuple[int, int]:
    """(height, width) in pixels, what is missing chosen in the aspect of the shape reference.

    Args:
        side: of a square of about the same area, where neither is given.

    Raises:
        ValueError: for sides that are no multiples of 8, and more pixels than are laid at once.
    """
    if height is None or width is None:
        aspect = _aspect(reference_image.get("shape") if isinstance(reference_image, dict) else None) or 1.0
        wanted = (side / aspect**0.5, side * aspect**0.5)
        if is_side(height):
            wanted = (int(height), int(height) * aspect)
        elif is_side(width):
            wanted = (int(width) / aspect, int(width))
        chosen = (max(LEAST_COMPOSED_SIDE, COMPOSED_UNIT * round(side / COMPOSED_UNIT)) for side in wanted)
        height, width = (other if side is None else side for side, other in zip((height, width), chosen, strict=True))
    return check_composed_size(height, width)


def _aspect(reference: Any) -> float | None:
    """Width over height of the first picture of a shape reference, at most 4 either way; `None` where none tells."""
    if isinstance(reference, (list, tuple)):
        return next((found for entry in reference if (found := _aspect(entry)) is not None), None)
    fields = reference if isinstance(reference, dict) else {"image": reference}
    if fields.get("image") is None or fields.get("region") is not None or is_card(fields["image"]):
        return None
    height, width = read_reference(fields)[0].shape[2:]
    return min(4.0, max(0.25, width / height))
