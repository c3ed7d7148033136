"""Canvas and sketch at the size of the output: laid once, read by the base and by every octave above it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from diffusers.utils.torch_utils import randn_tensor

from ..encoder.remembered import Remembered
from ..encoder.views import gaussian_blur, lab_to_rgb, rgb_to_lab
from ..features import FeatureSet
from ..octaves import compose
from .quilting import lay_tiles
from .sketch import lay_palette, lay_with_contrast, shaded
from .strengths import joint_strength


CLOUD = 1 / 10  # of the shorter side, the deviation of the blur of what stands in for missing regions
CLOUD_LIGHT = (55.0, 20.0)  # mean and deviation of its lightness
REGIONS = 0.4  # deviation of the channels of a structure map


@dataclass
class Layout:
    """What octaves read, of each picture; where a scale is 0 there is nothing.

    Args:
        canvas: (B, 1, H, W) lightness over 10; sketch: (B, 3, H, W) sRGB in [-1, 1].
        canvas_scale, sketch_scale: (B, 1, H, W), their strengths.
        parts: what sketches are made of; `None` of several regions.
    """

    canvas: torch.Tensor
    canvas_scale: torch.Tensor
    sketch: torch.Tensor
    sketch_scale: torch.Tensor
    parts: "Parts | None" = None

    def completed(self, painted: torch.Tensor) -> "Layout":
        """With a sketch where only its colors or only its regions are given: the other is that of what the base painted.

        Args:
            painted: (B, 3, h, w) in [-1, 1].
        """
        return self if self.parts is None else self.parts.complete(self, painted)

    def composed(
        self,
        generator: torch.Generator | list[torch.Generator] | None = None,
        clouds: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Canvas over sketch, nothing painted: (B, 3, H, W) in [-1, 1].

        Regions without colors are in grays, colors without regions lie in soft clouds that the generator draws (or in those of
        `draw_clouds`), where there is nothing it is middle gray.
        """
        if clouds is None:
            clouds = draw_clouds(len(self.canvas), tuple(self.canvas.shape[2:]), generator, self.canvas.device)
        whole, gray = self.completed(lab_to_rgb(clouds) * 2 - 1), clouds.new_zeros(1, 1, 1, 1).expand_as(clouds)
        return compose(gray, whole.canvas, whole.canvas_scale, whole.sketch, whole.sketch_scale).clamp(-1, 1)


@dataclass
class Parts:
    """Colors and regions of a sketch, and how strong each is.

    Args:
        palette: (B or 1, N, 3) Lab; structure: (B, 3, H, W), turned; shading: (B or 1, 1, H, W); `None` if not given.
        strengths: (B, 2) of color and of shape, 0 where it is not given.
    """

    palette: torch.Tensor | None
    structure: torch.Tensor | None
    shading: torch.Tensor | None
    strengths: torch.Tensor

    @property
    def lacks_color(self) -> torch.Tensor:
        """(B,): regions are given, and not all of their color."""
        return (self.strengths[:, 1] > 0) & (self.strengths[:, 0] < 1) & (self.structure is not None)

    @property
    def lacks_shape(self) -> torch.Tensor:
        """(B,): colors are given, and no regions."""
        return (self.strengths[:, 0] > 0) & (self.strengths[:, 1] == 0) & (self.palette is not None)

    def complete(self, layout: Layout, painted: torch.Tensor) -> Layout:
        color, shape = self.strengths.float().clamp(0, 1).unbind(1)
        sketch, scale, size = layout.sketch, layout.sketch_scale, layout.sketch.shape[2:]
        lab = rgb_to_lab(painted.float().clamp(-1, 1).to(sketch.device) / 2 + 0.5)
        if self.lacks_color.any():
            own = lay_palette(self.structure, F.adaptive_avg_pool2d(lab, 16).flatten(2).transpose(1, 2))
            own = lab_to_rgb(own if self.shading is None else shaded(own, self.shading)) * 2 - 1
            where, share = self.lacks_color.view(-1, 1, 1, 1), color.view(-1, 1, 1, 1)
            sketch = torch.where(where, torch.lerp(own, sketch, share), sketch)
            scale = torch.where(where, shape.view(-1, 1, 1, 1), scale)
        if self.lacks_shape.any():
            own = lab_to_rgb(lay_palette(regions_of(lab, size), self.palette)) * 2 - 1
            where = self.lacks_shape.view(-1, 1, 1, 1)
            sketch = torch.where(where, own, sketch)
            scale = torch.where(where, color.view(-1, 1, 1, 1), scale)
        return replace(layout, sketch=sketch, sketch_scale=scale)


