"""What one training sample is: a picture, its references' views, and what of them is dropped.

Three kinds of samples supervise separate control:

- *photo*: the references are the picture itself or another part of it. Each view has already destroyed what the other
  granularities could learn from it.
- *composite*: the exact triple of three photographs (`crossings`).
- *rendered*: the exact triple of three procedural pictures (`renderer`), with any texture.

Sample `i` of a run is a function of (seed, i) alone, so that a resumed run sees exactly what it would have seen.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import Dataset

from mg_diffusion.adapter.quilting import lay_tiles
from mg_diffusion.encoder.filling import grow_into
from mg_diffusion.encoder.shape import shape_view
from mg_diffusion.encoder.structure import nearest_turn
from mg_diffusion.encoder.texture import draw_tiles, texture_view
from mg_diffusion.encoder.views import edge_preserving_smooth, rgb_to_lab

from .caching import picture_fingerprint
from .crossings import Crossings, add_texture
from .dropout import random_mask, random_presence
from .pictures import Pictures
from .settings import Supervision
from .view_pool import ViewPool, build_pool


KINDS = ("photo", "composite", "rendered")
CONTEXT_SHARE = 0.8  # of edits without references; the others teach the base model, which guidance starts from


@dataclass(eq=False)
class SampleStream(Dataset):
    """Sample `i` of a run.

    Args:
        pool, crossings: from `build_pool`, at the encoder's size.
        shares: the probability of each kind, "photo" taking the rest.
        images: (2N, 3, R, R) uint8, the pool's photographs at the resolution of a base that is larger. Crossed pictures
            are enlarged to it.
        is_inpainting: whether the UNet reads a mask; if not, everything is repainted.
        is_repeated: whether a crossing always comes under the same texture and the same way round, so that its latents may
            be cached.
    """

    pool: ViewPool
    crossings: dict[str, Crossings]
    captions: list[str]
    length: int
    seed: int
    shares: dict[str, float]
    num_tiles: int
    text_dropout: float = 0.3
    augment: bool = True
    images: torch.Tensor | None = None
    is_inpainting: bool = True
    is_repeated: bool = False

    @property
    def fingerprint(self) -> str:
        return picture_fingerprint(self.pool.rgb[: 2 * len(self.captions)], self.captions)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = np.random.default_rng([self.seed, index])
        draw = rng.random()
        kind = "photo"
        if draw < self.shares["composite"]:
            kind = "composite"
        elif draw < self.shares["composite"] + self.shares["rendered"]:
            kind = "rendered"
        sample = self._photo(index, rng) if kind == "photo" else self._crossed(kind, rng)
        present = random_presence(rng, kind) if self.augment else np.ones(3, bool)
        sample["present"] = torch.from_numpy(present)
        # What is learned without any reference is to go on with what lies around a hole.
        mask = random_mask(rng, self.pool.rgb.shape[2], whole=0.5 if present.any() else 0.2)
        sample["mask"] = mask if self.is_inpainting else torch.ones_like(mask)
        sample = {"sketch": torch.zeros_like(sample["image"]), "has_sketch": torch.tensor(False), **sample}
        if not present.any() and sample["mask"].mean() < 0.95 and rng.random() < CONTEXT_SHARE:
            sample |= self._context(sample["image"], sample["mask"], rng)
        if self.images is not None:
            sample |= self._enlarged(sample, kind)
        if kind != "photo":
            # Around the hole of an edit lies another picture, and the references rule all the same.
            other = self._picture(int(rng.integers(len(self.captions))))
            sample["image"] = torch.where(sample["mask"] > 0, sample["image"], other)
            if not sample["mask"].all():
                sample["crossing"] = torch.tensor(-1)
        sample["image"] = sample["image"] * 2 - 1
        return sample

    def _picture(self, item: int, flip: bool = False) -> torch.Tensor:
        """A photograph of the pool, (3, R, R) in [0, 1]."""
        picture = (self.pool.rgb if self.images is None else self.images)[item].float() / 255
        return picture.flip(-1) if flip else picture

    def _enlarged(self, sample: dict[str, Any], kind: str) -> dict[str, torch.Tensor]:
        """Picture and mask at the resolution of `images`."""
        size = self.images.shape[2:]
        if kind == "photo":
            image = self._picture(int(sample["item"]), bool(sample["is_flipped"]))
        else:
            image = F.interpolate(sample["image"][None], size=size, mode="bicubic", align_corners=False)[0].clamp(0, 1)
        return {"image": image, "mask": F.interpolate(sample["mask"][None], size=size)[0]}

    def _photo(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """A photograph; color and texture come from the picture itself or its other part, shape from itself."""
        count = len(self.captions)
        picture = int(rng.integers(count))
        part = int(rng.integers(2)) if self.augment else 0
        this = picture + part * count
        other = [picture + int(rng.integers(2)) * count for _ in range(2)] if self.augment else [this, this]
        flip = self.augment and rng.random() < 0.5
        is_dropped = self.augment and rng.random() < self.text_dropout
        caption = "" if is_dropped else self.captions[picture]
        image = self.pool.rgb[this].float() / 255
        return {
            "image": image.flip(-1) if flip else image,
            "item": torch.tensor(this),
            "crossing": torch.tensor(-1),
            "is_flipped": torch.tensor(flip),
            "caption": caption,
            "turn": self._turn(this),
            **self._color(other[0]),
            **self._texture(other[1], self._is_flipped(rng), rng),
            **self._shape(this, flip),
        }

    def _crossed(self, kind: str, rng: np.random.Generator) -> dict[str, Any]:
        """An exact triple: a crossing (color x shape) under the texture of any picture of the pool."""
        crossings = self.crossings[kind]
        entry = int(rng.integers(len(crossings)))
        if self.is_repeated:
            rng = np.random.default_rng([12, self.seed, KINDS.index(kind), entry])
        base, flip = crossings.lab[entry].float(), self.augment and rng.random() < 0.5
        texture = self._texture(int(rng.integers(len(self.pool))), self._is_flipped(rng), rng)
        canvas = lay_tiles(texture["tiles"].unsqueeze(0), *base.shape[1:])[0]
        return {
            "image": add_texture(base.flip(-1) if flip else base, canvas),
            "item": torch.tensor(-1),  # no photograph
            # A number of its own, if the picture is always the same.
            "crossing": torch.tensor(entry * len(KINDS) + KINDS.index(kind) if self.is_repeated else -1),
            "is_flipped": torch.tensor(flip),
            "caption": "",
            "turn": crossings.turn[entry],
            **self._color(int(crossings.color[entry])),
            **texture,
            **self._shape(int(crossings.shape[entry]), flip),
        }

    def _context(self, image: torch.Tensor, hole: torch.Tensor, rng: np.random.Generator) -> dict[str, Any]:
        """What surrounds a hole, as `MGEncoder.encode_context` gives it to edits without references."""
        known = 1 - hole.unsqueeze(0)
        lab = rgb_to_lab(grow_into(image.unsqueeze(0), hole.unsqueeze(0)))
        smooth = edge_preserving_smooth(lab)
        maps = {**texture_view(lab, smooth, known), **shape_view(smooth, torch.ones_like(known))}
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        maps["tiles"] = draw_tiles(maps.pop("detail") * known, maps["weight"], self.num_tiles, generator, known)
        weights = known[0, 0, 1::4, 1::4].flatten() + 1e-8
        return {
            **{name: value[0] for name, value in maps.items()},
            "points": smooth[0, :, 1::4, 1::4].flatten(1).T,
            "color_weights": weights / weights.sum(),
            "sketch": lab[0],
            "has_sketch": torch.tensor(True),
            "present": torch.ones(3, dtype=torch.bool),
        }

    def _turn(self, item: int) -> torch.Tensor:
        """The assignment of colors (3, 3) that a photograph has itself."""
        structure = self.pool.structure[item, None, :, 1::4, 1::4].flatten(2)
        return nearest_turn(structure, self.pool.points[item, None].transpose(1, 2))[0]

    def _color(self, item: int) -> dict[str, torch.Tensor]:
        points = self.pool.points[item].float()
        return {"points": points, "color_weights": torch.full((len(points),), 1 / len(points))}

    def _is_flipped(self, rng: np.random.Generator) -> bool:
        return self.augment and rng.random() < 0.5

    def _texture(self, item: int, flip: bool, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        maps = self._maps(item, flip, "normalized", "weight", "detail")
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        detail, weight = maps.pop("detail").unsqueeze(0), maps["weight"].unsqueeze(0)
        tiles = draw_tiles(detail, weight, self.num_tiles, generator)[0]
        return {**maps, "contrast": self.pool.contrast[item].float(), "tiles": tiles}

    def _shape(self, item: int, flip: bool) -> dict[str, torch.Tensor]:
        return self._maps(item, flip, "edges", "structure")

    def _maps(self, item: int, flip: bool, *names: str) -> dict[str, torch.Tensor]:
        maps = {name: getattr(self.pool, name)[item].float() for name in names}
        return {name: value.flip(-1) if flip else value for name, value in maps.items()}


def build_samples(
    pictures: Pictures,
    length: int,
    supervision: Supervision,
    num_tiles: int,
    view_size: int | None = None,
    is_window: bool = False,
    **options: Any,
) -> SampleStream:
    """`length` samples of pictures.

    Args:
        view_size: side of the pictures that the encoder sees, if not that of the pictures.
        is_window: see `build_pool`.
        options: of `SampleStream`.
    """
    small = pictures if view_size is None else pictures.resize(view_size)
    images = None if small is pictures else torch.cat([pictures.whole, pictures.crop])
    made, seed, augment = (supervision.num_crossings, supervision.num_rendered), supervision.seed, supervision.augment
    pool, crossings = build_pool(small, *made, seed, supervision.cache_dir, is_window=is_window)
    options |= {"num_tiles": num_tiles, "augment": augment, "images": images}
    return SampleStream(pool, crossings, pictures.captions, length, seed, supervision.shares, **options)


def views_of(batch: dict[str, Any]) -> dict[str, dict[str, torch.Tensor]]:
    """The batch's views in the form `MGEncoder.forward` takes."""
    return {
        "color": {"points": batch["points"], "weights": batch["color_weights"]},
        "texture": {name: batch[name] for name in ("normalized", "weight", "contrast", "tiles")},
        "shape": {name: batch[name] for name in ("edges", "structure")},
    }
