"""Masks that nobody paints: what is connected with a place, what has a color, and what is a little larger."""

from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageFilter
import PIL.ImageOps

from demo.settings import number
from demo.uploads import read_palette
from mg_diffusion.recoloring import select_color


SHOWN = 400  # pixels on a side of the picture that is clicked on
READ = 1024  # of what is searched
MAX_TOLERANCE = 60.0  # Delta-E
GROWTH = 2  # percent of the longer side


def region_at(photo: PIL.Image.Image, place: Any, tolerance: Any) -> PIL.Image.Image:
    """What is connected with a place and of about its color, 0 and 255, of the photo's size.

    Args:
        place: (x, y) in pixels of the photo as it is shown, at most `SHOWN` on a side; tolerance: Delta-E to the place.

    Raises:
        ValueError: for a place outside, or a tolerance out of range.
    """
    from skimage.color import rgb2lab
    from skimage.segmentation import flood

    tolerance, shown = _tolerance(tolerance), PIL.ImageOps.contain(photo, (SHOWN, SHOWN)).size
    is_place = isinstance(place, (list, tuple)) and len(place) == 2 and all(type(one) in (int, float) for one in place)
    if not is_place or not all(0 <= one < side for one, side in zip(place, shown, strict=True)):
        raise ValueError(f"There is nothing at this place: the picture is shown with {shown[0]} x {shown[1]} pixels.")
    small = photo.copy()
    small.thumbnail((READ, READ))
    x, y = (
        min(side - 1, int((one + 0.5) * side / of)) for one, side, of in zip(place, small.size, shown, strict=True)
    )
    lab = rgb2lab(np.asarray(small))
    around = lab[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].reshape(-1, 3)
    distance = np.linalg.norm(lab - np.median(around, 0), axis=2)  # one pixel may be a grain
    distance[y, x] = 0
    return _of_size(flood(distance, (y, x), tolerance=tolerance), photo.size)


def region_of(photo: PIL.Image.Image, color: Any, tolerance: Any) -> PIL.Image.Image:
    """What has about a color, "#rrggbb", wherever it is, 0 and 255, of the photo's size.

    Raises:
        ValueError: for another color, a tolerance out of range, or a color that is nowhere.
    """
    wanted = read_palette(color)
    if len(wanted) != 1:
        raise ValueError("Select one color, such as #ff8800.")
    return _of_size(
        select_color(np.asarray(photo), wanted[0].partition(":")[0], _tolerance(tolerance)) > 127, photo.size
    )


def grown(mask: PIL.Image.Image) -> PIL.Image.Image:
    """A mask of 0 and 255 that reaches further by `GROWTH` percent of its longer side, at least a pixel."""
    width = max(1, round(GROWTH / 100 * max(mask.size)))
    for _ in range(-(-width // 8)):  # filters of a small size, one after another: their time grows with their area
        mask = mask.filter(PIL.ImageFilter.MaxFilter(2 * min(8, width) + 1))
        width -= 8
    return mask


def _tolerance(value: Any) -> float:
    return number(value, "The tolerance", 1, MAX_TOLERANCE)


def _of_size(where: np.ndarray, size: tuple[int, int]) -> PIL.Image.Image:
    mask = PIL.Image.fromarray(255 * where.astype(np.uint8))
    return mask.resize(size, PIL.Image.Resampling.BILINEAR).point(lambda value: 255 * (value > 127))
