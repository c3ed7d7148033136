"""What named edits take beside a picture and a mask: strengths, and how many results."""

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

from ..granularities import GRANULARITIES
from .sources import Edited, Source


Picture = Any  # a PIL image, a path, or an array; see `sources.opened`
Pictures = list[Edited]
MOST_STRENGTH = 4  # of a granularity; beyond it, little but the corners of the gamut is left


def strength_of(granularity: str, scale: float | Mapping[str, float]) -> float:
    """How much a granularity counts, of a number or of strengths by granularity."""
    if isinstance(scale, Mapping) and not set(scale) <= set(GRANULARITIES):
        raise ValueError(f"Strengths are those of {', '.join(GRANULARITIES)}, got {list(scale)}.")
    strength = scale.get(granularity, 1.0) if isinstance(scale, Mapping) else scale
    return check_strength(strength, f"The strength of {granularity}", MOST_STRENGTH)


def check_strength(value: Any, what: str, most: float = 1) -> float:
    """The value, or a ValueError unless it is a number from 0 to `most`."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value <= most:
        raise ValueError(f"{what} must be a number from 0 (off) to {most:g}, got {value!r}.")
    return value


def check_pixels(value: Any, what: str) -> int:
    """The value, or a ValueError unless it is a number of pixels."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 0:
        raise ValueError(f"`{what}` is a number of pixels, an integer of at least 0; got {value!r}.")
    return value


def check_side(image: Source, name: str) -> None:
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


def copies(picture: Edited, count: int) -> Pictures:
    """One result for all, where nothing is drawn."""
    return [picture.copy() for _ in range(count)]
