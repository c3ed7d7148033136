"""MGEncoder: reference images -> features of color, texture and shape.

Step 1 of the method, *preprocess*: references are read, checked and brought to one working size (`MGEncoder.load`).
Step 2, *extract*, y = f(Wx + b): a fixed **view** takes from the picture what one granularity may know, and a small
CNN reads that view. A branch sees only its view, so it cannot leak more than the view holds.

| granularity | view | CNN and pooling | blind to |
|---|---|---|---|
| color | bag of colors of the edge-preserving smoothed CIELAB picture | 1x1 convolutions, (masked) mean | layout, texture |
| texture | luminance without its local mean and contrast, borders faded; shuffled tiles of its detail | small receptive field, second-order statistics | palette, layout beyond a tile |
| shape | Di Zenzo gradient of the smoothed picture, soft-thresholded; its regions with their colors turned away | ConvNeXt V2 pyramid, kept spatial | palette, brightness, contrast, fine texture |

Its parts lie in `encoder`, a file for each granularity; all of it ships as one file, see `bundling`.
"""

import hashlib
import json
import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from torch import nn

from .adapter.composition import compose_features
from .adapter.quilting import lay_tiles
from .adapter.strengths import parse_strengths
from .encoder.branch import Branch
from .encoder.color import ColorBranch, palette_view
from .encoder.filling import grow_into
from .encoder.granularity_cards import check_held, hash_of, open_card, refusal_of_size, served_side, write_card
from .encoder.references import (
    cropped_alike,
    lay_into,
    merge,
    parse_palette,
    read_reference,
    read_region,
    sort_by_sample,
)
from .encoder.remembered import Remembered
from .encoder.shape import ShapeBranch, default_backbone
from .encoder.structure import nearest_turn
from .encoder.texture import LAYOUT_TILES, TILE, TextureBranch, draw_tiles, tile_size
from .encoder.views import edge_preserving_smooth, rgb_to_lab, without_autocast
from .features import Features, has_layout
from .granularities import GRANULARITIES
from .hex_colors import is_palette
from .model_files import SavedWithCode, registered
from .reference_pictures import CARD, check_fields, check_palette, is_card, read_scale, read_weight
from .sizes import CARD_SIDE, card_side, check_size


BRANCHES = {"color": ColorBranch, "texture": TextureBranch, "shape": ShapeBranch}


