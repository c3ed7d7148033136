"""Recoloring by strokes that are painted over the picture."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from ..unread_form import UnreadForm
from .masks import POLARITY
from .progress import progress
from .sources import Edited, Source, opened


MOST_PAINTED = 0.6  # of a picture: more is another picture, or one that was saved with losses


def recolored_by_hint(
    pipe: Any,
    image: Source,
    hint: Any,
    area: np.ndarray | None,
    tolerance: float,
    strength: float,
    callback: Callable[[float], None] | None,
) -> Edited:
    """What `recolor` makes of a hint, where `area` (H, W) lets it.

    Raises:
        ValueError: for a hint of another size, one without strokes, or one whose strokes select nothing in the area.
    """
    from ..hints import recolored_by_strokes, stroke_areas, stroke_colors  # with it comes torch

    pixels, painted = read_strokes(image, hint)
    colors, owners = zip(*stroke_colors(pixels[painted]), strict=True)
    strokes = [np.zeros(painted.shape, bool) for _ in colors]
    for stroke, owned in zip(strokes, owners, strict=True):
        stroke[painted] = owned
    areas = stroke_areas(image.pixels, strokes, tolerance)
    if area is not None:
        areas = [np.minimum(one, area) for one in areas]
    whole = np.max(areas, 0)
    if not whole.any():
        raise ValueError(
            f"The strokes of the hint select nothing in the mask. Paint inside it, enlarge it, or leave it out. {POLARITY}"
        )
    with progress(pipe, 1, callback) as step:
        made = recolored_by_strokes(image.pixels, list(colors), areas, strength, step)
    return image.finish(made, whole, is_colored=True)


def read_strokes(image: Source, hint: Any) -> tuple[np.ndarray, np.ndarray]:
    """The pixels (H, W, 3) of a hint, of 8 bits, and where it is painted, (H, W) bool; or a ValueError for what is no hint."""
    remedy = "Paint strokes on a transparent layer, or over the picture itself, and save them without losses (PNG)."
    try:
        given = opened(hint, "recolor", is_filled=False)  # what is transparent is not painted
    except UnreadForm as error:
        raise error.about(repr(os.fspath(hint)) if isinstance(hint, (str, os.PathLike)) else "`hint`") from error
    except ValueError as error:
        raise ValueError(f"The `hint` cannot be read. {error} {remedy}") from error
    if given.size != image.size:
        raise ValueError(f"The hint must have the size of the picture, {image.size}, got {given.size}. {remedy}")
    pixels, before = given.in_8_bits, image.in_8_bits
    painted = (pixels != before).any(2)
    if given.alpha is not None:
        painted &= given.alpha > given.most // 2
    if not painted.any():
        raise ValueError(f"Nothing is painted in the hint: it is transparent, or the picture itself. {remedy}")
    if given.visible is None and painted.mean() > MOST_PAINTED:
        raise ValueError(
            f"The hint differs from the picture in {painted.mean():.0%} of its pixels, so there is no telling strokes from "
            f"it. {remedy}"
        )
    return pixels, painted
