"""How noisy a picture is, and whether it has blocks of JPEG, told from the picture alone."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


MOST_NOISE = 60.0  # deviation, of 255
WINDOW = 5  # side in pixels
FEWEST_WINDOWS = 500  # that say anything about its 75 directions
MOST_WINDOWS = 40_000  # that are read of a large picture
BLOCK = 8  # pixels
VISIBLE_STEP = 0.3  # of 255: of 13 photographs JPEG of quality 60 has .6 to 1.5, of 80 .25 to 1.1, what never was JPEG .15 at most
FEWEST_STEPS = 1000  # at each place of the grid
MOST_STEP = 8.0  # of 255; what is more is an edge of the picture
MOST_LINES = 512  # that are read of a large picture
WHITE, LEAST = 0.5, 1.0  # of the deviation by details, and of 255: above both noise is white


def estimate_noise(image: np.ndarray, visible: np.ndarray | None = None) -> float:
    """Deviation of the noise of a picture (H, W, 3) of 8 or 16 bits, of 255, at most `MOST_NOISE`.

    White noise: what windows deviate by in those directions that hold nothing but noise. Where this is far less than what
    the finest diagonal details say, the noise was compressed or smoothed and has left these directions, and details stand.

    Args:
        visible: (H, W) bool, where the picture is one; everywhere if not given.
    """
    unit = 255 / np.iinfo(image.dtype).max
    visible = np.ones(image.shape[:2], bool) if visible is None else visible
    by_details, by_windows = _of_details(image, visible) * unit, _of_windows(image, visible) * unit
    return min(MOST_NOISE, by_windows if by_windows > max(LEAST, WHITE * by_details) else by_details)


def _of_details(image: np.ndarray, visible: np.ndarray) -> float:
    """The median of the finest diagonal details (Donoho and Johnstone, "Ideal spatial adaptation by wavelet shrinkage",
    Biometrika 1994)."""
    height, width = (side // 2 * 2 for side in image.shape[:2])
    pixels = image[:height, :width].astype(np.float32)
    diagonal = (pixels[::2, ::2] - pixels[1::2, ::2] - pixels[::2, 1::2] + pixels[1::2, 1::2]) / 2
    diagonal = diagonal[visible[:height, :width].reshape(height // 2, 2, width // 2, 2).all((1, 3))]
    return float(np.median(np.abs(diagonal), 0).mean()) / 0.6745 if len(diagonal) else 0.0


def _of_windows(image: np.ndarray, visible: np.ndarray) -> float:
    """The smallest variances of windows that are alike (Chen et al., "An efficient statistical method for image noise level
    estimation", ICCV 2015): as many as have a mean no larger than their median."""
    if min(image.shape[:2]) < WINDOW:
        return 0.0
    stride = max(1, round((image.shape[0] * image.shape[1] / MOST_WINDOWS) ** 0.5))
    size = {"window_shape": (WINDOW, WINDOW), "axis": (0, 1)}
    windows = sliding_window_view(image, **size)[::stride, ::stride]
    windows = windows[sliding_window_view(visible, **size)[::stride, ::stride].all((2, 3))]
    if len(windows) < FEWEST_WINDOWS:
        return 0.0
    variances = np.linalg.eigvalsh(np.cov(windows.reshape(len(windows), -1).T)).clip(0)
    for count in range(len(variances), 1, -1):
        smallest = variances[:count]  # in rising order
        if smallest.mean() <= np.median(smallest):
            return float(smallest.mean() ** 0.5)
    return float(variances[0] ** 0.5)


def has_blocks(image: np.ndarray, visible: np.ndarray | None = None) -> bool:
    """Whether the blocks of JPEG show in a picture (H, W, 3) of 8 or 16 bits, wherever their grid lies.

    Neighbors differ more where blocks meet than anywhere else (Wang et al., "No-reference perceptual quality assessment of
    JPEG compressed images", ICIP 2002). Compressed well they do not show, and shrunk they are gone. Small pictures have too
    few of them to tell.

    Args:
        visible: (H, W) bool, where the picture is one; everywhere if not given.
    """
    visible = np.ones(image.shape[:2], bool) if visible is None else visible
    unit = 255 / np.iinfo(image.dtype).max
    return min(_step(image, visible, unit), _step(image.swapaxes(0, 1), visible.T, unit)) > VISIBLE_STEP


def _step(image: np.ndarray, visible: np.ndarray, unit: float) -> float:
    """How much more two columns differ where blocks meet than at any other place of their grid; 0 where that cannot be told."""
    stride = -(-image.shape[0] // MOST_LINES)
    lines, seen = image[::stride].mean(2, dtype=np.float32) * unit, visible[::stride]
    differences = np.abs(np.diff(lines, axis=1))
    beside = (differences[:, :-2] + differences[:, 2:]) / 2
    width = beside.shape[1] // BLOCK * BLOCK
    counts = seen[:, :-3] & seen[:, 1:-2] & seen[:, 2:-1] & seen[:, 3:]
    steps = (differences[:, 1:-1] - beside).clip(-MOST_STEP, MOST_STEP)
    # By the place in the grid: how much two columns differ, how much more than those beside them, and in how many pixels.
    parts = (
        (x[:, :width] * counts[:, :width]).reshape(-1, BLOCK).sum(0) for x in (differences[:, 1:-1], steps, counts)
    )
    apart, total, count = parts
    if count.min() < FEWEST_STEPS:
        return 0.0
    means = total / count
    place = means.argmax()
    if not np.delete(apart, place).any():  # flat everywhere else: pixels that were enlarged
        return 0.0
    return float(means[place] - np.delete(means, place).max())
