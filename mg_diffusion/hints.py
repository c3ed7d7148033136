"""Strokes painted over a picture: each says what color the thing under it is to have.

Strokes of about one color go together. What they select is connected with them and has about a color that lies under them;
where two of them claim a place, it goes to the one whose color is nearer. At about 256 x 256 pixels, carried up by
`LocalModel`, as a selected color is.
"""

from collections.abc import Callable

import numpy as np
import PIL.Image
import torch

from .connected import connected, flooded
from .encoder.views import edge_preserving_smooth, half_light, rgb_to_lab
from .recoloring import STRIP, LocalModel, recolored, small_lab, to_rgb


MOST_COLORS = 12  # of strokes
ALIKE = 12.0  # Delta-E in which strokes are of one color
LEAST_SHARE = 0.02  # of what is painted: what is less is the soft edge of a stroke
USUAL = 0.7  # share of the places under a stroke whose colors are those of what is meant
SAMPLES = 256  # places under strokes whose colors are compared with


@torch.autocast("cpu", enabled=False)  # it would round colors
def stroke_colors(painted: np.ndarray) -> list[tuple[torch.Tensor, np.ndarray]]:
    """The colors of strokes, Lab (3,), each with which of the painted pixels (N, 3) of 8 bits have it, (N,) bool.

    Raises:
        ValueError: for more than `MOST_COLORS`.
    """
    lab = rgb_to_lab(to_rgb(painted[:, None]))[0, :, :, 0].T
    bins = painted.astype(np.int64) // 16 @ np.array([256, 16, 1])
    left, found = np.ones(len(painted), bool), []
    while left.sum() > LEAST_SHARE * len(painted):
        values, counts = np.unique(bins[left], return_counts=True)
        color = lab[torch.from_numpy(left & (bins == values[counts.argmax()]))].median(0).values
        is_alike = ((lab - color).norm(dim=1) < ALIKE).numpy() & left
        if len(found) == MOST_COLORS:
            raise ValueError(
                f"The strokes of a hint have at most {MOST_COLORS} colors, these have more. Paint them in flat colors."
            )
        found.append((color, is_alike))
        left &= ~is_alike
    return found


@torch.autocast("cpu", enabled=False)  # it would round colors
def stroke_areas(image: np.ndarray, strokes: list[np.ndarray], tolerance: float) -> list[np.ndarray]:
    """What strokes select of a picture (H, W, 3): for each (H, W) bool a mask (H, W) of 8 bits, with soft edges.

    Args:
        tolerance: Delta-E to a color under the stroke, as of `select_color`.
    """
    small = small_lab(image)
    smooth = half_light(edge_preserving_smooth(small))
    distances, reached = zip(*(_reached(smooth, _cells(stroke, small), tolerance) for stroke in strokes), strict=True)
    distances = torch.stack(distances).where(torch.stack(reached), torch.inf)
    shares = (3 - 2 * distances / tolerance).clamp(0, 1) * (distances == distances.amin(0))
    model = LocalModel(small / 100, shares[None])
    masks = [np.zeros(image.shape[:2], np.uint8) for _ in strokes]
    for top in range(0, len(image), STRIP):
        found = model(rgb_to_lab(to_rgb(image[top : top + STRIP])) / 100, top, len(image))[0]
        found = (255 * found.where(found > 0.05, 0).clamp(0, 1)).round().numpy()  # what is left of blur
        for mask, rows in zip(masks, found, strict=True):
            mask[top : top + STRIP] = rows
    return masks


def recolored_by_strokes(
    image: np.ndarray,
    colors: list[torch.Tensor],
    areas: list[np.ndarray],
    strength: float = 1.0,
    step: Callable[[float], None] = lambda share: None,
) -> np.ndarray:
    """The picture (H, W, 3) with the shades of each color, Lab (3,), in its area (H, W) of 8 bits."""
    for number, (color, area) in enumerate(zip(colors, areas, strict=True)):
        if area.any():

            def part(share: float, before: int = number) -> None:
                step((before + share) / len(colors))

            image = recolored(image, color.view(1, 1, 3), area, None, strength, part)
    return image


def _cells(stroke: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    """The cells (h, w) of a small picture that a stroke (H, W) covers most, however thin it is."""
    shrunk = PIL.Image.fromarray(stroke.astype(np.float32)).resize(like.shape[:1:-1], PIL.Image.Resampling.BOX)
    covered = torch.from_numpy(np.array(shrunk))
    return covered > 0.5 * covered.max()


def _reached(smooth: torch.Tensor, cells: torch.Tensor, tolerance: float) -> tuple[torch.Tensor, torch.Tensor]:
    """How far each cell (h, w) is from the colors under strokes, and whether such colors connect it with one of them."""
    nearest, reached = torch.full(cells.shape, torch.inf, dtype=torch.float32), torch.zeros_like(cells)
    left = cells.clone()
    while left.any():
        first = torch.zeros_like(cells)
        first.view(-1)[left.view(-1).nonzero()[0]] = True
        stroke = flooded(first, left)
        left &= ~stroke
        colors = smooth[0, :, stroke].T
        apart = (colors - colors.median(0).values).norm(dim=1)
        colors = colors[apart <= apart.quantile(USUAL)]  # a stroke may slip
        colors = colors[:: 1 + len(colors) // SAMPLES]
        distance = torch.cdist(smooth[0].flatten(1).T, colors).amin(1).view_as(cells)
        is_near = distance < tolerance
        found, around = connected(smooth, stroke, is_near)
        reached |= found
        nearest = torch.minimum(nearest, distance.where(around, torch.inf))
    return nearest, reached
