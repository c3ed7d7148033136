"""What one training sample is: a picture, its references' views, and what of them is dropped.

Three kinds of samples supervise separate control:

- *photo*: the references are the picture itself or another part of it. Each view has already destroyed what the other
  granularities could learn from it.
- *composite*: the exact triple of three photographs (`composer`).
- *rendered*: the exact triple of three procedural pictures (`renderer`), with any texture.

Sample `i` of a run is a function of (seed, i) alone, so that a resumed run sees exactly what it would have seen.
"""

import json
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import Dataset
from tqdm import tqdm

from mg_diffusion.modeling_mg_adapter import MGAdapter, lay_palette, lay_tiles, random_turns, turn_colors
from mg_diffusion.modeling_mg_encoder import (
    MGEncoder,
    draw_tiles,
    edge_preserving_smooth,
    grow_into,
    nearest_turn,
    rgb_to_lab,
    shape_view,
    texture_view,
)

from . import composer, renderer
from .caching import Tensors, cached
from .composer import add_texture, flatten_regions
from .fingerprints import code_fingerprint, picture_fingerprint
from .pictures import Pictures
from .renderer import halve, render, render_palette, render_regions


GRANULARITIES = ("color", "texture", "shape")
KINDS = ("photo", "composite", "rendered")
CONTEXT_SHARE = 0.8  # of edits without references; the others teach the base model, which guidance starts from


@dataclass
class ViewPool:
    """Views of N pictures, half precision: computed once, because they are fixed.

    rgb (N, 3, S, S) uint8; points (N, 256, 3); normalized, weight, detail, edges (N, 1, S, S); structure (N, 3, S, S);
    contrast (N, 1).
    """

    rgb: torch.Tensor
    points: torch.Tensor
    normalized: torch.Tensor
    weight: torch.Tensor
    detail: torch.Tensor
    edges: torch.Tensor
    structure: torch.Tensor
    contrast: torch.Tensor

    def __len__(self) -> int:
        return len(self.rgb)


def compute_views(rgb: torch.Tensor, batch_size: int = 64) -> tuple[ViewPool, torch.Tensor]:
    """Views of pictures (N, 3, S, S) uint8, and their smoothed Lab pictures (N, 3, S, S) half."""
    parts: dict[str, list[torch.Tensor]] = {}
    for start in tqdm(range(0, len(rgb), batch_size), desc="views", mininterval=5):
        lab = rgb_to_lab(rgb[start : start + batch_size].float() / 255)
        smooth = edge_preserving_smooth(lab)
        mask = torch.ones_like(lab[:, :1])
        views = {**texture_view(lab, smooth, mask), **shape_view(smooth, mask), "smooth": smooth}
        views["points"] = smooth[:, :, 1::4, 1::4].flatten(2).transpose(1, 2)
        for name, value in views.items():
            parts.setdefault(name, []).append(value.half())
    joined = {name: torch.cat(values) for name, values in parts.items()}
    smooth = joined.pop("smooth")
    return ViewPool(rgb=rgb, **joined), smooth


@dataclass
class Bases:
    """Crossed pictures before their texture.

    lab (M, 3, S, S) half; color, shape (M,) pool indices of the references; turn (M, 3, 3), which of all assignments
    of colors to regions was drawn, see `MGAdapter.vary`.
    """

    lab: torch.Tensor
    color: torch.Tensor
    shape: torch.Tensor
    turn: torch.Tensor

    def __len__(self) -> int:
        return len(self.color)


def cross_photos(
    smooth: torch.Tensor, structure: torch.Tensor, count: int, seed: int, is_turned: bool = True
) -> Bases:
    """`count` random pairs: the regions of one picture in the colors of another.

    Args:
        smooth: (N, 3, S, S) Lab; structure: (N, 3, S, S).
        is_turned: whether the assignment of colors is drawn, or always the one of an unturned structure map.
    """
    color, shape = np.random.default_rng([6, seed]).integers(0, len(smooth), (2, count))
    turn = draw_turns(count, seed, is_turned)
    bases = []
    for start in tqdm(range(0, count, 64), desc="crossing", mininterval=5):
        c, s = color[start : start + 64], shape[start : start + 64]
        turned = turn_colors(structure[s].float(), turn[start : start + 64])
        painted = lay_palette(turned, smooth[c].flatten(2).transpose(1, 2))
        bases.append(flatten_regions(painted).half())
    return Bases(torch.cat(bases), torch.from_numpy(color), torch.from_numpy(shape), turn)


