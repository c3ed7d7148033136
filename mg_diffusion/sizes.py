"""Sizes of pictures that can be: numbers alone, so that a wrong one is told before anything is loaded."""

import itertools
import math
from typing import Any

from .arrays import whole_number


MOST_PIXELS = 2048**2
COMPOSED_UNIT, LEAST_COMPOSED_SIDE = 8, 64
MOST_WIDTH = 2**20  # of an edge or a margin, in pixels: more than any picture has on a side

MAX_ASPECT = 16.0  # of a reference, its longer side to its shorter one

CARD_SIDE, CARD_UNIT, MOST_CARD_SIDE = 256, 128, 1024  # of squares with the area of the largest picture a card serves


def octaves_to(height: float, width: float, native: tuple[int, int], factor: int, halvings: int) -> tuple[int, int]:
    """How many octaves lead to a size in pixels, and what its sides must be multiples of.

    Args:
        native: (height, width) that the UNet paints; factor: its pixels a latent cell.
        halvings: by how much the detail network halves a side.
    """
    side = math.sqrt(math.prod(native))
    octaves = max(0, round(math.log2(max(math.sqrt(abs(height * width)), 1) / side)))
    return octaves, _unit(octaves, factor, halvings)


def _unit(octaves: int, factor: int, halvings: int) -> int:
    return max(factor, halvings if octaves else 1) << octaves


def nearest_painted_size(
    wanted: tuple[float, float],
    native: tuple[int, int],
    factor: int,
    halvings: int,
    given: tuple[int | None, int | None] = (None, None),
) -> tuple[int, int] | None:
    """The size next to `wanted` (height, width) that octaves lead to; `None` where sides that are `given` go with none near by.

    Rounding a side may lead over the border to another number of octaves, which asks for multiples of more.
    """
    octaves, unit = octaves_to(*wanted, native, factor, halvings)
    found = []
    for number in (octaves, max(0, octaves - 1), octaves + 1):
        step = _unit(number, factor, halvings)
        sides = [
            [max(step, step * (round(side / step) + more)) for more in (0, -1, 1)] if own is None else [own]
            for side, own in zip(wanted, given, strict=True)
        ]
        for size in itertools.product(*sides):
            needed = octaves_to(*size, native, factor, halvings)[1]
            found += [] if size[0] % needed or size[1] % needed else [size]

    def distance(size: tuple[int, int]) -> float:
        return sum(abs(side - want) for side, want in zip(size, wanted, strict=True))

    nearest = min(found, key=distance, default=None)
    is_near = nearest is not None and distance(nearest) <= max(unit, *(unit - want for want in wanted))
    return nearest if is_near or given == (None, None) else None


def check_painted_size(height: int, width: int, native: tuple[int, int], factor: int, halvings: int) -> None:
    """Raise a ValueError for a size that no octaves lead to; arguments as of `octaves_to`."""
    if min(height, width) > 0:
        check_area(height, width)
    _, unit = octaves_to(height, width, native, factor, halvings)
    if height <= 0 or width <= 0 or height % unit or width % unit:
        near = nearest_painted_size((height, width), native, factor, halvings)  # of a strip there may be none
        hint = "Give sides less unlike" if near is None else f"Near by are {near[0]} and {near[1]}"
        raise ValueError(
            f"`height` and `width` must be positive multiples of {unit} at about this size, got {height} and {width}. {hint}."
        )


def check_area(height: int, width: int) -> None:
    """Raise a ValueError for more pixels than are painted or laid at once."""
    if height * width > MOST_PIXELS:
        raise ValueError(
            f"`height` x `width` must be at most {MOST_PIXELS:,} pixels, got {height} x {width}. Make a smaller picture and "
            f"enlarge it (`mg-diffusion enlarge`, `mg_diffusion.edits.enlarge`)."
        )


def check_composed_size(height: Any = None, width: Any = None) -> tuple[int | None, int | None]:
    """Both sides, those that are given as whole numbers, or a ValueError for sides that no composition has."""
    given = {"height": height, "width": width}
    sides = {name: whole_number(side) for name, side in given.items() if side is not None}
    for name, side in sides.items():
        if side is None or side < LEAST_COMPOSED_SIDE or side % COMPOSED_UNIT:
            raise ValueError(
                f"`{name}` must be a multiple of {COMPOSED_UNIT} of at least {LEAST_COMPOSED_SIDE}, in pixels; got {given[name]!r}."
            )
    if len(sides) == 2:
        check_area(**sides)
    return sides.get("height"), sides.get("width")


def check_size(value: Any, name: str) -> tuple[int, int]:
    """(height, width) as whole numbers, or a ValueError."""
    sides = [whole_number(side) or 0 for side in value] if isinstance(value, (tuple, list)) else []
    if len(sides) != 2 or min(sides) < 1:
        raise ValueError(f"`{name}` must be (height, width), two positive integers; got {value!r}.")
    return sides[0], sides[1]


def check_pixels(value: Any, name: str) -> int:
    """A number of pixels, of an edge or a margin, as a whole number, or a ValueError."""
    pixels = whole_number(value)
    if pixels is None or not 0 <= pixels <= MOST_WIDTH:
        bound = "at least 0" if pixels is None or pixels < 0 else f"at most {MOST_WIDTH}"
        raise ValueError(f"`{name}` is a number of pixels, an integer of {bound}; got {value!r}.")
    return pixels


def check_composed_side(side: int) -> None:
    """Raise a ValueError for the side of a square whose area no composition has, in whatever aspect."""
    if side < LEAST_COMPOSED_SIDE:
        raise ValueError(f"The side of a composition is at least {LEAST_COMPOSED_SIDE} pixels, got {side}.")
    check_area(side, side)


def card_side(side: Any) -> int:
    """The side that a granularity card is made for, to serve pictures with the area of a square of `side` pixels.

    Raises:
        ValueError: for more than any card serves, and for what is no side.
    """
    pixels = whole_number(side)
    if pixels is None or not 0 < pixels <= MOST_CARD_SIDE:
        raise ValueError(
            f"A granularity card serves pictures of up to {MOST_CARD_SIDE} x {MOST_CARD_SIDE} pixels, or others of that area; "
            f"got a side of {side!r}. For larger ones give the picture itself in place of a card."
        )
    return max(CARD_SIDE, CARD_UNIT * math.ceil(pixels / CARD_UNIT))


def is_side(side: Any) -> bool:
    """Whether this is a positive whole number."""
    return (whole_number(side) or 0) > 0
