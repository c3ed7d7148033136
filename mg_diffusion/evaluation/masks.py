"""Where to repaint: reproducible random masks, and a hole of known place. Masks are (H, W) bool, True is repainted."""

from collections.abc import Callable

import numpy as np
from scipy.ndimage import distance_transform_edt
from skimage.draw import line

from .intervals import stream
from .metrics import MIN_SIDE, Pictures


AREA = (0.1, 0.4)  # of a random mask, as a share of the picture
HOLE = 5 / 8  # side of a hole for references, as a share of the shorter side: 39 % of a square


def random_masks(n: int, size: tuple[int, int], seed: int) -> list[np.ndarray]:
    """`n` reproducible masks (height, width) of 10 to 40 % of the area: rectangles and free-form strokes in turn."""
    if min(size) < MIN_SIDE:
        raise ValueError(f"expected sides of at least {MIN_SIDE} pixels, got {tuple(size)}.")
    rng = stream(seed, "masks")
    return [_within_area((_strokes if index % 2 else _rectangle), size, rng) for index in range(n)]


def centered_hole(size: tuple[int, int]) -> tuple[tuple[slice, slice], np.ndarray]:
    """A centered square hole in a picture (height, width): its box, and its mask (height, width).

    Raises:
        ValueError: if the hole would be smaller than the pictures that the metrics take.
    """
    side = round(HOLE * min(size))
    if side < MIN_SIDE:
        raise ValueError(
            f"a hole of {side} pixels in pictures of {tuple(size)} is too small to judge: pictures need sides of at "
            f"least {round(MIN_SIDE / HOLE)} pixels."
        )
    box = tuple(slice((length - side) // 2, (length + side) // 2) for length in size)
    mask = np.zeros(size, bool)
    mask[box] = True
    return box, mask


def check_masks(images: Pictures, masks: Pictures) -> None:
    """Raise a ValueError unless there is a mask of booleans for each picture, of its size, neither empty nor full."""
    if len(images) != len(masks) or not len(images):
        raise ValueError(
            f"expected one mask per picture, and at least one: got {len(images)} pictures and {len(masks)} masks."
        )
    for image, mask in zip(images, masks, strict=True):
        mask = np.asarray(mask)
        if mask.dtype != bool or mask.shape != np.shape(image)[:2]:
            raise ValueError(
                f"expected a mask of booleans of the size of its picture, {np.shape(image)[:2]}: got {mask.dtype} of "
                f"shape {mask.shape}. Threshold it, and resize it without interpolation."
            )
        if mask.all() or not mask.any():
            raise ValueError(
                f"expected a mask with pixels to repaint and pixels to keep, got one that is all {bool(mask.all())}: "
                "draw some with `random_masks`."
            )


def _within_area(
    draw: Callable[[tuple[int, int], np.random.Generator], np.ndarray], size: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    while True:
        mask = draw(size, rng)
        if AREA[0] <= mask.mean() <= AREA[1]:
            return mask


def _rectangle(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    scale, stretch = np.sqrt(rng.uniform(*AREA)), np.exp2(rng.uniform(-0.5, 0.5))  # one side up to twice the other
    sides = [round(size[0] * scale * stretch), round(size[1] * scale / stretch)]
    corner = [rng.integers(length - side + 1) for length, side in zip(size, sides, strict=True)]
    mask = np.zeros(size, bool)
    mask[tuple(slice(start, start + side) for start, side in zip(corner, sides, strict=True))] = True
    return mask


def _strokes(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """The pixels nearest to one to three random polylines."""
    path = np.zeros(size, bool)
    last = np.array(size) - 1
    for _ in range(rng.integers(1, 4)):
        points = [rng.uniform(0, last)]
        for _ in range(rng.integers(2, 5)):
            angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 0.5) * min(size)
            points.append(np.clip(points[-1] + length * np.array([np.sin(angle), np.cos(angle)]), 0, last))
        for start, end in zip(points, points[1:], strict=False):
            path[line(*start.astype(int), *end.astype(int))] = True
    distance = distance_transform_edt(~path)
    return distance <= np.quantile(distance, rng.uniform(*AREA))
