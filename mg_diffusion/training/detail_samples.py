"""What one sample of the detail network is: a crop, the smaller picture with its faults, and what is told about both.

- *photo*: a photograph, its own texture the canvas: in place, so that a canvas is followed, or sometimes shuffled.
- *covered*: a photograph under another texture; colors and shading stay.
- *crossed*: the colors of one photograph in the regions of another, by light, under any texture.
- *restored*: a photograph with noise, blur or the blocks of JPEG (`mg_diffusion.restoring`), or half as large, and nothing
  else told; it is to come back in one evaluation.

*Covered* and *crossed* are made of exactly the canvas that is told. What a strength leaves out of it is the picture's own texture,
so that pictures grow natural towards strength 0, where nothing is told. Sample `i` of a run is a function of (seed, i).
"""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F
from torch.utils.data import Dataset

from mg_diffusion.encoder.views import DETAIL_UNIT, gaussian_blur, rgb_to_lab
from mg_diffusion.restoring import FAULTY

from .caching import picture_fingerprint
from .crossings import lab_to_rgb
from .detail_pool import Rows
from .dropout import random_mask


SHARES = {"photo": 0.12, "covered": 0.07, "crossed": 0.06, "restored": 0.75}
QUILTED_SHARE = 0.12  # of photographs, whose canvas is then out of phase with them
MATERIAL_SHARE = 0.7  # of other textures; the rest are those of photographs
ABSENT_SHARE = {"canvas": 0.2, "sketch": 0.18}  # of photographs, of all
WEAKENED_SHARE = 0.15
HOLE_SHARE = 0.2
FAULTLESS_SHARE = 0.2  # of smaller pictures
LARGEST_LEVEL = 0.5  # deviation of their noise
FULL_FAULTS = 0.15  # the level from which they have all other faults too
ENLARGED_SHARE = 0.25  # of what is restored; the rest has its size, and faults
LARGEST_BLUR = 1.5  # deviation in pixels


@dataclass
class Layers:
    """What a picture is made of: lightness of `plain` (3, s, s) Lab, of its `own` texture and of a canvas (1, s, s).

    `told` is the canvas that is told, in place of the one that the picture has.
    """

    plain: torch.Tensor
    own: torch.Tensor
    canvas: torch.Tensor
    told: torch.Tensor
    sketch: torch.Tensor

    def picture(self, strength: torch.Tensor) -> torch.Tensor:
        """(3, s, s) in [-1, 1], the canvas at `strength` (1, s, s)."""
        lab = self.plain.clone()
        lab[0] += DETAIL_UNIT * ((1 - strength).clamp(min=0) * self.own + strength * self.canvas)[0]
        return lab_to_rgb(lab) * 2 - 1


