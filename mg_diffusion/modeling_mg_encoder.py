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
import inspect
import json
import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from safetensors.torch import save_file
from torch import nn

from .encoder.color import ColorBranch, color_directions, color_view, draw_palette
from .encoder.filling import grow_into
from .encoder.granularity_cards import CARD, CARD_FORMAT, hash_of, is_card, read_card
from .encoder.reading import read_image, read_mask
from .encoder.references import is_palette, lay_into, parse_palette, read_region, read_weight, share_out
from .encoder.shape import ShapeBranch, shape_view, structure_basis, unexplained_share
from .encoder.structure import nearest_turn
from .encoder.texture import (
    GUIDE_PATCH,
    TILE,
    TextureBranch,
    draw_tiles,
    limited_detail,
    patch_responses,
    texture_view,
)
from .encoder.views import edge_preserving_smooth, quantiles, rgb_to_lab, transport_cost
from .granularities import GRANULARITIES


class MGEncoder(ModelMixin, ConfigMixin):
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

    _auto_class = "AutoModel"  # what `register_for_auto_class` sets

    @register_to_config
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
            shape_backbone = {
                "model_type": "convnextv2",
                "num_channels": 12,
                "patch_size": 2,
                "hidden_sizes": [32, 64, 96],
                "num_stages": 3,
                "depths": [1, 2, 2],
                "out_features": ["stage1", "stage2", "stage3"],
            }
            self.register_to_config(shape_backbone=shape_backbone)
        builders = {
            "color": lambda: ColorBranch(color_channels),
            "texture": lambda: TextureBranch(texture_channels),
            "shape": lambda: ShapeBranch(shape_backbone),
        }
        self.branches = nn.ModuleDict({name: builders[name]() for name in granularities})

    # -- saving and loading -------------------------------------------------------------------------------------------
    def save_config(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """As in `ConfigMixin`, with the code beside it: `AutoModel` loads the folder where no package is installed."""
        os.makedirs(save_directory, exist_ok=True)
        shutil.copy(inspect.getsourcefile(type(self)), save_directory)
        super().save_config(save_directory, **kwargs)

    @classmethod
    def extract_init_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> tuple:
        """As in `ConfigMixin`; that `config_dict` names the file of the class for `AutoModel` is no setting."""
        settings = {name: value for name, value in config_dict.items() if name != "auto_map"}
        return super().extract_init_dict(settings, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> "MGEncoder":
        """As `ModelMixin.from_pretrained`, but weights that are missing or foreign are an error, not a warning.

        Raises:
            ValueError: if the folder or Hub repository is missing or damaged, or holds another model.
        """
        place = "/".join(str(part) for part in (pretrained_model_name_or_path, kwargs.get("subfolder")) if part)
        remedy = (
            f"An {cls.__name__} is a folder written by `save_pretrained`, with config.json and "
            f"diffusion_pytorch_model.safetensors; check the path and `subfolder`, or copy or download it again."
        )
        with_info = kwargs.pop("output_loading_info", False)
        try:
            model, info = super().from_pretrained(pretrained_model_name_or_path, output_loading_info=True, **kwargs)
        except torch.OutOfMemoryError:
            raise
        except (OSError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"Cannot load {cls.__name__} from {place!r}: {error}\n{remedy}") from error
        missing, unexpected = (sorted(info.get(key, [])) for key in ("missing_keys", "unexpected_keys"))
        if missing or unexpected:
            raise ValueError(
                f"The weights in {place!r} are not those of this {cls.__name__}: {len(missing)} are missing "
                f"({', '.join(missing[:2])}), {len(unexpected)} are unknown ({', '.join(unexpected[:2])}). {remedy}"
            )
        return (model, info) if with_info else model

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
        sizes = {}
        for name, branch in self.branches.items():
            sizes[name] = 4 * branch.channels[-1] if name == "shape" else branch.out_features
        return sizes

    @property
    def map_channels(self) -> tuple[int, ...]:
        """Widths of the shape pyramid, finest first; empty without shape."""
        return self.branches["shape"].channels if "shape" in self.branches else ()

    # -- step 1: preprocess -------------------------------------------------------------------------------------------
    def load(self, reference: Any) -> dict[str, torch.Tensor]:
        """Read one reference and bring it to the working size.

        Args:
            reference: what `read_image` takes, or `{"image": ..., "mask": ..., "weight": ..., "region": ...}`.

        Returns:
            `rgb` (1, 3, h, w) in [0, 1], `mask` (1, 1, h, w) in [0, 1], `weight` float.
        """
        fields = reference if isinstance(reference, dict) else {"image": reference}
        extra = set(fields) - {"image", "mask", "weight", "region"}
        if extra or "image" not in fields:
            raise ValueError(
                f'A reference dict has the keys "image" and, optional, "mask", "weight" and "region"; got '
                f"{list(fields)}."
            )
        weight = read_weight(fields)
        rgb = read_image(fields["image"]).unsqueeze(0)
        height, width = rgb.shape[2:]
        mask = fields.get("mask")
        mask = torch.ones(1, 1, height, width) if mask is None else read_mask(mask, height, width).unsqueeze(0)
        size = self._working_size(height, width)
        if size != (height, width):
            rgb = F.interpolate(rgb, size=size, mode="bicubic", antialias=True).clamp(0, 1)
            mask = F.interpolate(mask, size=size, mode="area")
        if mask[:, :, ::2, ::2].sum() < 1:  # what the color view takes; the rest would be noise
            raise ValueError(
                f"A reference's mask selects too little to read: {mask.sum():.2g} pixels of the working size "
                f"{size[1]} x {size[0]}. Crop the picture around the mask first, or select more."
            )
        return {"rgb": rgb, "mask": mask, "weight": weight}

    def _working_size(self, height: int, width: int) -> tuple[int, int]:
        """Sides of the working picture: the area of `sample_size ** 2`, multiples of 8, at least one tile."""
        scale = self.config.sample_size / math.sqrt(height * width)
        sides = [max(8 * round(side * scale / 8), 8 * -(-TILE // 8)) for side in (height, width)]
        return sides[0], sides[1]

    # -- step 2: extract ----------------------------------------------------------------------------------------------
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
        views = {}
        for name in self.branches if granularities is None else granularities:
            if name == "color":
                views[name] = color_view(smooth, mask)
            elif name == "texture":
                view = texture_view(lab, smooth, mask)
                detail = view.pop("detail") * mask
                view["tiles"] = draw_tiles(detail, view["weight"], self.config.num_tiles, generator, mask)
                views[name] = view
            else:
                views[name] = shape_view(smooth, mask)
        return views

    def forward(self, views: dict[str, dict[str, torch.Tensor]]) -> dict[str, dict[str, torch.Tensor]]:
        """Views of a batch to features of that batch; see the class for names and shapes."""
        features = {}
        for name, view in views.items():
            if name == "texture":
                view = dict(view)
                tiles = view.pop("tiles")
                features[name] = {"vector": self.branches[name](**view), "tiles": tiles}
            elif name == "color":
                features[name] = {"vector": self.branches[name](**view), "palette": draw_palette(**view)}
            else:
                maps = self.branches[name](**view)
                vector = F.adaptive_avg_pool2d(maps[-1], 2).flatten(1)
                features[name] = {"vector": vector, **{f"map_{level}": m for level, m in enumerate(maps)}}
                features[name]["structure"] = view["structure"]
        return features

    # -- step 4: minimise the distance of features, at inference ------------------------------------------------------
    @torch.no_grad()
    def guidance_targets(self, features: dict[str, dict[str, torch.Tensor]], size: tuple[int, int]) -> dict[str, Any]:
        """What `feature_distances` compares pictures of `size` (height, width) with; made once for all steps.

        Args:
            features: from `encode`, of references without regions.
        """
        targets = {}
        for name, parts in features.items():
            if name == "color":
                targets[name] = quantiles(color_directions().to(parts["palette"]) @ parts["palette"].transpose(1, 2))
            elif name == "texture":
                responses = patch_responses(parts["tiles"].flatten(0, 1).unsqueeze(1))
                targets[name] = quantiles(responses.unflatten(0, parts["tiles"].shape[:2]).transpose(1, 2).flatten(2))
            else:
                structure = F.adaptive_avg_pool2d(parts["structure"], self._working_size(*size))
                targets[name] = structure_basis(structure)
        return targets

    def feature_distances(
        self, image: torch.Tensor, targets: dict[str, Any], mask: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """How far pictures are from features, by granularity: what feature guidance follows down, differentiable.

        Color: sliced Wasserstein distance to the palette (as SW-Guidance, Lobashev et al., arXiv 2503.19034). Texture:
        the same of small patches of luminance detail at equal contrast (as GPDM, Elnekave and Weiss, arXiv 2203.11862).
        Shape: the share of the color variance that the reference's structure map does not explain.

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

        def shares(weights: torch.Tensor) -> torch.Tensor:
            weights = weights.flatten(2) + 1e-8
            return weights / weights.sum(2, keepdim=True)

        found = {}
        if "color" in targets:
            colors = F.avg_pool2d(lab, 2).flatten(2)
            found["color"] = transport_cost(
                color_directions().to(colors) @ colors, targets["color"], shares(F.avg_pool2d(mask, 2))
            )
        if "texture" in targets:
            inside = F.avg_pool2d(mask, GUIDE_PATCH, stride=2)
            responses = patch_responses(limited_detail(lab[:, :1]), 2)
            found["texture"] = transport_cost(responses, targets["texture"], shares(inside))
        if "shape" in targets:
            found["shape"] = unexplained_share(lab, targets["shape"], shares(mask))
        return found

    @torch.no_grad()
    def encode(
        self, references: dict[str, Any], size: tuple[int, int], batch_size: int = 1
    ) -> dict[str, dict[str, torch.Tensor]]:
        """Features of references, ready for `MGAdapter`.

        Args:
            references: {granularity: reference, list of references, or list of such lists}. A reference is what
                `load` takes, or the path of a card (`save_card`). A list is averaged by weight and serves the whole
                batch; a list of `batch_size` lists gives each sample its own. A list of hex colors is one palette
                (color only). `None` leaves a granularity out. References with a "region" (`read_region`) count there;
                what regions leave goes to those without one.
            size: (height, width) of the shape map in encoder pixels, `MGAdapter.map_size(latent height, width)`.
            batch_size: number of samples the lists of lists must match.

        Returns:
            Features whose batch dimension is 1 (shared by all samples) or `batch_size`. With regions, a granularity has
            a list of them, each with its `region` (B, 1, *size); those of a place sum to at most 1.

        Raises:
            ValueError: for an unknown granularity, an unreadable reference, or a wrong number of lists or regions.
        """
        if not isinstance(references, dict):
            raise ValueError(
                f'References are given by granularity, for example {{"color": image}}; got {type(references).__name__}.'
            )
        features = {}
        for name, reference in references.items():
            if name not in self.branches:
                raise ValueError(f"Unknown granularity {name!r}; this encoder knows {tuple(self.branches)}.")
            if reference is None:
                continue
            rows = [self._encode_row(name, row, size) for row in self._rows(name, reference, batch_size)]
            kinds = {tuple("region" in parts for parts in row) for row in rows}
            if len(kinds) > 1:
                raise ValueError(
                    f"The {name} references of all samples of a batch need as many regions, got "
                    f"{sorted({len(row) if 'region' in row[0] else 0 for row in rows})}. Call one by one."
                )
            parts = [
                {key: torch.cat([part[key] for part in same]) for key in same[0]} for same in zip(*rows, strict=True)
            ]
            features[name] = parts if "region" in parts[0] else parts[0]
        return features

    @staticmethod
    def fill_smoothly(image: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
        """The picture (B, 3, H, W) with its hole (B, 1, H, W; 1 is unknown) filled from what surrounds it."""
        return grow_into(image, hole)

    @torch.no_grad()
    def encode_context(
        self, image: torch.Tensor, hole: torch.Tensor, names: Sequence[str], size: tuple[int, int]
    ) -> dict[str, dict[str, torch.Tensor]]:
        """Features of what surrounds a hole, so that what is painted into it goes on with its surroundings.

        Color and texture are those of the rest of the picture. Shape is that of the picture with the hole filled
        smoothly, with a `turn` (B, 3, 3) that keeps the colors of another palette where such colors are, see
        `MGAdapter.vary`. With color asked for as well, the filled picture itself is the `sketch` (B, 3, *size) in Lab
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
        given = {name: [[one] for one in filled] if name == "shape" else rest for name in names}
        features = self.encode(given, size, count)
        if "shape" in features:
            structure = features["shape"]["structure"]
            lab = rgb_to_lab(F.interpolate(filled, size=size, mode="bilinear", antialias=True, align_corners=False))
            if "color" in features:
                features["shape"]["sketch"] = lab.to(structure)
            weight = F.adaptive_avg_pool2d(known.float(), size)
            turn = nearest_turn(
                structure.flatten(2), lab.to(structure.device).flatten(2), weight.to(structure.device).flatten(2)
            )
            features["shape"]["turn"] = turn
        return features

    def _rows(self, name: str, reference: Any, batch_size: int) -> list[list[Any]]:
        """Normalise the accepted forms to one list of references per row of the features."""
        if not isinstance(reference, (list, tuple)) or is_palette(reference):
            return [[reference]]
        if len(reference) == 0:
            raise ValueError(f"The list of {name} references is empty. Leave the granularity out instead.")
        nested = [isinstance(entry, (list, tuple)) and not is_palette(entry) for entry in reference]
        if not any(nested):
            return [list(reference)]
        if not all(nested) or len(reference) != batch_size or not all(len(entry) for entry in reference):
            raise ValueError(
                f"{name} references given as a list of lists need one non-empty list for each of the {batch_size} "
                f"prompts, got {len(reference)} entries of which {sum(nested)} are lists."
            )
        return [list(entry) for entry in reference]

    def _encode_row(self, name: str, row: list[Any], size: tuple[int, int]) -> list[dict[str, torch.Tensor]]:
        """The average of what one sample has for the whole picture, or one entry for each of its regions."""
        given = [item.get("region") if isinstance(item, dict) else None for item in row]
        regions = [None if region is None else read_region(region, size) for region in given]
        encoded = [(self._encode_one(name, item, size, at), at) for item, at in zip(row, regions, strict=True)]
        rest = [one for one, region in encoded if region is None]
        if len(rest) == len(row):
            return [self._average(rest)]
        regional = [(*one, region) for one, region in encoded if region is not None]
        parts = [parts for parts, _, _ in regional]
        covered = sum(region for _, _, region in regional)
        # Where regions overlap they share the place out by weight.
        weighted = [weight * region for _, weight, region in regional]
        total = sum(weighted).clamp(min=1e-8)
        shares = [one / total * covered.clamp(max=1) for one in weighted]
        if rest:
            parts, shares = [*parts, self._average(rest)], [*shares, (1 - covered).clamp(min=0)]
        return [{**part, "region": share.to(self.device)} for part, share in zip(parts, shares, strict=True)]

    def _encode_one(
        self, name: str, reference: Any, size: tuple[int, int], region: torch.Tensor | None
    ) -> tuple[dict[str, torch.Tensor], float]:
        """Features of one reference, of shape laid into its region if it has one (`read_region`), and its weight."""
        fields = reference if isinstance(reference, dict) else {"image": reference}
        if is_card(fields.get("image")):
            kept, weight = self._of_card(name, fields), read_weight(fields)
        else:
            kept, weight = self._kept(name, reference)
        if name != "shape":
            return {key: value.to(self.device, self.dtype) for key, value in kept.items()}, weight
        # The shape is laid out over the picture to be made, or over its region there, whatever its aspect ratio.
        region = torch.ones(1, 1, *size) if region is None else region
        laid = {key: lay_into(value.to(self.device), region) for key, value in kept.items()}
        return self({name: {key: value.to(self.dtype) for key, value in laid.items()}})[name], weight

    def _kept(self, name: str, reference: Any) -> tuple[dict[str, torch.Tensor], float]:
        """What a card keeps of a reference, and its weight: features of color and texture, the view of shape."""
        fields = reference if isinstance(reference, dict) else {"image": reference}
        if is_palette(fields.get("image")):
            if name != "color":
                raise ValueError(f"Hex colors describe a palette: they serve as color references, not as {name}.")
            if fields.get("mask") is not None:
                raise ValueError("A palette takes a weight and a region, but no mask: it holds no picture to mask.")
            colors, weights = parse_palette(fields["image"])
            points = rgb_to_lab(colors.T.view(1, 3, -1, 1)).flatten(2).transpose(1, 2)
            view, weight = {"points": points, "weights": weights.unsqueeze(0)}, read_weight(fields)
        else:
            loaded = self.load(reference)
            view = self.views(loaded["rgb"].to(self.device), loaded["mask"].to(self.device), [name])[name]
            weight = loaded["weight"]
        if name == "shape":
            return view, weight
        return self({name: {key: value.to(self.device, self.dtype) for key, value in view.items()}})[name], weight

    # -- granularity cards --------------------------------------------------------------------------------------------
    @torch.no_grad()
    def save_card(self, path: str | os.PathLike, granularity: str, reference: Any) -> None:
        """Write a granularity card: what one granularity of a reference is to this encoder, without the picture.

        The path of a card serves wherever that of a picture does, and gives the same output (bit for bit where the
        encoder that reads it computes in the precision of the one that wrote it); so a list of cards is their average,
        `[{"image": "a.safetensors", "weight": 0.3}, {"image": "b.safetensors", "weight": 0.7}]` a mix.
        A color card holds 256 colors, a texture card shuffled tiles, a shape card edges and regions; each has a few
        to a few hundred KB.

        Args:
            path: ends in .safetensors. It is replaced in one step.
            reference: a picture, a dict {"image", "mask"} or, for color, a palette, as in `encode`; not a list of them.

        Raises:
            ValueError: for another ending, an unknown granularity, or a reference that cannot be read.
        """
        if not is_card(path):
            raise ValueError(f"A granularity card is a {CARD} file, got {os.fspath(path)!r}.")
        if granularity not in self.branches:
            raise ValueError(f"Unknown granularity {granularity!r}; this encoder knows {tuple(self.branches)}.")
        image = reference.get("image") if isinstance(reference, dict) else reference
        if is_card(image):
            raise ValueError(f"{os.fspath(image)!r} is a card already; copy the file.")
        if isinstance(reference, dict) and not {"weight", "region"}.isdisjoint(reference):
            raise ValueError("A card has no weight or region of its own. Give them where the card is used.")
        target = Path(os.path.realpath(path))
        if not target.parent.is_dir():
            raise ValueError(f"There is no folder {str(target.parent)!r} to write the card to.")
        kept, _ = self._kept(granularity, reference)
        metadata = {
            "format": CARD_FORMAT,
            "granularity": granularity,
            "encoder": self.fingerprint(granularity),
            "source": hash_of(reference),
        }
        part = target.with_name(f".{target.name}.part")
        try:
            save_file({key: value.cpu().contiguous() for key, value in kept.items()}, part, metadata)
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)

    def _of_card(self, name: str, fields: dict[str, Any]) -> dict[str, torch.Tensor]:
        """The tensors of the card that a reference names, if this encoder made it for this granularity."""
        path = os.fspath(fields["image"])
        extra = {key for key, value in fields.items() if value is not None} - {"image", "weight", "region"}
        if extra:
            raise ValueError(
                f"The card {path!r} takes a weight and a region, but no {sorted(extra)}: it holds no picture to mask."
            )
        metadata, tensors = read_card(path)
        if metadata["granularity"] != name:
            raise ValueError(
                f"{path!r} is a {metadata['granularity']} card; it cannot lend its {name}. Give it as "
                f"{metadata['granularity']}, or make a {name} card of its picture."
            )
        if metadata["encoder"] != self.fingerprint(name):
            raise ValueError(
                f"The card {path!r} was made by another encoder, whose numbers mean something else to this one. Make "
                f"it anew from its picture (SHA-256 {metadata['source'][:12]}...) with `mg-diffusion encode`."
            )
        return tensors

    def fingerprint(self, granularity: str) -> str:
        """SHA-256 of one branch: its configuration and its weights, as they are in bfloat16 (whatever they are in)."""
        config = {key: self.config[key] for key in ("sample_size", "num_tiles", "shape_backbone")}
        digest = hashlib.sha256(json.dumps([granularity, config], sort_keys=True).encode())
        for key, value in sorted(self.branches[granularity].state_dict().items()):
            digest.update(key.encode() + value.cpu().bfloat16().contiguous().view(torch.int16).numpy().tobytes())
        return digest.hexdigest()

    def _average(self, encoded: list[tuple[dict[str, torch.Tensor], float]]) -> dict[str, torch.Tensor]:
        """Weighted mean of the features of several references; texture tiles and colors are shared out by weight."""
        if len(encoded) == 1:
            return encoded[0][0]
        total = sum(weight for _, weight in encoded)
        merged = {}
        for key in encoded[0][0]:
            values, weights = [features[key] for features, _ in encoded], [weight / total for _, weight in encoded]
            if key in ("tiles", "palette"):
                merged[key] = share_out(values, weights)
            else:
                merged[key] = sum(value * weight for value, weight in zip(values, weights, strict=True))
        return merged