def _light_of(structure: torch.Tensor, rgb: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The turn of a structure map with which dark regions stay dark."""
    colors = rgb_to_lab(rgb).flatten(2)
    return nearest_turn(structure.flatten(2), colors, mask.flatten(2)).to(structure)


def _alike(key: str, values: list[torch.Tensor]) -> list[torch.Tensor]:
    """Of samples whose textures are laid in tiles of several sizes, all in the smallest."""
    return cropped_alike(values) if key == "layout_tiles" else values


def _pooled(region: torch.Tensor | None, size: tuple[int, int]) -> torch.Tensor:
    """A region at another size; everywhere if there is none."""
    return torch.ones(1, 1, *size, dtype=torch.float32) if region is None else F.adaptive_avg_pool2d(region, size)


class MGEncoder(SavedWithCode, ModelMixin, ConfigMixin):
    """Reads each granularity of reference images through its own view and its own CNN.

    Args:
        granularities: names this encoder knows, of "color", "texture", "shape".
        sample_size: working size in pixels. A reference is resized to the area `sample_size ** 2`, aspect kept.
        color_channels, texture_channels: widths of the small CNNs.
        shape_backbone: configuration of the `transformers` backbone of the shape branch (`model_type` and its
            arguments; `num_channels` 1 to 12, see `ShapeBranch`).
        num_tiles: texture tiles drawn from each reference.

    Features (`encode`, `forward`), for a batch B:
        color: `vector` (B, 245 + color_channels), `palette` (B, 256, 3) in Lab
        texture: `vector` (B, 343 + 2 * texture_channels), `tiles` (B, num_tiles, 24, 24)
        shape: `vector` (B, 4 * last backbone width), `map_0`, `map_1`, ... (B, C_l, h_l, w_l), finest first,
            `structure` (B, 3, h, w)
    """

    @registered
    def __init__(
        self,
        granularities: tuple[str, ...] = GRANULARITIES,
        sample_size: int = 64,
        color_channels: int = 64,
        texture_channels: int = 64,
        shape_backbone: dict[str, Any] | None = None,
        num_tiles: int = 64,
    ):
        super().__init__()
        unknown = [name for name in granularities if name not in GRANULARITIES]
        if unknown or not granularities:
            raise ValueError(f"granularities must be some of {GRANULARITIES}, got {tuple(granularities)}.")
        if shape_backbone is None:
            shape_backbone = default_backbone()
            self.register_to_config(shape_backbone=shape_backbone)
        self.branches = nn.ModuleDict(
            {name: BRANCHES[name].from_encoder_config(self.config) for name in granularities}
        )
        self.remembered = Remembered()  # views of references, which know nothing of the weights

    @classmethod
    def from_unet(cls, unet: nn.Module, **config: Any) -> "MGEncoder":
        """An untrained encoder for pictures of a UNet's native size: two pixels a latent cell, at most 128 a side.

        Args:
            unet: a `UNet2DConditionModel`.
            config: arguments of the constructor, in place of what would be chosen.

        Raises:
            ValueError: if the UNet does not tell its native size and no `sample_size` is given.
        """
        native = unet.config.sample_size
        native = max(native) if isinstance(native, (tuple, list)) else native
        if native is None and "sample_size" not in config:
            raise ValueError(
                "The UNet's configuration has no sample_size, the side of its latents. Give the encoder's working size "
                "in pixels: MGEncoder.from_unet(unet, sample_size=128)."
            )
        # The views were calibrated at 64 pixels; what is much finer they would not take for texture.
        return cls(**{"sample_size": min(2, max(1, 128 // (native or 128))) * (native or 128), **config})

    @property
    def vector_sizes(self) -> dict[str, int]:
        """Length of the pooled vector of each granularity."""
        return {name: branch.out_features for name, branch in self.branches.items()}

    @property
    def map_channels(self) -> tuple[int, ...]:
        """Widths of the shape pyramid, finest first; empty without shape."""
        return self.branches["shape"].channels if "shape" in self.branches else ()

    # -- step 1: preprocess -------------------------------------------------------------------------------------------
    def load(self, reference: Any, side: float | None = None) -> dict[str, torch.Tensor]:
        """Read one reference and bring it to the working size.

        Args:
            reference: what `read_image` takes, or `{"image": ..., "mask": ..., "weight": ..., "region": ..., "scale": ...}`.
            side: of a square with the area of what it is brought to; `sample_size` if not given.

        Returns:
            `rgb` (1, 3, h, w) in [0, 1], `mask` (1, 1, h, w) in [0, 1], `weight` float.
        """
        rgb, mask, weight = read_reference(reference)
        height, width = rgb.shape[2:]
        size = self._working_size(height, width, side)
        if size != (height, width):
            rgb = F.interpolate(rgb, size=size, mode="bicubic", antialias=True).clamp(0, 1)
            mask = F.interpolate(mask, size=size, mode="area")
        if mask[:, :, ::2, ::2].sum() < 1:  # what the color view takes; the rest would be noise
            raise ValueError(
                f"A reference's mask selects too little to read: {mask.sum():.2g} pixels of the working size "
                f"{size[1]} x {size[0]}. Crop the picture around the mask first, or select more."
            )
        return {"rgb": rgb, "mask": mask, "weight": weight}

    def _working_size(self, height: int, width: int, side: float | None = None) -> tuple[int, int]:
        """Sides of the working picture: the area of `sample_size ** 2`, multiples of 8, at least one tile."""
        scale = (side or self.config.sample_size) / math.sqrt(height * width)
        sides = [max(8 * round(side * scale / 8), 8 * -(-TILE // 8)) for side in (height, width)]
        return sides[0], sides[1]

    # -- step 2: extract ----------------------------------------------------------------------------------------------
    @without_autocast
    def views(
        self,
        rgb: torch.Tensor,
        mask: torch.Tensor | None = None,
        granularities: Sequence[str] | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, dict[str, torch.Tensor]]:
        """The views of pictures: rgb (B, 3, H, W) in [0, 1], mask (B, 1, H, W) -> {granularity: {name: tensor}}."""
        mask = torch.ones_like(rgb[:, :1]) if mask is None else mask
        lab = rgb_to_lab(rgb)
        smooth = edge_preserving_smooth(lab)
        names = self.branches if granularities is None else granularities
        return {name: self.branches[name].view(lab, smooth, mask, generator) for name in names}

    def forward(self, views: dict[str, dict[str, torch.Tensor]]) -> Features:
        """Views of a batch to features of that batch; see the class for names and shapes."""
        return {name: [self.branches[name].features(view)] for name, view in views.items()}

    # -- step 4: minimise the distance of features, at inference ------------------------------------------------------
    @torch.no_grad()
    @without_autocast
    def guidance_targets(self, features: Features, size: tuple[int, int]) -> dict[str, torch.Tensor]:
        """What `feature_distances` compares pictures of `size` (height, width) with; made once for all steps.

        Args:
            features: from `encode`, of references without regions.
        """
        size = self._working_size(*size)
        return {name: self.branches[name].target(parts, size) for name, (parts,) in features.items()}

    @without_autocast
    def feature_distances(
        self, image: torch.Tensor, targets: dict[str, torch.Tensor], mask: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """How far pictures are from features, by granularity: what feature guidance follows down, differentiable.

        What the distance of a granularity is, its branch says.

        Args:
            image: (B, 3, H, W) in [0, 1], values beyond are clamped.
            targets: from `guidance_targets`, for this size.
            mask: (B, 1, H, W) in [0, 1], where the picture counts; everywhere if not given.

        Returns:
            {granularity: (B,)}, at least 0.
        """
        size = self._working_size(*image.shape[2:])
        mask = torch.ones_like(image[:1, :1]) if mask is None else mask
        if image.shape[2:] != size:
            image = F.interpolate(image, size=size, mode="bilinear", antialias=True, align_corners=False)
            mask = F.adaptive_avg_pool2d(mask, size)
        # Clamped, with the gradient of what is not: what lies beyond can be pulled back.
        lab = rgb_to_lab(image + (image.clamp(0, 1) - image).detach())
        # In this order, whatever that of the targets is: a sum of floats depends on it.
        names = [name for name in GRANULARITIES if name in targets]
        return {name: self.branches[name].distance(lab, targets[name], mask) for name in names}

    @torch.no_grad()
    @without_autocast
    def encode(
        self,
        references: dict[str, Any],
        size: tuple[int, int],
        batch_size: int = 1,
        layout_size: tuple[int, int] | None = None,
        texture_scale: float = 1.0,
    ) -> Features:
        """Features of references, ready for `MGAdapter`.

        Args:
            references: {granularity: reference, list of references, or list of such lists}. A reference is what
                `load` takes, or the path of a card (`save_card`). A list is averaged by weight and serves the whole
                batch; a list of `batch_size` lists gives each sample its own. A list of hex colors is one palette
                (color only). `None` leaves a granularity out. References with a "region" (`read_region`) count there;
                what regions leave goes to those without one.
            size: (height, width) of the shape map in encoder pixels, `MGAdapter.map_size(latent height, width)`.
            batch_size: number of samples the lists of lists must match.
            layout_size: (height, width) in pixels of pictures that are larger than what the base paints. Texture and
                shape then have what a canvas and a sketch of that size are laid of: `layout_tiles` (B, K, p, p), p 24 or more,
                `layout_structure` (B, 3, *layout_size), `layout_shading` (B, 1, *layout_size), `layout_light` (B, 3, 3).
            texture_scale: how coarse textures are laid; it multiplies the "scale" of each reference.

        Returns:
            Features whose batch dimension is 1 (shared by all samples) or `batch_size`: of a granularity one entry, or,
            where references have regions, one for each, with its `region` (B, 1, *(layout_size or size));
            those of a place sum to at most 1.

        Warns of references that may serve badly, such as a texture that is not the same everywhere (`Branch.doubt`), unless
        the very same object is the shape reference.

        Raises:
            ValueError: for an unknown granularity, an unreadable reference, or a wrong number of lists or regions.
        """
        return self._encode(references, size, batch_size, layout_size, texture_scale, warns=True)

    def _encode(
        self,
        references: dict[str, Any],
        size: tuple[int, int],
        batch_size: int,
        layout_size: tuple[int, int] | None = None,
        texture_scale: float = 1.0,
        warns: bool = False,
    ) -> Features:
        """As `encode`, which warns."""
        if not isinstance(references, dict):
            raise ValueError(
                f'References are given by granularity, for example {{"color": image}}; got {type(references).__name__}.'
            )
        for name in references:
            if name not in self.branches:
                raise ValueError(f"Unknown granularity {name!r}; this encoder knows {tuple(self.branches)}.")
        size = check_size(size, "size")
        layout_size = layout_size if layout_size is None else check_size(layout_size, "layout_size")
        features = {}
        for name, reference in references.items():
            if reference is None:
                continue
            is_whole = reference is references.get(
                "shape"
            )  # a picture that is varied, and lends no texture to another
            rows = [
                self._encode_row(name, row, size, layout_size, texture_scale, warns and not is_whole)
                for row in sort_by_sample(name, reference, batch_size)
            ]
            kinds = {tuple("region" in parts for parts in row) for row in rows}
            if len(kinds) > 1:
                raise ValueError(
                    f"The {name} references of all samples of a batch need as many regions, got "
                    f"{sorted({len(row) if 'region' in row[0] else 0 for row in rows})}. Call one by one."
                )
            features[name] = [
                {key: torch.cat(_alike(key, [part[key] for part in same])) for key in same[0]}
                for same in zip(*rows, strict=True)
            ]
        return features

    def strengths(self, granularity_scale: Any, batch_size: int = 1) -> torch.Tensor:
        """`granularity_scale` of a pipeline call to a tensor (batch_size, granularities); see `parse_strengths`."""
        if isinstance(granularity_scale, dict) and any(isinstance(one, dict) for one in granularity_scale.values()):
            raise ValueError("Blocks of a UNet in `granularity_scale` need an adapter; without one it takes numbers.")
        return parse_strengths(granularity_scale, list(self.branches), batch_size)

    @torch.no_grad()
    @without_autocast
    def compose(
        self,
        features: Features,
        size: tuple[int, int],
        granularity_scale: float | dict[str, float | list[float]] = 1.0,
        batch_size: int = 1,
        assignment: str = "light",
        generator: torch.Generator | list[torch.Generator] | None = None,
    ) -> torch.Tensor | None:
        """The composition of references: the palette laid into the regions, the texture over it. No network paints.

        Args:
            features: from `encode` with `layout_size=size`, of batch 1 or one that divides `batch_size`.
            size: (height, width) in pixels.
            granularity_scale: strengths, a number, {granularity: number or list of `batch_size` numbers}, or a tensor
                (batch_size, granularities) of them.
            assignment: of colors to regions, "light" or "free".
            generator: draws what the references leave open; a list holds one for each picture.

        Returns:
            (batch_size, 3, *size) in [-1, 1], or `None` where nothing has any strength.

        Raises:
            ValueError: for features that were made for another size, and strengths that are none.
        """
        size, strengths = check_size(size, "size"), granularity_scale
        if not torch.is_tensor(strengths) or strengths.ndim != 2:
            strengths = self.strengths(strengths, batch_size)
        for name, parts in features.items():
            if not all(has_layout(name, part, size) for part in parts):
                raise ValueError(
                    f"The {name} features were not made to be laid out at {size[1]} x {size[0]} pixels. Make them with "
                    f"`encode(..., layout_size={tuple(size)})`."
                )
        return compose_features(
            features, strengths.to(self.device), list(self.branches), size, assignment, generator, self.remembered
        )

    @staticmethod
    def fill_smoothly(image: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
        """The picture (B, 3, H, W) with its hole (B, 1, H, W; 1 is unknown) filled from what surrounds it."""
        return grow_into(image, hole)

    @torch.no_grad()
    @without_autocast
    def encode_context(
        self, image: torch.Tensor, hole: torch.Tensor, names: Sequence[str], size: tuple[int, int]
    ) -> Features:
        """Features of what surrounds a hole, so that what is painted into it goes on with its surroundings.

        Color and texture are those of the rest of the picture. Shape is that of the picture with the hole filled
        smoothly, with a `turn` (B, 3, 3) that keeps the colors of another palette where such colors are, see
        `apply_variation`. With color asked for as well, the filled picture itself is the `sketch` (B, 3, *size) in Lab
        of `MGAdapter.sketch`.

        Args:
            image: (B, 3, H, W) in [0, 1]; hole: (B, 1, H, W), 1 is unknown; no picture may be all hole.
            names: the granularities asked for.
            size: as in `encode`.
        """
        count, known = len(image), hole < 0.5
        filled = grow_into(image, hole)
        # Of the filled picture, because the views smooth across the border of the hole.
        rest = [[{"image": one, "mask": mask}] for one, mask in zip(filled, known, strict=True)]
        whole = [[one] for one in filled]
        given = {name: whole if self.branches[name].is_laid_out else rest for name in names}
        features = self._encode(given, size, count)
        if "shape" in features:
            (shape,) = features["shape"]
            structure = shape["structure"]
            lab = rgb_to_lab(F.interpolate(filled, size=size, mode="bilinear", antialias=True, align_corners=False))
            if "color" in features:
                shape["sketch"] = lab.to(structure)
            weight = F.adaptive_avg_pool2d(known.float(), size)
            shape["turn"] = nearest_turn(
                structure.flatten(2), lab.to(structure.device).flatten(2), weight.to(structure.device).flatten(2)
            )
        return features

    def _encode_row(
        self,
        name: str,
        row: list[Any],
        size: tuple[int, int],
        layout_size: tuple[int, int] | None,
        texture_scale: float,
        warns: bool,
    ) -> list[dict[str, torch.Tensor]]:
        """The average of what one sample has for the whole picture, or one entry for each of its regions."""
        encoded = []
        for number, item in enumerate(row, 1):
            fields = item if isinstance(item, dict) else {"image": item}
            region = None if fields.get("region") is None else read_region(fields["region"], layout_size or size)
            scale = read_scale(name, fields, texture_scale)
            parts, weight = self._encode_one(name, fields, size, region, scale)
            doubt = self.branches[name].doubt(parts) if warns else None
            if doubt is not None:
                path = fields.get("image")
                which = f" {number} of {len(row)}" if len(row) > 1 else ""
                which = f" {os.fspath(path)!r}" if isinstance(path, (str, os.PathLike)) else which
                warnings.warn(f"The {name} reference{which} {doubt}.", stacklevel=2)
            if layout_size is not None:
                parts |= self._layout(name, fields, layout_size, region, scale)
            encoded.append((parts, weight, region))
        return merge(encoded, self.branches[name].shared_out)

    def _encode_one(
        self, name: str, fields: dict[str, Any], size: tuple[int, int], region: torch.Tensor | None, scale: float
    ) -> tuple[dict[str, torch.Tensor], float]:
        """Features of one reference, of shape laid into its region if it has one (`read_region`), and its weight."""
        if is_card(fields.get("image")):
            kept, weight = self._open_card(fields, name), read_weight(fields)
        else:
            kept, weight = self._kept(name, fields, scale)
        if not self.branches[name].is_laid_out:
            return {key: value.to(self.device, self.dtype) for key, value in kept.items()}, weight
        # The shape is laid out over the picture to be made, or over its region there, whatever its aspect ratio.
        light = {"light": kept.pop("light").to(self.device, self.dtype)} if "light" in kept else {}
        laid = {key: lay_into(value.to(self.device), _pooled(region, size)) for key, value in kept.items()}
        return self({name: {key: value.to(self.dtype) for key, value in laid.items()}})[name][0] | light, weight

    def _kept(self, name: str, fields: dict[str, Any], scale: float = 1.0) -> tuple[dict[str, torch.Tensor], float]:
        """What a card keeps of a reference, and its weight: features, or the view of what is laid out (`Branch`)."""
        check_fields(fields)
        if is_palette(fields["image"]):
            check_palette(name, fields["image"])
            view, weight = palette_view(*parse_palette(fields["image"])), read_weight(fields)
        else:
            loaded = self.load(fields, self.config.sample_size * scale)
            rgb, mask, weight = loaded["rgb"].to(self.device), loaded["mask"].to(self.device), loaded["weight"]
            view = self.remembered(self._view_of, name, rgb, mask)
        if self.branches[name].is_laid_out:
            return {**view, "light": _light_of(view["structure"], rgb, mask)}, weight
        return self({name: {key: value.to(self.device, self.dtype) for key, value in view.items()}})[name][0], weight

    def _layout(
        self, name: str, fields: dict[str, Any], size: tuple[int, int], region: torch.Tensor | None, scale: float
    ) -> dict[str, torch.Tensor]:
        """What a canvas or a sketch of the output's size is laid of, of one reference."""
        branch = self.branches[name]
        if type(branch).layout is Branch.layout:
            return {}
        side = math.sqrt(size[0] * size[1]) * scale
        if is_card(fields["image"]):
            laid = self._layout_of_card(name, fields, size, scale)
        else:
            laid = self._read_layout(name, fields, side)
        if branch.is_laid_out:
            maps = {key: value for key, value in laid.items() if value.ndim == 4}
            laid |= {key: lay_into(value, _pooled(region, size)) for key, value in maps.items()}
        return {key: value.half().to(self.dtype) for key, value in laid.items()}  # rounded as in cards

    def _read_layout(self, name: str, fields: dict[str, Any], side: float) -> dict[str, torch.Tensor]:
        """What a canvas or a sketch is laid of, of a picture read at the area of a square."""
        loaded = self.load(fields, side)
        return self.remembered(self._layout_of, name, loaded["rgb"].to(self.device), loaded["mask"].to(self.device))

    def _view_of(self, name: str, rgb: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.views(rgb, mask, [name])[name]

    def _layout_of(self, name: str, rgb: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        lab = rgb_to_lab(rgb)
        laid = self.branches[name].layout(lab, edge_preserving_smooth(lab), mask)
        if self.branches[name].is_laid_out:
            laid["layout_light"] = _light_of(laid["layout_structure"], rgb, mask)
        return laid

    def _open_card(self, fields: dict[str, Any], name: str, is_layout: bool = False) -> dict[str, torch.Tensor]:
        return open_card(fields, name, self.fingerprint(name), self.branches[name].card_shapes, is_layout)

    def _layout_of_card(
        self, name: str, fields: dict[str, Any], size: tuple[int, int], scale: float
    ) -> dict[str, torch.Tensor]:
        """The same, of a card; textures that are to be finer than the card has them are quilted and shrunk."""
        kept, side = self._open_card(fields, name, is_layout=True), math.sqrt(math.prod(size)) * scale
        most = served_side(kept) if kept else self.config.sample_size
        if not kept or side > 1.05 * most:
            raise ValueError(refusal_of_size(os.fspath(fields["image"]), name, most, size, scale))
        laid = {key: value.to(self.device).float() for key, value in kept.items()}
        if name == "texture" and side < most / 1.05:
            canvas = lay_tiles(laid["layout_tiles"], most, most)
            canvas = F.interpolate(canvas, 2 * (max(TILE, round(side)),), mode="area")
            laid["layout_tiles"] = draw_tiles(canvas, torch.ones_like(canvas), LAYOUT_TILES, size=tile_size(side))
        return laid

    # -- granularity cards --------------------------------------------------------------------------------------------
    @torch.no_grad()
    @without_autocast
    def save_card(self, path: str | os.PathLike, granularity: str, reference: Any, side: int = CARD_SIDE) -> None:
        """Write a granularity card: what one granularity of a reference is to this encoder, without the picture.

        The path of a card serves wherever that of a picture does, and gives the same output (bit for bit where the
        encoder that reads it computes in the precision of the one that wrote it); so a list of cards is their average,
        `[{"image": "a.safetensors", "weight": 0.3}, {"image": "b.safetensors", "weight": 0.7}]` a mix.
        A color card holds 256 colors, a texture card shuffled tiles, a shape card edges, regions and how
        they are turned for light ones to be light; each has a few
        to a few hundred KB.

        Args:
            path: ends in .safetensors. It is replaced in one step.
            reference: a picture, a dict {"image", "mask"} or, for color, a palette, as in `encode`; not a list of them.
            side: the card serves pictures of up to `side` x `side` pixels, or of that area, rounded up to a multiple of 128;
                at most 1024. A color card serves all sizes.

        Raises:
            ValueError: for another ending, an unknown granularity, a reference that cannot be read, or a larger side.
        """
        if not is_card(path):
            raise ValueError(f"A granularity card is a {CARD} file, got {path!r}.")
        if granularity not in self.branches:
            raise ValueError(f"Unknown granularity {granularity!r}; this encoder knows {tuple(self.branches)}.")
        image = reference.get("image") if isinstance(reference, dict) else reference
        if is_card(image):
            raise ValueError(f"{os.fspath(image)!r} is a card already; copy the file.")
        if isinstance(reference, dict) and not {"weight", "region"}.isdisjoint(reference):
            raise ValueError("A card has no weight or region of its own. Give them where the card is used.")
        side, target = card_side(side), Path(os.path.realpath(path))
        if not target.parent.is_dir():
            raise ValueError(f"There is no folder {str(target.parent)!r} to write the card to.")
        fields = reference if isinstance(reference, dict) else {"image": reference}
        kept, _ = self._kept(granularity, fields)
        if type(self.branches[granularity]).layout is not Branch.layout:
            layout = self._read_layout(granularity, fields, side)
            if self.branches[granularity].is_laid_out:
                whole = torch.ones(1, 1, side, side, dtype=torch.float32)
                layout |= {key: lay_into(value, whole) for key, value in layout.items() if value.ndim == 4}
            kept |= {key: value.half() for key, value in layout.items()}
        write_card(target, kept, granularity, self.fingerprint(granularity), hash_of(reference))

    def check_card(self, tensors: dict[str, torch.Tensor], granularity: str, what: str = "The card") -> None:
        """Raise a ValueError unless these are the tensors of a granularity card of this encoder.

        Args:
            what: they are, for messages.
        """
        check_held(tensors, self.branches[granularity].card_shapes, what)

    def fingerprint(self, granularity: str) -> str:
        """SHA-256 of one branch: its configuration and its weights, as they are in bfloat16 (whatever they are in)."""
        config = {key: self.config[key] for key in ("sample_size", "num_tiles", "shape_backbone")}
        digest = hashlib.sha256(json.dumps([granularity, config], sort_keys=True).encode())
        for key, value in sorted(self.branches[granularity].state_dict().items()):
            digest.update(key.encode() + value.cpu().bfloat16().contiguous().view(torch.int16).numpy().tobytes())
        return digest.hexdigest()
