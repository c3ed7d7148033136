"""Samples of stage base whose canvas and sketch are those of a larger picture, shrunk (`--layout_size`).

Under octaves that is what the base reads: laid at its own size, they would contradict what the octaves read. Photographs,
crossings by light and materials come laid out from `detail_pool`; all other samples lay their tiles themselves, so that
each gives one whole canvas. What is drawn for one sample stays a function of (seed, i).
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from mg_diffusion.adapter.quilting import lay_tiles
from mg_diffusion.encoder.views import rgb_to_lab

from .crossings import add_texture
from .detail_pool import Rows, build_rows, crossed_pairs
from .pictures import Pictures
from .samples import SampleStream
from .settings import Supervision
from .view_pool import ViewPool, compute_views


LAID_SHARE = {"photo": 0.6, "composite": 0.75}  # of a kind; the rest are as they are without a larger picture
MATERIAL_SHARE = 0.5  # of textures of crossings


@dataclass(eq=False, kw_only=True)
class LaidStream(SampleStream):
    """Sample `i` of a run.

    Args:
        rows: from `build_rows`, of the whole pictures of the pool, in its order.
        pairs: (M, 2), the photographs that crossings have color and shape of.
        canvas_gain: of a canvas that was shrunk, see `MGAdapter`.
        num_materials: how many pictures at the end of the pool are materials.
    """

    rows: dict[str, Rows]
    pairs: np.ndarray
    canvas_gain: float
    num_materials: int = 0

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = super().__getitem__(index)
        if sample["tiles"].shape[0] > 1:  # one that is as large as the canvas is laid as it is
            sample["tiles"] = lay_tiles(sample["tiles"][None], *self.pool.rgb.shape[2:])[0]
        return sample

    def _shrunk(self, maps: torch.Tensor) -> torch.Tensor:
        return F.adaptive_avg_pool2d(maps, self.pool.rgb.shape[2:])

    def _photo(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        if rng.random() >= LAID_SHARE["photo"]:
            return super()._photo(index, rng)
        item, flip = int(rng.integers(len(self.captions))), bool(rng.random() < 0.5)
        is_dropped = rng.random() < self.text_dropout
        texture = self._texture(item, self._is_flipped(rng), rng)
        image, sketch = (self._shrunk(self.rows["photo"](name, item).float() / 255) for name in ("rgb", "sketch"))
        canvas = self.canvas_gain * self._shrunk(self.rows["photo"]("quilt", item).float())
        turned = (lambda maps: maps.flip(-1)) if flip else (lambda maps: maps)
        return {
            "image": turned(image),
            "item": torch.tensor(item),
            "crossing": torch.tensor(-1),
            "is_flipped": torch.tensor(flip),
            "caption": "" if is_dropped else self.captions[item],
            "turn": self._turn(item),
            **self._color(item),
            **texture,
            **self._shape(item, flip),
            **self._laid(turned(canvas), turned(sketch)),
        }

    def _crossed(self, kind: str, rng: np.random.Generator) -> dict[str, Any]:
        if kind != "composite" or rng.random() >= LAID_SHARE[kind]:
            return super()._crossed(kind, rng)
        entry, flip = int(rng.integers(len(self.pairs))), bool(rng.random() < 0.5)
        color, shape = map(int, self.pairs[entry])
        texture, canvas = self._material(rng) if rng.random() < self._material_share else self._own_texture(rng)
        image = add_texture(self.rows["crossed"]("crossed", entry).float(), canvas)
        sketch = self.rows["crossed"]("crossed_sketch", entry).float() / 255
        maps = [self._shrunk(one) for one in (image, self.canvas_gain * canvas, sketch)]
        image, canvas, sketch = (one.flip(-1) for one in maps) if flip else maps
        return {
            "image": image,
            "item": torch.tensor(-1),
            "crossing": torch.tensor(-1),
            "is_flipped": torch.tensor(flip),
            "caption": "",
            "turn": self._turn(shape),
            **self._color(color),
            **texture,
            **self._shape(shape, flip),
            **self._laid(canvas, sketch),
        }

    @property
    def _material_share(self) -> float:
        return MATERIAL_SHARE if self.num_materials else 0.0

    def _material(self, rng: np.random.Generator) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Views of a material, and its canvas at the larger size."""
        item, first = int(rng.integers(self.num_materials)), len(self.pool) - self.num_materials
        return self._texture(first + item, False, rng), self.rows["material"]("canvas", item).float()

    def _own_texture(self, rng: np.random.Generator) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """The same of a photograph."""
        item = int(rng.integers(len(self.captions)))
        return self._texture(item, False, rng), self.rows["photo"]("quilt", item).float()

    def _laid(self, canvas: torch.Tensor, sketch: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"tiles": canvas, "sketch": rgb_to_lab(sketch[None])[0], "has_sketch": torch.tensor(True)}


def build_laid_samples(
    pictures: Pictures,
    materials: torch.Tensor | None,
    samples: SampleStream,
    canvas_gain: float,
    num_crossings: int,
    supervision: Supervision,
) -> LaidStream:
    """The samples of a run, with layouts of a larger size.

    Args:
        pictures: at the size of layouts; materials: (M, 3, s, s) uint8.
        samples: of the same pictures at the size of the base.
    """
    count, cache, pool = len(pictures), supervision.cache_dir, samples.pool
    share = num_crossings / count
    rows = build_rows(pictures.whole, materials, share, supervision.seed, cache)
    if materials is not None:
        side = pool.rgb.shape[2]
        small = Pictures(materials, materials, [""] * len(materials)).resize(side).whole
        views, _ = compute_views(small)
        pool = ViewPool(**{name: torch.cat([value, getattr(views, name)]) for name, value in vars(pool).items()})
    own = vars(replace(samples, pool=pool))
    num_materials = 0 if materials is None else len(materials)
    return LaidStream(
        **own,
        rows=rows,
        pairs=crossed_pairs(count, share, supervision.seed),
        canvas_gain=canvas_gain,
        num_materials=num_materials,
    )