def regions_of(lab: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Pictures (B, 3, h, w) in Lab as structure maps (B, 3, *size), as far apart whatever their contrast is."""
    lab = (16 * lab).round() / 16  # what differs in the last bits must not decide which color goes where
    spread = (lab - lab.mean((2, 3), keepdim=True)) / (lab.std((2, 3), keepdim=True) + 1)
    return F.interpolate(REGIONS * spread, size, mode="bilinear")


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
    structure, shading = (laid.get("shape", {}).get(f"layout_{key}") for key in ("structure", "shading"))
    if structure is not None and "color" in laid and "sketch" not in laid["shape"]:
        area = laid["color"].get("area")
        area = area if area is None else F.interpolate(area, size, mode="area")
        sketch = remembered(lay_with_contrast, structure, laid["color"]["palette"], area)
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
            torch.ones(1, 1, 1, 1, dtype=torch.float32)
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
    found = parts_of(*sets[0], granularities) if shares is None else None
    if sums["canvas"] is None and sums["sketch"] is None and found is None:
        return None
    blank = torch.zeros(count, 1, *size, device=sets[0][1].device, dtype=torch.float32)
    like = next((one[0] for one in sums.values() if one is not None), blank)
    parts = {}
    for name, channels in (("canvas", 1), ("sketch", 3)):
        scale, laid = sums[name] or (torch.zeros_like(like), like.new_zeros(count, channels, *size))
        parts |= {name: laid / scale.clamp(min=1e-6), f"{name}_scale": scale}
    return Layout(**parts, parts=found)


def parts_of(features: FeatureSet, strengths: torch.Tensor, granularities: Sequence[str]) -> Parts | None:
    """What a sketch is made of, of features for the whole picture; `None` where there is nothing to complete.

    A continuation of surroundings is complete: it has colors and regions of its own.
    """
    own = {name: strengths[:, list(granularities).index(name)] for name in ("color", "shape") if name in granularities}
    color, shape = (
        own.get(name, torch.zeros(len(strengths), dtype=torch.float32).to(strengths)) for name in ("color", "shape")
    )
    palette = features.get("color", {}).get("palette")
    structure, shading = (features.get("shape", {}).get(f"layout_{key}") for key in ("structure", "shading"))
    is_context = "sketch" in features.get("shape", {}) and structure is None
    parts = Parts(None if is_context else palette, structure, shading, torch.stack([color, shape], 1))
    return parts if (parts.lacks_color | parts.lacks_shape).any() else None


def draw_clouds(
    count: int, size: tuple[int, int], generator: torch.Generator | list[torch.Generator] | None, device: torch.device
) -> torch.Tensor:
    """Lab (count, 3, *size) of gray, soft regions, drawn at a sixteenth of the size."""
    small = tuple(max(4, side // 16) for side in size)
    noise = gaussian_blur(randn_tensor((count, 1, *small), generator, device, torch.float32), CLOUD * min(small))
    noise = noise / noise.std((2, 3), keepdim=True)
    mean, deviation = CLOUD_LIGHT
    lightness = F.interpolate(mean + deviation * noise, size, mode="bicubic").clamp(5, 95)
    return F.pad(lightness, (0, 0, 0, 0, 0, 2))
