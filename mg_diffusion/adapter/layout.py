"""Canvas and sketch at the size of the output: laid once, read by the base and by every octave above it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..encoder.remembered import Remembered
from ..encoder.views import lab_to_rgb
from ..features import FeatureSet
from .quilting import lay_tiles
from .sketch import lay_palette, shaded
from .strengths import joint_strength


@dataclass
class Layout:
    """What octaves read, of each picture; where a scale is 0 there is nothing.

    Args:
        canvas: (B, 1, H, W) lightness over 10; sketch: (B, 3, H, W) sRGB in [-1, 1].
        canvas_scale, sketch_scale: (B, 1, H, W), their strengths.
    """

    canvas: torch.Tensor
    canvas_scale: torch.Tensor
    sketch: torch.Tensor
    sketch_scale: torch.Tensor


def lay_out(features: FeatureSet, size: tuple[int, int], remembered: Remembered) -> FeatureSet:
    """Features with the `canvas` of their `layout_tiles` and the `sketch` (Lab) of palette and `layout_structure`.

    Args:
        features: one entry of each granularity, settled (`apply_variation`); size: (height, width) of the output.
        remembered: what was laid before.
    """
    laid = {name: dict(parts) for name, parts in features.items()}
    tiles = laid.get("texture", {}).pop("layout_tiles", None)
    if tiles is not None:
        laid["texture"]["canvas"] = remembered(lay_tiles, tiles, *size)
    structure, shading = (laid.get("shape", {}).pop(f"layout_{key}", None) for key in ("structure", "shading"))
    if structure is not None and "color" in laid and "sketch" not in laid["shape"]:
        area = laid["color"].get("area")
        area = area if area is None else F.interpolate(area, size, mode="area")
        sketch = remembered(lay_palette, structure, laid["color"]["palette"], area)
        laid["shape"]["sketch"] = sketch if shading is None else shaded(sketch, shading)
    elif "sketch" in laid.get("shape", {}):  # a continuation of surroundings, which is smooth
        laid["shape"]["sketch"] = F.interpolate(laid["shape"]["sketch"], size, mode="bilinear")
    return laid


def join_layouts(
    sets: Sequence[tuple[FeatureSet, torch.Tensor]],
    shares: torch.Tensor | None,
    granularities: Sequence[str],
    size: tuple[int, int],
) -> Layout | None:
    """One layout of several sets of features, place by place in their shares; `None` where nothing is laid.

    Args:
        sets: what `lay_out` gave, and strengths (B, G); shares: (B or 1, sets, H, W), as of `split_regions`.
    """
    count = len(sets[0][1])
    sums = dict.fromkeys(("canvas", "sketch"))
    for place, (features, strengths) in enumerate(sets):
        share = (
            torch.ones(1, 1, 1, 1)
            if shares is None
            else F.interpolate(shares[:, place, None].float(), size, mode="area")
        )
        for name, granularity, used in (("canvas", "texture", ("texture",)), ("sketch", "shape", ("color", "shape"))):
            laid = features.get(granularity, {}).get(name)
            if laid is None:
                continue
            strength = joint_strength(strengths, granularities, used).float().view(-1, 1, 1, 1)
            scale = (share.to(strength) * strength).expand(count, 1, *size)
            laid = scale * (laid.float() if name == "canvas" else lab_to_rgb(laid.float()) * 2 - 1)
            sums[name] = (
                [scale, laid]
                if sums[name] is None
                else [a + b for a, b in zip(sums[name], (scale, laid), strict=True)]
            )
    if sums["canvas"] is None and sums["sketch"] is None:
        return None
    like = next(one[0] for one in sums.values() if one is not None)
    parts = {}
    for name, channels in (("canvas", 1), ("sketch", 3)):
        scale, laid = sums[name] or (torch.zeros_like(like), like.new_zeros(count, channels, *size))
        parts |= {name: laid / scale.clamp(min=1e-6), f"{name}_scale": scale}
    return Layout(**parts)
