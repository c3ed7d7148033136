"""How far a picture is from references: the distances that feature guidance follows, without diffusers and without weights.

`MGEncoder.guidance_targets` and `feature_distances` compare views, which are fixed functions of pixels; no CNN is asked. Here
they are put together from the same functions, since `MGEncoder` itself is a model of diffusers. tests/comfyui compares both.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F

from mg_diffusion.encoder.color import ColorBranch, color_view, draw_palette, palette_view
from mg_diffusion.encoder.references import average, is_palette, parse_palette, read_reference, read_weight
from mg_diffusion.encoder.shape import ShapeBranch
from mg_diffusion.encoder.structure import structure_map
from mg_diffusion.encoder.texture import TILE, TextureBranch, draw_tiles, texture_view
from mg_diffusion.encoder.views import edge_preserving_smooth, rgb_to_lab
from mg_diffusion.granularities import GRANULARITIES

from .references import References


SIDE, TILES = 64, 64  # `sample_size` and `num_tiles` of the encoder that comes with the package
BRANCHES = {"color": ColorBranch, "texture": TextureBranch, "shape": ShapeBranch}


def working_size(height: int, width: int) -> tuple[int, int]:
    """As `MGEncoder` reads pictures: of the area of SIDE squared, multiples of 8, at least one tile."""
    scale = SIDE / math.sqrt(height * width)
    sides = [max(8 * round(side * scale / 8), 8 * -(-TILE // 8)) for side in (height, width)]
    return sides[0], sides[1]


def read_view(name: str, reference: dict[str, Any]) -> dict[str, torch.Tensor]:
    """What a granularity compares of a reference: a palette, tiles, or a structure map.

    Raises:
        ValueError: for a reference that has a region, or cannot be read.
    """
    if reference.get("region") is not None:
        raise ValueError(f"Feature guidance compares whole pictures; the {name} reference has a region. Leave it out.")
    if is_palette(reference["image"]):
        return {"palette": draw_palette(**palette_view(*parse_palette(reference["image"])))}
    rgb, mask, _ = read_reference(reference)
    size = working_size(*rgb.shape[2:])
    if size != rgb.shape[2:]:
        rgb = F.interpolate(rgb, size=size, mode="bicubic", antialias=True).clamp(0, 1)
        mask = F.interpolate(mask, size=size, mode="area")
    if mask[:, :, ::2, ::2].sum() < 1:
        raise ValueError("A reference's mask selects too little to read. Crop the picture around it, or select more.")
    lab = rgb_to_lab(rgb)
    smooth = edge_preserving_smooth(lab)
    if name == "color":
        return {"palette": draw_palette(**color_view(smooth, mask))}
    if name == "texture":
        view = texture_view(lab, smooth, mask)
        return {"tiles": draw_tiles(view["detail"] * mask, view["weight"], TILES, mask=mask)}
    return {"structure": structure_map(smooth, mask)}


class Look:
    """References, and how far pictures are from them."""

    def __init__(self, references: References):
        self.views = {
            name: [(read_view(name, one), read_weight(one)) for one in several] for name, several in references.items()
        }
        self.made: dict[Any, dict[str, torch.Tensor]] = {}

    def targets(self, size: tuple[int, int], device: torch.device) -> dict[str, torch.Tensor]:
        """What pictures of `size` (height, width) are compared with; made once for each size."""
        key = *size, device
        if key not in self.made:
            self.made[key] = {name: self._target(name, size).to(device) for name in self.views}
        return self.made[key]

    def _target(self, name: str, size: tuple[int, int]) -> torch.Tensor:
        views = self.views[name]
        if name == "shape":  # laid over the picture, whatever its aspect
            options = {"size": size, "mode": "bilinear", "antialias": True, "align_corners": False}
            views = [
                ({key: F.interpolate(one, **options) for key, one in view.items()}, weight) for view, weight in views
            ]
        features = average(views, BRANCHES[name].shared_out)
        return BRANCHES[name].target(None, features, working_size(*size))  # no state of a branch is read

    def distances(self, image: torch.Tensor, mask: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """By granularity how far pictures (B, 3, H, W) in [0, 1] are, (B,); differentiable.

        Args:
            mask: (1 or B, 1, H, W) in [0, 1], where the picture counts.
        """
        targets = self.targets(tuple(image.shape[2:]), image.device)
        size = working_size(*image.shape[2:])
        mask = torch.ones_like(image[:1, :1]) if mask is None else mask
        if image.shape[2:] != size:
            image = F.interpolate(image, size=size, mode="bilinear", antialias=True, align_corners=False)
            mask = F.adaptive_avg_pool2d(mask, size)
        # Clamped, with the gradient of what is not: what lies beyond can be pulled back.
        lab = rgb_to_lab(image + (image.clamp(0, 1) - image).detach())
        names = [name for name in GRANULARITIES if name in targets]
        return {name: BRANCHES[name].distance(None, lab, targets[name], mask) for name in names}