def draw_turns(count: int, seed: int, is_turned: bool) -> torch.Tensor:
    """`count` assignments of colors to regions, (count, 3, 3)."""
    if not is_turned:
        return torch.eye(3).repeat(count, 1, 1)
    noise = np.random.default_rng([10, seed]).standard_normal((count, 3, 3)).astype(np.float32)
    return random_turns(torch.from_numpy(noise))


def render_pictures(count: int, size: int, seed: int) -> tuple[np.ndarray, torch.Tensor]:
    """Factor seeds (count, 3) of color, texture, shape and the pictures (count, 3, S, S) uint8 they make.

    Seeds are below 1e9; the benchmark draws its unseen factors from above.
    """
    rng = np.random.default_rng([7, seed])
    seeds = rng.integers(0, 10**9, (count, 3))
    pictures = [render(c, t, s, size=size, amplitude=rng.uniform(4, 14)) for c, t, s in tqdm(seeds, desc="rendering")]
    rgb = (np.stack(pictures) * 255).round().astype(np.uint8)
    return seeds, torch.from_numpy(rgb).permute(0, 3, 1, 2).contiguous()


def cross_rendered(
    seeds: np.ndarray, structure: torch.Tensor, points: torch.Tensor, seed: int, is_turned: bool = True
) -> Bases:
    """As many crossings of palettes and regions as there are rendered pictures.

    Args:
        seeds: (M, 3); structure: (M, 3, S, S); points: (M, N, 3).
    """
    color, shape = np.random.default_rng([8, seed]).integers(0, len(seeds), (2, len(seeds)))
    size, turn = structure.shape[2], draw_turns(len(seeds), seed, is_turned)
    labs = []
    for entry, (c, s) in enumerate(zip(color, shape, strict=True)):
        # Only the colors that the color reference shows; a shape of more regions repeats them.
        palette = render_palette(seeds[c, 0])[np.unique(render_regions(seeds[c, 2], 2 * size))]
        regions = render_regions(seeds[s, 2], 2 * size)
        turned = turn_colors(structure[s, None].float(), turn[entry, None])
        sketch = lay_palette(turned, points[c, None])[0].permute(1, 2, 0).numpy()
        labs.append(halve(assign_colors(palette, regions, sketch)[regions]).transpose(2, 0, 1))
    return Bases(torch.from_numpy(np.stack(labs)).half(), torch.from_numpy(color), torch.from_numpy(shape), turn)


def assign_colors(palette: np.ndarray, regions: np.ndarray, sketch: np.ndarray) -> np.ndarray:
    """The color of each region, (4, 3): the assignment nearest to a sketch, so that references predict it.

    Args:
        palette: (K, 3) Lab; regions: (2S, 2S) of 0..3; sketch: (S, S, 3) Lab.
    """
    shown, places = np.unique(regions[::2, ::2], return_inverse=True)
    area = np.bincount(places.ravel())
    means = np.stack([np.bincount(places.ravel(), sketch[..., i].ravel()) / area for i in range(3)], 1)
    choices = np.resize(np.arange(len(palette)), max(len(palette), len(shown)))
    cost = np.linalg.norm(means[:, None] - palette[choices], axis=2) * area[:, None]
    best = min(permutations(range(len(choices)), len(shown)), key=lambda p: cost[range(len(shown)), p].sum())
    colors = np.resize(palette, (4, 3))  # a region too thin to be seen at half the size has any
    colors[shown] = palette[choices[list(best)]]
    return colors


