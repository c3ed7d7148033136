"""What named edits take beside a picture and a mask: strengths, and how many results."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ..arrays import check_count, plain_number
from ..granularities import GRANULARITIES
from ..hex_colors import is_palette, read_palette
from .progress import check_callback
from .sources import Edited, Source


Picture = Any  # a PIL image, a path, or an array; see `sources.opened`
Pictures = list[Edited]
Edit = TypeVar("Edit", bound=Callable[..., Pictures])
MOST_STRENGTH = 4  # of a granularity; beyond it, little but the corners of the gamut is left


def named(edit: Edit) -> Edit:
    """An edit whose pipeline and callback are checked before anything is read, and which computes as its parts lie.

    Whatever is torch's default device by then: what an edit makes for itself lies on the CPU.
    """

    known = inspect.signature(edit).parameters

    @functools.wraps(edit)
    def checked(pipe: Any, *given: Any, **options: Any) -> Pictures:
        if not callable(getattr(pipe, "progress_bar", None)):
            raise ValueError(
                f"`{edit.__name__}` takes a pipeline first, such as an `MGInpaintPipeline`, got {type(pipe).__name__}."
            )
        if "callback" in options and "callback" not in known:
            raise ValueError(
                f"`{edit.__name__}` takes `callback_on_step_end`, as pipelines do, in place of `callback`."
            )
        check_callback(options.get("callback"))
        from ..default_device import on_cpu  # with it comes torch

        with on_cpu():
            return edit(pipe, *given, **options)

    return checked


def strength_of(granularity: str, scale: float | Mapping[str, float]) -> float:
    """How much a granularity counts, of a number or of strengths by granularity, which are all looked at."""
    if isinstance(scale, Mapping) and not set(scale) <= set(GRANULARITIES):
        raise ValueError(f"Strengths are those of {', '.join(GRANULARITIES)}, got {list(scale)}.")
    given = {granularity: 1.0, **scale} if isinstance(scale, Mapping) else {granularity: scale}
    checked = {name: check_strength(one, f"The strength of {name}", MOST_STRENGTH) for name, one in given.items()}
    return checked[granularity]


def check_strength(value: Any, what: str, most: float = 1) -> float:
    """The value as a number of Python, or a ValueError unless it is one from 0 to `most`."""
    number = plain_number(value)
    if number is None or not 0 <= number <= most:
        raise ValueError(f"{what} must be a number from 0 (off) to {most:g}, got {value!r}.")
    return number


def check_side(image: Source, name: str) -> None:
    if min(image.size) < 16:
        raise ValueError(f"`{name}` reads pictures of at least 16 x 16 pixels, got {image.size}; enlarge it first.")


def check_unplaced(reference: Any, laid: str) -> None:
    """Raise a ValueError for a reference with a region; `laid` says where the edit lays it."""
    if isinstance(reference, (list, tuple)):
        for one in reference:
            check_unplaced(one, laid)
    elif isinstance(reference, dict) and reference.get("region") is not None:
        raise ValueError(f"{laid}; leave the region out.")


def is_one_color(color: Any) -> bool:
    """Whether a color reference, or each of a list of them, is hex colors, and all of those are the same."""
    rows = color if isinstance(color, (list, tuple)) and not is_palette(color) else [color]
    images = [row.get("image") if isinstance(row, dict) else row for row in rows]
    if not images or not all(map(is_palette, images)):
        return False
    return len({tuple(one) for image in images for one in read_palette(image)[0]}) == 1


def generators_of(count: int, generator: Any) -> list[Any]:
    """The generators of `count` pictures, one for each or a single one for all.

    Raises:
        ValueError: for a count that is none, and generators that are none or do not match it.
    """
    import torch

    count, is_list = check_count(count), isinstance(generator, (list, tuple))
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
    drawn = generators if isinstance(generator, (list, tuple)) else generators * check_count(count)
    return [int(torch.randint(2**31, (), generator=one, device="cpu" if one is None else one.device)) for one in drawn]


def copies(picture: Edited, count: int) -> Pictures:
    """One result for all, where nothing is drawn."""
    return [picture.copy() for _ in range(check_count(count))]
