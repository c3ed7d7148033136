"""Edits that paint nothing: a picture goes on, in a hole of it or around it, with patches of itself.

Both take a `callback`, called with the share that is done, in [0, 1]; what it raises stops the work.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ..arrays import whole_number
from ..sizes import check_pixels
from .inputs import Picture, Pictures, check_side, named, seeds_of
from .masks import POLARITY
from .progress import progress
from .sources import Source, opened


Callback = Callable[[float], None] | None


@named
def remove(
    pipe: Any,
    image: Picture,
    mask_image: Any = None,
    *,
    padding_mask_crop: int | None = None,
    num_images_per_prompt: int = 1,
    generator: Any = None,
    callback: Callback = None,
) -> Pictures:
    """What is in the mask goes, its surroundings go on there: patches of the picture itself, at its own resolution.

    Args:
        pipe: any pipeline; it lends its progress bar.
        mask_image: white is removed. If not given, what is transparent is filled, half transparent or wholly, and the
            result is opaque.
        padding_mask_crop: pixels around the mask that lend; as many as the mask is large if not given, at least 64.

    Raises:
        ValueError: for anything out of range, or where too little is left to lend; without a mask, for a picture in
            which nothing is transparent.
    """
    image = opened(image)
    hole, alpha, margin = hole_of(image, mask_image, padding_mask_crop)
    return _filled(pipe, image, hole, alpha, margin, num_images_per_prompt, generator, callback)


def hole_of(
    image: Source, mask: Any, padding_mask_crop: int | None = None
) -> tuple[np.ndarray, np.ndarray | None, int | None]:
    """Where to fill, (H, W) bool, the alpha that the result has, and the pixels around that lend, if they are given.

    Raises:
        ValueError: for what `remove` refuses whatever the pipeline is.
    """
    check_side(image, "remove")
    margin = None if padding_mask_crop is None else check_pixels(padding_mask_crop, "padding_mask_crop")
    if mask is not None:
        return image.area(mask) > 0, image.alpha, margin
    if image.alpha is None or image.alpha.min() == image.most:
        what = "the picture has no alpha" if image.alpha is None else "nothing in the picture is transparent"
        raise ValueError(
            f"`remove` needs a mask: {what}, so there is no saying what is to go. Pass `mask_image` (`--mask`). {POLARITY}"
        )
    return image.alpha < image.most, np.full_like(image.alpha, image.most), margin


@named
def outpaint(
    pipe: Any,
    image: Picture,
    left: int = 0,
    top: int = 0,
    right: int = 0,
    bottom: int = 0,
    *,
    num_images_per_prompt: int = 1,
    generator: Any = None,
    callback: Callback = None,
) -> Pictures:
    """A larger picture, of which the picture is an unchanged part; what it shows at its edges goes on, as in `remove`.

    An alpha goes on as it is at the edge: what is cut out stays so, what the frame cuts through goes on.

    Args:
        pipe: any pipeline; it lends its progress bar.
        left, top, right, bottom: pixels to add.

    Raises:
        ValueError: if nothing is to be added, or less than nothing, or more than the picture is large.
    """
    image = opened(image)
    left, top, right, bottom = added = check_added(image, left, top, right, bottom)
    width, height = image.size
    larger = image.expanded(*added)
    hole = np.ones(larger.own.shape[:2], bool)
    hole[top : top + height, left : left + width] = False
    whole = max(larger.size)  # all that there is may go on
    return _filled(pipe, larger, hole, larger.alpha, whole, num_images_per_prompt, generator, callback, around=True)


def check_added(image: Source, left: int, top: int, right: int, bottom: int) -> tuple[int, int, int, int]:
    """The pixels to add, as plain numbers, or a ValueError unless so many can be added to a picture."""
    check_side(image, "outpaint")
    given = (left, top, right, bottom)
    added = tuple(map(whole_number, given))
    if any(side is None or side < 0 for side in added) or not any(added):
        raise ValueError(f"`outpaint` adds whole pixels, at least 1 on some side; got {given}.")
    left, top, right, bottom = added
    axes = (
        ("left", left, "right", right, "wide", image.size[0]),
        ("top", top, "bottom", bottom, "high", image.size[1]),
    )
    for one, first, other, second, extent, most in axes:
        if first + second > most:
            raise ValueError(
                f"`outpaint` adds at most as much as there is: the picture is {most} pixels {extent}, and {one} and {other} "
                f"together add {first} + {second} = {first + second}. Add less, then go on from the result."
            )
    return added


def _filled(
    pipe: Any,
    image: Source,
    hole: np.ndarray,
    alpha: np.ndarray | None,
    margin: int | None,
    count: int,
    generator: Any,
    callback: Callback,
    around: bool = False,
) -> Pictures:
    """The picture with a hole (H, W) filled by what can be seen of it, with this alpha (H, W)."""
    from ..filling import fill  # with it comes torch

    seeds, hidden = seeds_of(count, generator), None if image.visible is None else ~image.visible
    image, area = replace(image, alpha=alpha), 255 * hole.astype(np.uint8)
    with progress(pipe, len(seeds), callback) as step:
        return [image.finish(fill(image.pixels, hole, margin, seed, step, hidden, around), area) for seed in seeds]