class DetailSamples(Dataset):
    """Sample `i` of a run.

    Args:
        rows: from `build_rows`.
        crop_size: side in pixels of the pictures that are learned; half of them come from pictures shrunk by 2.
    """

    def __init__(self, rows: dict[str, Rows], crop_size: int, length: int, seed: int):
        self.rows, self.crop_size, self.length, self.seed = rows, crop_size, length, seed

    @property
    def fingerprint(self) -> str:
        photo = self.rows["photo"]
        return picture_fingerprint(torch.stack([photo("rgb", item)[:, ::8, ::8] for item in range(len(photo))]))

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = np.random.default_rng([self.seed, index])
        kind = str(rng.choice(list(SHARES), p=list(SHARES.values())))
        factor, cells = int(rng.integers(1, 3)), self.crop_size // 2
        if kind == "restored":
            return self._restored(rng, factor)
        layers = getattr(self, f"_{kind}")(rng, self.crop_size * factor)
        scale = _strengths(rng, cells, ABSENT_SHARE["canvas"] if kind == "photo" else 0, 0.3, 1.3)
        sketch_scale = _strengths(rng, cells, ABSENT_SHARE["sketch"], 0, 1)
        weakened = F.interpolate(scale[None], scale_factor=2.0 * factor)[0]
        sketch = self._doubted(rng, layers.sketch, F.interpolate(sketch_scale[None], scale_factor=2.0 * factor)[0])
        picture, plain = layers.picture(weakened), layers.picture(torch.zeros_like(weakened))
        if kind != "photo":  # what lacks its texture lacks all of it
            plain = lab_to_rgb(layers.plain) * 2 - 1
        maps = [F.avg_pool2d(one, factor) if factor > 1 else one for one in (picture, plain, layers.told, sketch)]
        hole = torch.ones(1, cells, cells) if rng.random() > HOLE_SHARE else random_mask(rng, cells, whole=0)
        level = 0.0 if rng.random() < FAULTLESS_SHARE else LARGEST_LEVEL * rng.random() ** 1.5
        smaller = faulty(rng, *(F.avg_pool2d(one, 2) for one in maps[:2]), hole, level)
        sample = {
            "image": maps[0],
            "smaller": smaller,
            "canvas": maps[2],
            "sketch": maps[3],
            "canvas_scale": scale,
            "sketch_scale": sketch_scale,
            "hole": hole,
        }
        if rng.random() < 0.5:
            sample = {name: value.flip(-1) for name, value in sample.items()}
        return sample | {"level": torch.tensor(level, dtype=torch.float32), "is_direct": torch.tensor(False)}

    def _restored(self, rng: np.random.Generator, factor: int) -> dict[str, Any]:
        """A photograph and what is left of it, anywhere on the grid of cells; none of its parts are turned."""
        cells, item = self.crop_size // 2, self._item(rng, "photo")
        whole = self.rows["photo"]("rgb", item)
        side = self.crop_size * factor
        top, left = rng.integers(0, whole.shape[1] - side + 1), rng.integers(0, whole.shape[2] - side + 1)
        image = F.avg_pool2d(whole[:, top : top + side, left : left + side].float() / 127.5 - 1, factor)
        image = image.rot90(int(rng.integers(4)), (1, 2))
        blank, scale = torch.zeros(1, self.crop_size, self.crop_size), torch.zeros(1, cells, cells)
        is_enlarged = rng.random() < ENLARGED_SHARE
        if is_enlarged:
            smaller, sketch, level, blur = _shrunk_photo(rng, image), torch.zeros_like(image), 0.0, 0.0
        else:
            faults, level, blur = with_faults(rng, image)
            smaller, sketch = F.avg_pool2d(faults, 2), FAULTY * faults
        return {
            "image": image,
            "smaller": smaller,
            "canvas": blank,
            "sketch": sketch,
            "canvas_scale": scale + blur,
            "sketch_scale": scale + (0.0 if is_enlarged else FAULTY),
            "hole": torch.ones(1, cells, cells),
            "level": torch.tensor(level, dtype=torch.float32),
            "is_direct": torch.tensor(True),
        }

    # -- kinds --------------------------------------------------------------------------------------------------------
    def _photo(self, rng: np.random.Generator, side: int) -> Layers:
        item, cut = self._item(rng, "photo"), self._cut(rng, "photo", side)
        detail = cut("detail", item)
        plain = rgb_to_lab(cut("rgb", item)[None] / 255)[0]
        plain[0] -= DETAIL_UNIT * detail[0]
        told = cut("quilt", item) if rng.random() < QUILTED_SHARE else detail
        return Layers(plain, detail, detail, told, self._sketch(cut("sketch", item)))

    def _covered(self, rng: np.random.Generator, side: int) -> Layers:
        item, cut = self._item(rng, "photo"), self._cut(rng, "photo", side)
        canvas = cut("quilt", item) if rng.random() < QUILTED_SHARE else self._texture(rng, side)
        return Layers(cut("smooth", item), cut("detail", item), canvas, canvas, self._sketch(cut("sketch", item)))

    def _crossed(self, rng: np.random.Generator, side: int) -> Layers:
        item, cut = self._item(rng, "crossed"), self._cut(rng, "crossed", side)
        plain, canvas = cut("crossed", item), self._texture(rng, side)
        return Layers(plain, torch.zeros_like(canvas), canvas, canvas, self._sketch(cut("crossed_sketch", item)))

    def _texture(self, rng: np.random.Generator, side: int) -> torch.Tensor:
        """A canvas (1, side, side) that belongs to no picture, turned and mirrored at random."""
        is_material = "material" in self.rows and rng.random() < MATERIAL_SHARE
        kind, name = ("material", "canvas") if is_material else ("photo", "quilt")
        canvas = self._cut(rng, kind, side)(name, self._item(rng, kind))
        canvas = canvas.flip(-1) if rng.random() < 0.5 else canvas
        return canvas.rot90(int(rng.integers(4)), (1, 2))

    def _item(self, rng: np.random.Generator, kind: str) -> int:
        return int(rng.integers(len(self.rows[kind])))

    def _cut(self, rng: np.random.Generator, kind: str, side: int) -> Any:
        """(tensor's name, item) -> the same part of it each time, (C, side, side)."""
        rows = self.rows[kind]
        name = {"photo": "rgb", "crossed": "crossed", "material": "canvas"}[kind]
        top, left = 4 * rng.integers(0, (rows(name, 0).shape[2] - side) // 4 + 1, 2)
        return lambda name, item: rows(name, item)[:, top : top + side, left : left + side].float()

    def _sketch(self, stored: torch.Tensor) -> torch.Tensor:
        return stored / 127.5 - 1

    def _doubted(self, rng: np.random.Generator, sketch: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
        """A sketch that is the less right the weaker it is, so that strength is how much it is to be believed."""
        if not ((strength > 0) & (strength < 1)).any():
            return sketch
        cut = self._cut(rng, "photo", sketch.shape[2])
        other = self._sketch(cut("sketch", self._item(rng, "photo")))
        return torch.lerp(sketch, other, 0.7 * (1 - strength))


def _strengths(rng: np.random.Generator, cells: int, absent: float, least: float, most: float) -> torch.Tensor:
    """A map (1, cells, cells): mostly 1; sometimes 0, or another number, everywhere or in a region."""
    draw, strength = rng.random(), torch.ones(1, cells, cells)
    if draw >= absent + WEAKENED_SHARE:
        return strength
    value = 0.0 if draw < absent else rng.uniform(least, most)
    where = random_mask(rng, cells, whole=0.7)
    return torch.where(where > 0, torch.full_like(strength, value), strength)


def faulty(
    rng: np.random.Generator, smaller: torch.Tensor, plain: torch.Tensor, hole: torch.Tensor, level: float
) -> torch.Tensor:
    """A smaller picture (3, h, w) in [-1, 1] with the faults that a level stands for; 0 has none.

    Faults other than noise are those of the base and of compression: too little texture (`plain` has none), blur, colors
    that are slightly off. A hole that does not cover everything was filled with less than that.
    """
    amount = min(1.0, level / FULL_FAULTS)
    if rng.random() < 0.4:
        smaller = torch.lerp(smaller, plain, amount * rng.random())
    if amount and rng.random() < 0.4:
        smaller = torch.lerp(smaller, gaussian_blur(smaller[None], rng.uniform(0.4, 1.2))[0], amount)
    if amount and rng.random() < 0.3:
        gain, offset = torch.from_numpy(rng.normal(0, 0.06, (2, 3, 1, 1))).float()
        smaller = smaller + amount * (gain * smaller + offset)
    if amount and rng.random() < 0.12:
        smaller = _compressed(smaller, int(rng.integers(30, 95)))
    if not hole.all():
        filled = gaussian_blur(plain[None], rng.uniform(0.5, 3.0))[0]
        smaller = torch.where(hole > 0, torch.lerp(smaller, filled, rng.random()), smaller)
    size = smaller.shape[1:]
    fine, coarse = rng.standard_normal((3, *size)), rng.standard_normal((1, 3, *(side // 4 for side in size)))
    coarse = F.interpolate(torch.from_numpy(coarse), size, mode="bilinear")[0]
    return (smaller + level * (0.7 * torch.from_numpy(fine) + 0.5 * coarse)).float()


def with_faults(rng: np.random.Generator, image: torch.Tensor) -> tuple[torch.Tensor, float, float]:
    """A picture (3, H, W) in [-1, 1] blurred, noisy or compressed; the noise and the blur that are told.

    Noise is white, alike in all channels or, as that of film, mostly in lightness. Compression is not told: it shows.
    """
    kind, level, blur, faulty_image = rng.random(), 0.0, 0.0, image
    if kind > 0.75:  # 25 %
        blur = rng.uniform(0.3, LARGEST_BLUR)
        faulty_image = gaussian_blur(image[None], blur)[0]
    if kind < 0.48 or kind > 0.87:  # 61 %
        level = LARGEST_LEVEL * rng.random() ** (1.3 if blur == 0 else 3)
        own, shared = (torch.from_numpy(rng.standard_normal((c, *image.shape[1:]))).float() for c in (3, 1))
        gray = 0.9 if rng.random() < 0.2 else 0.0  # of the deviation
        faulty_image = faulty_image + level * (gray * shared + (1 - gray**2) ** 0.5 * own)
        if rng.random() < 0.3:  # as files have it
            faulty_image = faulty_image.clamp(-1, 1)
    if 0.48 <= kind <= 0.72:  # 24 %; the rest of those without blur or noise is left as it is
        faulty_image = _compressed(image, int(rng.integers(10, 90)))
    return faulty_image, level, blur


def _shrunk_photo(rng: np.random.Generator, image: torch.Tensor) -> torch.Tensor:
    """Half as large: by averages or, as most programs do, by a smooth kernel; sometimes compressed a little."""
    smaller = F.avg_pool2d(image, 2)
    if rng.random() < 0.5:
        smaller = F.interpolate(image[None], scale_factor=0.5, mode="bicubic", antialias=True)[0]
    return _compressed(smaller, int(rng.integers(70, 99))) if rng.random() < 0.25 else smaller


def _compressed(picture: torch.Tensor, quality: int) -> torch.Tensor:
    """A picture (3, h, w) in [-1, 1] after JPEG."""
    pixels = ((picture.permute(1, 2, 0).clamp(-1, 1) + 1) * 127.5).round().byte().numpy()
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return torch.from_numpy(np.array(PIL.Image.open(file))).permute(2, 0, 1).float() / 127.5 - 1
