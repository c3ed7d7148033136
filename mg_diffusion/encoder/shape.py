"""Shape: where regions of different color meet, and which pixels belong together."""

from typing import Any

import torch
import torch.nn.functional as F
from transformers import AutoBackbone, AutoConfig

from .branch import Branch
from .color_groups import one_color_each
from .distances import as_shares
from .structure import FIELD_WAVES, region_fields, shading, structure_map
from .views import di_zenzo_gradient, gaussian_blur


CALM = 3.0  # Delta-E a pixel; where colors change faster is an edge
ONE_COLOR = 6.0  # Delta-E between two colors of one region, lightness counted half


def shape_view(smooth: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """Where regions of different color meet, and which pixels belong together, whatever the colors are.

    Returns:
        `edges` (B, 1, H, W) in [0, 1]; `structure` (B, 3, H, W) in [-1, 1], see `structure_map`.
    """
    edges = ((di_zenzo_gradient(smooth) - 2.5) / 4.0).clamp(0, 1) * mask
    edges = gaussian_blur(edges, 0.7)
    return {"edges": edges, "structure": structure_map(smooth, mask)}


def default_backbone() -> dict[str, Any]:
    """The configuration of a small ConvNeXt V2 that reads all of the shape view."""
    return {
        "model_type": "convnextv2",
        "num_channels": 12,
        "patch_size": 2,
        "hidden_sizes": [32, 64, 96],
        "num_stages": 3,
        "depths": [1, 2, 2],
        "out_features": ["stage1", "stage2", "stage3"],
    }


def structure_basis(structure: torch.Tensor) -> torch.Tensor:
    """What depends smoothly on a structure map (B, 3, H, W) alone: polynomials of degree 2, (B, 10, N)."""
    x, y, z = structure.flatten(2).unbind(1)
    return torch.stack([torch.ones_like(x), x, y, z, x * x, y * y, z * z, x * y, y * z, z * x], 1)


def unexplained_share(lab: torch.Tensor, basis: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """The part of the variance of colors that no function in the span of a basis explains, in [0, 1]: (B,).

    (1 minus the coefficient of determination of a linear regression. Whatever the colors of the regions are, it is
    small where they follow the regions.)

    Args:
        lab: (B, 3, H, W); basis: (1 or B, K, N) that begins with a constant; shares: (1 or B, 1, N) that sum to 1.
    """
    root = shares.sqrt()
    colors = (gaussian_blur(lab, 1.5).flatten(2) * root).transpose(1, 2)
    with torch.no_grad():  # of what is given alone
        orthonormal = torch.linalg.qr((basis * root).transpose(1, 2))[0]
    explained = (orthonormal.transpose(1, 2) @ colors).square()
    mean = (colors * root.transpose(1, 2)).sum(1, keepdim=True).square().sum((1, 2))
    variance = colors.square().sum((1, 2)) - mean
    return 1 - (explained.sum((1, 2)) - mean) / (variance + 1e-3)


def one_region_each(smooth: torch.Tensor, structure: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """A structure map (B, 3, H, W) in which what is of one color in the reference is one region.

    The light and shade of a dress, which a map has, too, would be given colors of their own: stains and streaks. They are
    shading. What lies on an edge is of both sides' colors and makes no region of its own.
    """
    # Of masks that were shrunk some of a thin stroke is left, and nowhere more than a half.
    inside = (mask > 0).to(mask)
    calm = inside * (di_zenzo_gradient(smooth) < CALM)
    calm = torch.where(calm.amax((2, 3), keepdim=True) > 0, calm, inside)
    maps = zip(smooth.split(1), structure.split(1), calm.split(1), strict=True)
    return torch.cat([one_color_each(*one, within=ONE_COLOR) for one in maps]) * inside


class ShapeBranch(Branch):
    """A `transformers` backbone over edges, structure map and region fields; its pyramid is kept, finest first.

    `num_channels` of the backbone says how much of that it takes: 1 is the edges alone, 4 the structure map too, and
    further ones, at most 12, region fields.
    """

    is_laid_out = True

    def __init__(self, backbone: dict[str, Any]):
        super().__init__()
        backbone = dict(backbone)
        self.backbone = AutoBackbone.from_config(AutoConfig.for_model(backbone.pop("model_type"), **backbone))
        self.channels = tuple(self.backbone.channels)
        self.out_features = 4 * self.channels[-1]
        self.num_channels = self.backbone.config.num_channels
        most = 4 + len(FIELD_WAVES)
        if self.num_channels != 1 and not 4 <= self.num_channels <= most:
            raise ValueError(
                f"The shape backbone must take 1 (edges) or 4 to {most} channels (edges, structure map, region "
                f"fields), its `num_channels` is {self.num_channels}."
            )

    def __getstate__(self) -> dict[str, Any]:
        """For pickles and copies: without the hooks that transformers puts on a backbone.

        They are local functions, which cannot be pickled; the next forward puts them on again.
        """
        for module in self.backbone.modules():
            if vars(module).get("_output_capturing_hooks_installed"):
                module._output_capturing_hooks_installed = False
            for key, hook in list(module._forward_hooks.items()):
                if getattr(hook, "__module__", "").startswith("transformers."):
                    del module._forward_hooks[key]
        return super().__getstate__()

    def forward(self, edges: torch.Tensor, structure: torch.Tensor) -> tuple[torch.Tensor, ...]:
        maps = [edges]
        if self.num_channels >= 4:
            maps.append(structure)
        if self.num_channels > 4:
            fields = region_fields(edges.float(), self.num_channels - 4)
            maps.append(F.interpolate(fields, size=edges.shape[2:]).to(edges.dtype))
        return tuple(self.backbone(torch.cat(maps, 1)).feature_maps)

    @classmethod
    def from_encoder_config(cls, config: Any) -> "ShapeBranch":
        return cls(config.shape_backbone)

    def view(
        self, lab: torch.Tensor, smooth: torch.Tensor, mask: torch.Tensor, generator: torch.Generator | None = None
    ) -> dict[str, torch.Tensor]:
        return shape_view(smooth, mask)

    def layout(self, lab: torch.Tensor, smooth: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        structure = one_region_each(smooth, structure_map(smooth, mask), mask)
        return {"layout_structure": structure, "layout_shading": shading(structure, smooth[:, :1], lab[:, :1]) * mask}

    def features(self, view: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        maps = self(**view)
        vector = F.adaptive_avg_pool2d(maps[-1], 2).flatten(1)
        levels = {f"map_{level}": one for level, one in enumerate(maps)}
        return {"vector": vector, **levels, "structure": view["structure"]}

    @property
    def card_shapes(self) -> dict[str, tuple[int | str, ...]]:
        return {
            "edges": (1, 1, "height", "width"),
            "structure": (1, 3, "height", "width"),
            "light": (1, 3, 3),
            "layout_structure": (1, 3, "side", "side"),
            "layout_shading": (1, 1, "side", "side"),
            "layout_light": (1, 3, 3),
        }

    def target(self, features: dict[str, torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
        return structure_basis(F.adaptive_avg_pool2d(features["structure"], size))

    def distance(self, lab: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The share of the color variance that the reference's structure map does not explain."""
        return unexplained_share(lab, target, as_shares(mask))