def build_pool(
    pictures: Pictures,
    crossings: int,
    rendered: int,
    seed: int,
    cache_dir: str | None = None,
    is_turned: bool = True,
    is_passing: bool = False,
) -> tuple[ViewPool, dict[str, Bases]]:
    """Views and bases for training; pool order is whole pictures, their crops, rendered pictures.

    A kind of which there are none has no bases.
    With `cache_dir` the result is stored under a fingerprint of the pictures, the settings and the code, and found again.

    Args:
        is_passing: whether the pictures are a window of a stream; then only what is rendered is stored.
    """
    size, offset, bases = pictures.whole.shape[2], 2 * len(pictures), {}
    settings = [
        code_fingerprint(build_pool, composer, renderer, MGAdapter, MGEncoder),
        json.dumps([size, seed, is_turned]),
    ]
    folder = None if is_passing else cache_dir
    # What is not kept needs no name.
    identity = (
        [*settings, str(crossings), *map(picture_fingerprint, (pictures.whole, pictures.crop))] if folder else []
    )
    kept = cached(
        folder,
        "pool",
        identity,
        lambda: _cross_pictures(pictures, crossings, seed, is_turned),
    )
    pool, crossed = _unpack(kept)
    if crossed is not None:
        bases["composite"] = crossed
    if rendered:
        kept = cached(
            cache_dir, "rendered", [*settings, str(rendered)], lambda: _cross_rendered(rendered, size, seed, is_turned)
        )
        drawn, crossed = _unpack(kept)
        pool = ViewPool(**{name: torch.cat([value, getattr(drawn, name)]) for name, value in vars(pool).items()})
        bases["rendered"] = replace(crossed, color=crossed.color + offset, shape=crossed.shape + offset)
    return pool, bases


def _cross_pictures(pictures: Pictures, crossings: int, seed: int, is_turned: bool) -> Tensors:
    pool, smooth = compute_views(torch.cat([pictures.whole, pictures.crop]))
    bases = cross_photos(smooth, pool.structure, crossings, seed, is_turned) if crossings else None
    return _pack(pool, bases)


def _cross_rendered(count: int, size: int, seed: int, is_turned: bool) -> Tensors:
    seeds, drawn = render_pictures(count, size, seed)
    pool, _ = compute_views(drawn)
    return _pack(pool, cross_rendered(seeds, pool.structure, pool.points, seed, is_turned))


def _pack(pool: ViewPool, bases: Bases | None) -> Tensors:
    crossed = {} if bases is None else {f"bases.{name}": value for name, value in vars(bases).items()}
    return {**{f"pool.{name}": value for name, value in vars(pool).items()}, **crossed}


def _unpack(tensors: Tensors) -> tuple[ViewPool, Bases | None]:
    pool, bases = (
        {name.removeprefix(f"{part}."): value for name, value in tensors.items() if name.startswith(f"{part}.")}
        for part in ("pool", "bases")
    )
    return ViewPool(**pool), Bases(**bases) if bases else None


