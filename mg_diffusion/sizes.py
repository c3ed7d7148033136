"""Sizes of pictures that can be: numbers alone, so that a wrong one is told before anything is loaded."""

import math
from numbers import Integral
from typing import Any


MOST_PIXELS = 2048**2
COMPOSED_UNIT, LEAST_COMPOSED_SIDE = 8, 64


def octaves_to(height: float, width: float, native: tuple[int, int], factor: int, halvings: int) -> tuple[int, int]:
    """How many octaves lead to a size in pixels, and what its sides must be multiples of.

    Args:
        native: (height, width) that the UNet paints; factor: its pixels a latent cell.
        halvings: by how much the detail network halves a side.
    """
    side = math.sqrt(math.prod(native))
    octaves = max(0, round(math.log2(max(math.sqrt(abs(height * width)), 1) / side)))
    return octaves, max(factor, halvings if octaves else 1) << octaves


def check_painted_size(height: int, width: int, native: tuple[int, int], factor: int, halvings: int) -> None:
    """Raise a ValueError for a size that no octaves lead to; arguments as of `octaves_to`."""
    _, unit = octaves_to(height, width, native, factor, halvings)
    if height <= 0 or width <= 0 or height % unit or width % unit:
        near = tuple(max(unit, unit * round(side / unit)) for side in (height, width))
        raise ValueError(
            f"`height` and `width` must be positive multiples of {unit} at about this size, got {height} and {width}. "
            f"Near by are {near[0]} and {near[1]}."
        )
    check_area(height, width)


def check_area(height: int, width: int) -> None:
    """Raise a ValueError for more pixels than are painted or laid at once."""
    if height * width > MOST_PIXELS:
        raise ValueError(
            f"`height` x `width` must be at most {MOST_PIXELS:,} pixels, got {height} x {width}. Make a smaller picture and "
            f"enlarge it (`mg_diffusion.edits.enlarge`)."
        )


def check_composed_size(height: Any = None, width: Any = None) -> None:
    """Raise a ValueError for sides, of those that are given, that no composition has."""
    for name, side in (("height", height), ("width", width)):
        if side is not None and (not is_side(side) or side < LEAST_COMPOSED_SIDE or side % COMPOSED_UNIT):
            raise ValueError(
                f"`{name}` must be a multiple of {COMPOSED_UNIT} of at least {LEAST_COMPOSED_SIDE}, in pixels; got {side!r}."
            )
    if height is not None and width is not None:
        check_area(height, width)


def is_side(side: Any) -> bool:
    """Whether this is a positive whole number."""
    return isinstance(side, Integral) and not isinstance(side, bool) and side > 0
