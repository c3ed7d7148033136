"""Colors as people write them, "#rrggbb": palettes and selections, told apart and checked before anything is loaded."""

import re
from collections.abc import Sequence
from typing import Any


HEX_COLOR = re.compile(r"^#([0-9a-fA-F]{6})(?::([0-9]*\.?[0-9]+))?$")
LEAST_WEIGHT, MOST_WEIGHT = 1e-6, 1e6  # sums and quotients of them stay numbers


def is_palette(reference: Any) -> bool:
    """Whether a reference is a palette: a non-empty list of strings that begin with "#", or a text of hex colors."""
    if isinstance(reference, str):
        return all(HEX_COLOR.match(entry) for entry in entries_of(reference))
    return (
        isinstance(reference, (list, tuple))
        and len(reference) > 0
        and all(isinstance(entry, str) and entry.startswith("#") for entry in reference)
    )


def entries_of(palette: str | Sequence[str]) -> list[str]:
    """The entries of a palette; one that is written as a text, as on the command line, has them between commas."""
    return [entry.strip() for entry in palette.split(",")] if isinstance(palette, str) else list(palette)


def read_palette(palette: str | Sequence[str]) -> tuple[list[list[float]], list[float]]:
    """`["#ff8800:3", "#224466"]` -> RGB in [0, 1] and weights of its colors.

    Raises:
        ValueError: for an entry that is not `#rrggbb` or `#rrggbb:weight` with a positive weight.
    """
    colors, weights = [], []
    for entry in entries_of(palette):
        match = HEX_COLOR.match(entry)
        weight = float(match.group(2) or 1.0) if match else 0.0
        if not LEAST_WEIGHT <= weight <= MOST_WEIGHT:
            raise ValueError(
                f'A palette entry must be "#rrggbb" or "#rrggbb:weight" with a positive weight, {LEAST_WEIGHT:g} to '
                f"{MOST_WEIGHT:g}, got {entry!r}."
            )
        colors.append([int(match.group(1)[i : i + 2], 16) / 255 for i in (0, 2, 4)])
        weights.append(weight)
    return colors, weights


def check_selection(select: Any) -> None:
    """Raise a ValueError unless this is one color to select by."""
    match = HEX_COLOR.match(select) if isinstance(select, str) else None
    if match is None or match.group(2) is not None:
        raise ValueError(
            f'A selection (`select`, `--select`) is the one color in the picture that is to become another, "#rrggbb" without '
            f"a weight, got {select!r}. `mg-diffusion palette PICTURE` prints the colors of a picture."
        )