def random_mask(rng: np.random.Generator, size: int, whole: float) -> torch.Tensor:
    """A region to repaint, (1, S, S) of 0 and 1: everything (with probability `whole`), a box, or rendered figures."""
    if rng.random() < whole:
        return torch.ones(1, size, size)
    mask = np.zeros((size, size), np.float32)
    if rng.random() < 0.5:
        height, width = rng.integers(size // 5, size, 2)
        top, left = rng.integers(0, size - height + 1), rng.integers(0, size - width + 1)
        mask[top : top + height, left : left + width] = 1
    else:
        mask[render_regions(int(rng.integers(10**9)), size) > 0] = 1
    return torch.from_numpy(mask if mask.any() else np.ones_like(mask)).unsqueeze(0)


def random_presence(rng: np.random.Generator, kind: str) -> np.ndarray:
    """Condition dropout: which granularities a sample keeps, (3,) bool.

    Each is dropped on its own, so that every subset is seen. Crossed pictures always keep at least one: without any
    reference the model should paint photographs. These lose more: their own colors are seldom those of the sketch.
    """
    if kind == "photo" and rng.random() < 0.4:
        return np.zeros(3, bool)
    if rng.random() < 0.2:
        return np.arange(3) == rng.integers(3)
    keep = rng.random(3) > (0.35 if kind == "photo" else 0.08)
    return keep if keep.any() or kind == "photo" else np.ones(3, bool)


class SampleStream(Dataset):
    """Sample `i` of a run.

    Args:
        pool, bases: from `build_pool`, at the encoder's size.
        shares: the probability of each kind, "photo" taking the rest.
        images: (2N, 3, R, R) uint8, the pool's photographs at the resolution of a base that is larger. Crossed pictures
            are enlarged to it.
        is_inpainting: whether the UNet reads a mask; if not, everything is repainted.
        is_settled: whether a crossing always comes under the same texture and the same way round, so that its latents may
            be kept.
    """

    def __init__(
        self,
        pool: ViewPool,
        bases: dict[str, Bases],
        captions: list[str],
        length: int,
        seed: int,
        shares: dict[str, float],
        num_tiles: int,
        text_dropout: float = 0.3,
        augment: bool = True,
        images: torch.Tensor | None = None,
        is_inpainting: bool = True,
        is_settled: bool = False,
    ):
        self.pool, self.bases, self.captions = pool, bases, captions
        self.length, self.seed, self.shares = length, seed, shares
        self.text_dropout, self.num_tiles, self.augment = text_dropout, num_tiles, augment
        self.images, self.is_inpainting, self.is_settled = images, is_inpainting, is_settled

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
        keep = random_presence(rng, kind) if self.augment else np.ones(3, bool)
        sample["present"] = torch.from_numpy(keep)
        # What is learned without any reference is to go on with what lies around a hole.
        sample["mask"] = random_mask(rng, self.pool.rgb.shape[2], whole=0.5 if keep.any() else 0.2)
        if not self.is_inpainting:
            sample["mask"] = torch.ones_like(sample["mask"])
        sample["sketch"], sample["has_sketch"] = torch.zeros_like(sample["image"]), torch.tensor(False)
        if not keep.any() and sample["mask"].mean() < 0.95 and rng.random() < CONTEXT_SHARE:
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
        structure = self.pool.structure[this, None, :, 1::4, 1::4].flatten(2)
        image = self.pool.rgb[this].float() / 255
        return {
            "image": image.flip(-1) if flip else image,
            "item": torch.tensor(this),
            "crossing": torch.tensor(-1),
            "is_flipped": torch.tensor(flip),
            "caption": caption,
            "turn": nearest_turn(structure, self.pool.points[this, None].transpose(1, 2))[0],
            **self._color(other[0]),
            **self._texture(other[1], self._is_flipped(rng), rng),
            **self._shape(this, flip),
        }

    def _crossed(self, kind: str, rng: np.random.Generator) -> dict[str, Any]:
        """An exact triple: a base (color x shape) under the texture of any picture of the pool."""
        bases = self.bases[kind]
        entry = int(rng.integers(len(bases)))
        if self.is_settled:
            rng = np.random.default_rng([12, self.seed, KINDS.index(kind), entry])
        base, flip = bases.lab[entry].float(), self.augment and rng.random() < 0.5
        texture = self._texture(int(rng.integers(len(self.pool))), self._is_flipped(rng), rng)
        canvas = lay_tiles(texture["tiles"].unsqueeze(0), *base.shape[1:])[0]
        return {
            "image": add_texture(base.flip(-1) if flip else base, canvas),
            "item": torch.tensor(-1),  # no photograph
            # A number of its own, if the picture is always the same.
            "crossing": torch.tensor(entry * len(KINDS) + KINDS.index(kind) if self.is_settled else -1),
            "is_flipped": torch.tensor(flip),
            "caption": "",
            "turn": bases.turn[entry],
            **self._color(int(bases.color[entry])),
            **texture,
            **self._shape(int(bases.shape[entry]), flip),
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

    def _color(self, item: int) -> dict[str, torch.Tensor]:
        points = self.pool.points[item].float()
        return {"points": points, "color_weights": torch.full((len(points),), 1 / len(points))}

    def _is_flipped(self, rng: np.random.Generator) -> bool:
        return self.augment and rng.random() < 0.5

    def _texture(self, item: int, flip: bool, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        maps = {name: getattr(self.pool, name)[item].float() for name in ("normalized", "weight", "detail")}
        if flip:
            maps = {name: value.flip(-1) for name, value in maps.items()}
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        detail, weight = maps.pop("detail").unsqueeze(0), maps["weight"].unsqueeze(0)
        tiles = draw_tiles(detail, weight, self.num_tiles, generator)[0]
        return {**maps, "contrast": self.pool.contrast[item].float(), "tiles": tiles}

    def _shape(self, item: int, flip: bool) -> dict[str, torch.Tensor]:
        maps = {name: getattr(self.pool, name)[item].float() for name in ("edges", "structure")}
        return {name: value.flip(-1) if flip else value for name, value in maps.items()}


def views_of(batch: dict[str, Any]) -> dict[str, dict[str, torch.Tensor]]:
    """The batch's views in the form `MGEncoder.forward` takes."""
    return {
        "color": {"points": batch["points"], "weights": batch["color_weights"]},
        "texture": {name: batch[name] for name in ("normalized", "weight", "contrast", "tiles")},
        "shape": {name: batch[name] for name in ("edges", "structure")},
    }
