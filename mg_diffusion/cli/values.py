"""Types of flags, for argparse: numbers, windows, and what is said of one granularity."""

import argparse
import math
from typing import Any

from ..granularities import GRANULARITIES, MOST_STRENGTH
from ..mg_bench.flags import whole


MOST_SEED = 2**64 - 1  # of torch


def number(text: str) -> float:
    """A finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be a number, got {text!r}")
    return value


def scale(text: str) -> float:
    """A number of at least 0, as far as any scale goes."""
    value = number(text)
    if not 0 <= value <= MOST_STRENGTH:
        raise argparse.ArgumentTypeError(f"must be from 0 to {MOST_STRENGTH:g}, got {text!r}")
    return value


seed = whole(0, MOST_SEED)


def check_seeds(first: int, count: int) -> None:
    """Raise a ValueError where seeds that count up from `first` do not end in time."""
    if first + count - 1 > MOST_SEED:
        raise ValueError(
            f"Seeds count up from --seed, and the last of {count} would be above {MOST_SEED}. Give --seed {MOST_SEED - count + 1} "
            f"or less."
        )


def filled(text: str) -> str:
    """What is not empty, as files and names are."""
    if not text.strip():
        raise argparse.ArgumentTypeError(
            "is empty: a variable of the shell without a value? Give one, or leave it out"
        )
    return text


def composed_share(text: str) -> float | str:
    """A number in [0, 1], or auto."""
    if text == "auto":
        return text
    share = number(text)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"must be from 0 (off) to 1 (one step is left), or auto, got {text!r}")
    return share


def size(text: str) -> tuple[int, int] | int:
    """(width, height) in pixels, of 768x512; or, of one number, the side of a square of that area."""
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise argparse.ArgumentTypeError(f"must be WIDTHxHEIGHT in pixels, such as 768x512, or one side, got {text!r}")
    return int(sides[0]) if len(sides) == 1 else (int(sides[0]), int(sides[1]))


def window(text: str) -> tuple[float, float]:
    """START:END."""
    start, colon, end = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"must be START:END in fractions of the run, got {text!r}")
    found = number(start), number(end)
    if not 0 <= found[0] < found[1] <= 1:
        raise argparse.ArgumentTypeError(
            f"must be START:END in fractions of the run, 0 <= START < END <= 1, such as 0:0.5, got {text!r}"
        )
    return found


def _named(text: str, wanted: str) -> tuple[str, str]:
    """The granularity of NAME=VALUE, and what stands for its value."""
    name, equals, value = text.partition("=")
    if name not in GRANULARITIES or not equals:
        raise argparse.ArgumentTypeError(f"must be color=, texture= or shape= and {wanted}, got {text!r}")
    return name, value


def strength_of_one(text: str) -> tuple[str, float]:
    """color=1.0."""
    name, value = _named(text, "a number")
    strength = number(value)
    if not 0 <= strength <= MOST_STRENGTH:
        raise argparse.ArgumentTypeError(
            f"must be at least 0 (0 is off, 1 is as trained), at most {MOST_STRENGTH:g}; got {text!r}"
        )
    return name, strength


def schedule_of_one(text: str) -> tuple[str, tuple[float, float] | list[float]]:
    """texture=0:0.6, a window, or texture=1,0.5,0, a curve."""
    name, curve = _named(text, "START:END or factors between commas")
    if ":" in curve:
        return name, window(curve)
    return name, [scale(factor) for factor in curve.split(",")]


class OneForEach(argparse.Action):
    """A list of (granularity, value), each granularity once."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: str | None = None):
        given = getattr(namespace, self.dest)
        if values[0] in dict(given):
            raise argparse.ArgumentError(self, f"{values[0]} is given twice. It has one strength; leave one out.")
        setattr(namespace, self.dest, [*given, values])
