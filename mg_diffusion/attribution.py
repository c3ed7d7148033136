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
    if not attribution:
        raise ValueError("There is no attribution to draw: nothing steered this call, or it did not ask for any.")
    count = len(next(iter(attribution.values()))["map"])
    if not 0 <= index < count:
        raise ValueError(f"The attribution is of {count} pictures, so `index` is 0 to {count - 1}; got {index}.")
    largest = max(float(parts["map"][index].max()) for parts in attribution.values()) or 1.0
    highest = max(float(parts["curve"][index].max()) for parts in attribution.values()) or 1.0
    gray = np.asarray(image.convert("L").convert("RGB")).astype(np.float32)
    drawn = PIL.Image.new("RGB", (len(attribution) * image.width, image.height + HEIGHT), "white")
    for place, (name, parts) in enumerate(attribution.items()):
        heat = F.interpolate(parts["map"][index][None, None], size=gray.shape[:2], mode="bilinear")[0, 0]
        share = (heat / largest).numpy()[..., None]
        over = (gray * (1 - share) * 0.8 + HEAT * share).clip(0, 255).astype(np.uint8)
        corner = (place * image.width, 0)
        drawn.paste(PIL.Image.fromarray(over), corner)
        _draw_curve(drawn, (parts["curve"][index] / highest).tolist(), corner[0], image.size, name)
    return drawn


def _draw_curve(drawn: PIL.Image.Image, curve: list[float], left: int, size: tuple[int, int], name: str) -> None:
    draw, (width, height) = PIL.ImageDraw.Draw(drawn), size
    bottom, top = height + HEIGHT - 4, height + 14
    steps = max(len(curve) - 1, 1)
    points = [(left + 3 + (width - 7) * i / steps, bottom - (bottom - top) * value) for i, value in enumerate(curve)]
    draw.line([(left + 3, bottom), (left + width - 4, bottom)], fill="#bbbbbb")
    draw.line(points if len(points) > 1 else points * 2, fill="#ff4000", width=2)
    draw.text((left + 3, height + 1), name, fill="#333333")
