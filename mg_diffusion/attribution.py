"""Attribution drawn over the picture: where and when each granularity moved the prediction."""

import numpy as np
import PIL.Image
import PIL.ImageDraw
import torch
import torch.nn.functional as F


HEIGHT = 48  # of the curves, in pixels
HEAT = np.array([255, 64, 0], np.float32)


def draw_attribution(
    image: PIL.Image.Image, attribution: dict[str, dict[str, torch.Tensor]], index: int = 0
) -> PIL.Image.Image:
    """For each granularity, side by side: the picture in gray with its map in orange, and its curve over the steps.

    All maps share one scale, and all curves another, so that granularities can be compared.

    Args:
        image: one picture of a call with `return_attribution=True`; attribution: what it returned.
        index: which picture of the batch it is.

    Raises:
        ValueError: if there is no attribution, or not for that many pictures.
    """
    shown = draw_overlays(image, attribution, index)
    highest = max(float(parts["curve"][index].max()) for parts in attribution.values()) or 1.0
    drawn = PIL.Image.new("RGB", (len(attribution) * image.width, image.height + HEIGHT), "white")
    for place, (name, over) in enumerate(shown.items()):
        drawn.paste(over, (place * image.width, 0))
        curve = (attribution[name]["curve"][index] / highest).tolist()
        _draw_curve(drawn, curve, place * image.width, image.size, name)
    return drawn


def draw_overlays(
    image: PIL.Image.Image, attribution: dict[str, dict[str, torch.Tensor]], index: int = 0
) -> dict[str, PIL.Image.Image]:
    """By granularity: the picture in gray with its map in orange, at the picture's own size. As `draw_attribution`."""
    gray = np.asarray(image.convert("L").convert("RGB")).astype(np.float32)
    drawn = {}
    for name, share in _shares(attribution, image.size, index).items():
        over = (gray * (1 - share[..., None]) * 0.8 + HEAT * share[..., None]).clip(0, 255)
        drawn[name] = PIL.Image.fromarray(over.astype(np.uint8))
    return drawn


def draw_maps(
    attribution: dict[str, dict[str, torch.Tensor]], size: tuple[int, int], index: int = 0
) -> dict[str, PIL.Image.Image]:
    """By granularity: its map alone, of `size` (width, height), gray of 8 bits; white is the most that any of them moved.

    Maps are computed at the size of the latents, and brought to any other by bilinear interpolation. As `draw_attribution`.
    """
    shares = _shares(attribution, size, index)
    return {name: PIL.Image.fromarray((255 * share).round().astype(np.uint8)) for name, share in shares.items()}


def _shares(
    attribution: dict[str, dict[str, torch.Tensor]], size: tuple[int, int], index: int
) -> dict[str, np.ndarray]:
    """Maps (height, width) in [0, 1] on one scale, of `size` (width, height)."""
    if not attribution:
        raise ValueError("There is no attribution to draw: nothing steered this call, or it did not ask for any.")
    count = len(next(iter(attribution.values()))["map"])
    if not 0 <= index < count:
        raise ValueError(f"The attribution is of {count} pictures, so `index` is 0 to {count - 1}; got {index}.")
    largest = max(float(parts["map"][index].max()) for parts in attribution.values()) or 1.0
    return {
        name: (_laid(parts["map"][index], parts.get("region"), size) / largest).numpy()
        for name, parts in attribution.items()
    }


def _laid(one: torch.Tensor, region: torch.Tensor | None, size: tuple[int, int]) -> torch.Tensor:
    """A map (h, w) over a picture of `size`, or over the region of it that was computed: nothing moved elsewhere."""
    width, height = size
    left, top, right, bottom = (0, 0, 1, 1) if region is None else region.tolist()
    rows, columns = _pixels(top, bottom, height), _pixels(left, right, width)
    laid = torch.zeros(height, width, dtype=torch.float32)
    computed = laid[rows, columns].shape
    laid[rows, columns] = F.interpolate(one[None, None], size=computed, mode="bilinear")[0, 0]
    return laid


def _pixels(start: float, end: float, side: int) -> slice:
    """From fractions of a side to its pixels, at least one."""
    first = min(round(start * side), side - 1)
    return slice(first, max(round(end * side), first + 1))


def _draw_curve(drawn: PIL.Image.Image, curve: list[float], left: int, size: tuple[int, int], name: str) -> None:
    draw, (width, height) = PIL.ImageDraw.Draw(drawn), size
    bottom, top = height + HEIGHT - 4, height + 14
    steps = max(len(curve) - 1, 1)
    points = [(left + 3 + (width - 7) * i / steps, bottom - (bottom - top) * value) for i, value in enumerate(curve)]
    draw.line([(left + 3, bottom), (left + width - 4, bottom)], fill="#bbbbbb")
    draw.line(points if len(points) > 1 else points * 2, fill="#ff4000", width=2)
    draw.text((left + 3, height + 1), name, fill="#333333")
