"""Another texture at a picture's own resolution: nothing is painted, a canvas goes over the picture's own light.

The picture is smoothed at about 384 x 384 pixels, its edges kept, and that is carried up by `LocalModel`: what is left is
its colors, its light and shade and its silhouettes, without its texture. The canvas goes over the lightness.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from .adapter.quilting import lay_tiles
from .encoder.references import sort_by_sample
from .encoder.texture import DETAIL_LIMIT, DETAIL_SIGMA, TILE, texture_view
from .encoder.views import DETAIL_UNIT, edge_preserving_smooth, gaussian_blur, lab_to_rgb, rgb_to_lab
from .recoloring import STRIP, LocalModel, small_lab, to_pixels, to_rgb
from .reference_pictures import is_card, read_scale


SIDE = 384  # of a square with the area of what is smoothed
PASSES = 3  # each smooths what the one before left
SMOOTHING = {"sigma": 1.5, "steps": 3}
COLOR_SIGMA, CONTRAST = 5.0, 20.0  # of a picture with this deviation of lightness; what varies less is smoothed less

TILES = 8  # across a canvas: what is smaller than one, such as a brick, stays whole
NUM_TILES = 96
WORKING_SIDE = 256  # of encoder's pictures, whose detail is what varies faster than `DETAIL_SIGMA` there


@torch.autocast("cpu", enabled=False)  # it would round colors
def texture_canvas(encoder: Any, texture: Any, size: tuple[int, int], scale: float = 1.0) -> torch.Tensor:
    """A canvas (1, 1, *size), lightness over 10, quilted from tiles of a texture as large as an eighth of it.

    Args:
        encoder: an `MGEncoder`; texture: a reference or a list of them, checked by `encode`; scale: of textures.
    """
    side = (size[0] * size[1]) ** 0.5
    tile = max(TILE, round(side / TILES))
    tiles = []
    for item in sort_by_sample("texture", texture, 1)[0]:
        fields = item if isinstance(item, dict) else {"image": item}
        if is_card(fields["image"]):  # holds small tiles, and no picture
            laid = encoder.encode({"texture": item}, (8, 8), layout_size=size, texture_scale=scale)["texture"][0]
            return lay_tiles(laid["layout_tiles"].float().cpu(), *size)
        own = side * read_scale("texture", fields, scale)
        loaded = encoder.load(fields, max(own, 1.5 * tile))
        lab, mask = rgb_to_lab(loaded["rgb"].float().cpu()), loaded["mask"].float().cpu()
        tiles.append(_tiles_of(lab, mask, own, tile))
    return lay_tiles(torch.cat(tiles, 1), *size)


def _tiles_of(lab: torch.Tensor, mask: torch.Tensor, side: float, tile: int) -> torch.Tensor:
    """Tiles (1, N, tile, tile) of the detail of a texture in random order, mostly calm ones: no border runs through them."""
    lightness = lab[:, :1]
    slow = gaussian_blur(lightness, DETAIL_SIGMA * max(1.0, side / WORKING_SIDE))
    detail = DETAIL_LIMIT * torch.tanh((lightness - slow) / DETAIL_LIMIT) / DETAIL_UNIT
    weight = texture_view(lab, edge_preserving_smooth(lab), mask)["weight"]
    stride = max(1, tile // 8)
    tile = min(tile, *detail.shape[2:])
    calm, inside = (F.avg_pool2d(one, tile, stride)[0, 0] for one in (weight, mask))
    uniform = torch.rand(calm.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32).clamp(
        1e-6, 1 - 1e-6
    )
    priority = 8 * torch.log(calm + 1e-4) - torch.log(-torch.log(uniform))  # as `draw_tiles`
    priority = priority.where(inside >= 0.95 * inside.max(), -torch.inf).flatten()
    best = priority.topk(min(NUM_TILES, int(priority.isfinite().sum()))).indices
    width = calm.shape[1]
    corners = [(stride * (int(place) // width), stride * (int(place) % width)) for place in best]
    return torch.stack([detail[0, 0, y : y + tile, x : x + tile] for y, x in corners])[None]


@torch.autocast("cpu", enabled=False)  # it would round colors
def retextured(
    image: np.ndarray,
    canvas: torch.Tensor,
    mask: np.ndarray | None = None,
    strength: float = 1.0,
    step: Callable[[float], None] = lambda share: None,
) -> np.ndarray:
    """The picture with the texture of a canvas, (H, W, 3) of as many bits.

    Args:
        image: (H, W, 3) of 8 or 16 bits, sides of at least 16 pixels.
        canvas: (1, 1, h, w), lightness over 10, in the aspect of the picture.
        mask: (H, W) of 8 bits, 255 where the picture is retextured; where it is 0 no pixel differs.
        strength: of the canvas; below 1 the picture keeps as much of its own texture, 0 is the picture.
        step: called with the share that is done, in [0, 1]; what it raises stops the work.
    """
    if strength == 0:
        return image.copy()
    small = small_lab(image, SIDE)
    smooth = small
    color_sigma = COLOR_SIGMA * float((small[:, 0].std() / CONTRAST).clamp(0.2, 1))
    for _ in range(PASSES):
        smooth = edge_preserving_smooth(smooth, color_sigma=color_sigma, **SMOOTHING)
    model = LocalModel(small / 100, smooth / 100)
    height, width = image.shape[:2]
    result = image.copy()
    for top in range(0, height, STRIP):
        rows = slice(top, top + STRIP)
        lab = rgb_to_lab(to_rgb(image[rows]))
        plain = torch.lerp(lab, 100 * model(lab / 100, top, height), min(1.0, strength))
        plain[:, :1] += DETAIL_UNIT * strength * _rows_of(canvas, top, lab.shape[2], height, width)
        made = lab_to_rgb(plain)
        if mask is not None:
            made = torch.lerp(to_rgb(image[rows]), made, to_rgb(mask[rows, :, None]))
        made = to_pixels(made, image.dtype)
        result[rows] = made if mask is None else np.where(mask[rows, :, None] > 0, made, image[rows])
        step(min(1.0, (top + STRIP) / height))
    return result


def _rows_of(canvas: torch.Tensor, top: int, count: int, height: int, width: int) -> torch.Tensor:
    """The canvas (1, 1, h, w) at the size of the picture, `count` rows of it from `top` on."""
    if canvas.shape[2:] == (height, width):
        return canvas[:, :, top : top + count]
    y = (torch.arange(top, top + count, dtype=torch.float32) + 0.5) / height * 2 - 1
    x = (torch.arange(width, dtype=torch.float32) + 0.5) / width * 2 - 1
    grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1)[None]
    return F.grid_sample(canvas, grid, mode="bicubic", padding_mode="border", align_corners=False)
