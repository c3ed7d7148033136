"""What the detail network learns from, laid out once: photographs, crossings and materials, with their sketch and canvas.

Everything is made at the size of the pictures, as a pipeline makes it once for all octaves; a sample shrinks what it
cuts out. Pictures are laid out in chunks, each kept in a file of its own, so that what is interrupted goes on and a
larger part of the same data set begins with the chunks of a smaller one.
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from tqdm import tqdm

from mg_diffusion.adapter.few_colors import lay_few_colors
from mg_diffusion.adapter.mean_shift import modes_of
from mg_diffusion.adapter.quilting import lay_tiles
from mg_diffusion.adapter.sketch import lay_palette, shaded, turn_colors
from mg_diffusion.encoder.color_groups import farthest_first
from mg_diffusion.encoder.shape import shape_view
from mg_diffusion.encoder.structure import nearest_turn, shading
from mg_diffusion.encoder.texture import draw_tiles, texture_view
from mg_diffusion.encoder.views import edge_preserving_smooth, rgb_to_lab

from .caching import Tensors, cached, code_fingerprint, picture_fingerprint
from .crossings import flatten_regions, lab_to_rgb


# What is laid out depends on the files of these, and on no other of encoder and adapter.
LAID_BY = (
    *(lay_tiles, lay_palette, lay_few_colors, modes_of, farthest_first),
    *(shape_view, nearest_turn, texture_view, rgb_to_lab, flatten_regions),
)
CHUNK = 100  # pictures of a file
BATCH = 4
NUM_TILES = 96
COLORS = 1024  # at most so many stand for a color reference


class Rows:
    """Rows of chunks of tensors, read from memory-mapped files when they are asked for."""

    def __init__(self, chunks: list[Tensors], names: tuple[str, ...]):
        self.chunks = chunks
        counts = [len(chunk[names[0]]) for chunk in chunks]
        self.places = [(chunk, row) for chunk, count in enumerate(counts) for row in range(count)]

    def __len__(self) -> int:
        return len(self.places)

    def __call__(self, name: str, item: int) -> torch.Tensor:
        """Tensor `name` of row `item`, as it is stored."""
        chunk, row = self.places[item]
        return self.chunks[chunk][name][row]


def _batches(count: int) -> Iterator[slice]:
    return (slice(start, start + BATCH) for start in range(0, count, BATCH))


def _joined(make: Callable[[slice], Tensors], count: int) -> Tensors:
    parts = [make(batch) for batch in _batches(count)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _to_bytes(lab: torch.Tensor) -> torch.Tensor:
    return (lab_to_rgb(lab) * 255).round().to(torch.uint8)


def _quilt(detail: torch.Tensor, weight: torch.Tensor, side: int, seed: int) -> torch.Tensor:
    tiles = draw_tiles(detail, weight, NUM_TILES, torch.Generator().manual_seed(seed))
    return lay_tiles(tiles, side, side).half()


def colors_of(smooth: torch.Tensor) -> torch.Tensor:
    """Colors of equal weight that stand for smoothed Lab pictures: (B, 3, S, S) -> (B, N, 3), N at most `COLORS`."""
    stride = max(1, round(smooth.shape[3] / COLORS**0.5))
    return smooth[:, :, stride // 2 :: stride, stride // 2 :: stride].flatten(2).transpose(1, 2)


def _draw_pairs(count: int, num_crossings: int, seed: int) -> np.ndarray:
    """Which of `count` photographs crossings have color and shape of, (2, num_crossings)."""
    return np.random.default_rng([13, seed]).integers(0, count, (2, num_crossings))


def _chunks(count: int, crossings_a_photo: float, seed: int) -> Iterator[tuple[slice, int, int]]:
    """The pictures of each chunk, how many crossings are made of them, and by which seed."""
    for number, start in enumerate(range(0, count, CHUNK)):
        size = min(CHUNK, count - start)
        yield slice(start, start + size), max(1, round(crossings_a_photo * size)), 1000 * number + seed


def crossed_pairs(count: int, crossings_a_photo: float, seed: int) -> np.ndarray:
    """The photographs, as rows of `build_rows`, that its crossings have color and shape of, (M, 2)."""
    chunks = _chunks(count, crossings_a_photo, seed)
    pairs = [part.start + _draw_pairs(part.stop - part.start, number, own) for part, number, own in chunks]
    return np.concatenate(pairs, 1).T


@torch.no_grad()
def lay_out_photos(rgb: torch.Tensor, num_crossings: int, seed: int) -> Tensors:
    """Photographs (N, 3, S, S) uint8, their parts, and crossings of them by light.

    Returns:
        `rgb`; `smooth` (N, 3, S, S) half, Lab; `detail` and `quilt` (N, 1, S, S) half, their texture in place and
        shuffled; `sketch` (N, 3, S, S) uint8; `crossed` (M, 3, S, S) half, Lab, the colors of one in the cleaned regions
        of another, with its folds; `crossed_sketch` (M, 3, S, S) uint8, as the adapter gives them.
    """
    side = rgb.shape[3]

    def photo(batch: slice) -> Tensors:
        lab = rgb_to_lab(rgb[batch].float() / 255)
        smooth = edge_preserving_smooth(lab)
        mask = torch.ones_like(lab[:, :1])
        texture, structure = texture_view(lab, smooth, mask), shape_view(smooth, mask)["structure"]
        turned = turn_colors(structure, nearest_turn(structure.flatten(2), smooth.flatten(2)))
        folds = shading(structure, smooth[:, :1], lab[:, :1])
        return {
            "smooth": smooth.half(),
            "detail": texture["detail"].half(),
            "quilt": _quilt(texture["detail"], texture["weight"], side, seed + batch.start),
            "sketch": _to_bytes(shaded(lay_palette(turned, colors_of(smooth)), folds)),
            "turned": turned,
            "folds": folds,
        }

    photos = _joined(photo, len(rgb))
    turned, folds = photos.pop("turned"), photos.pop("folds")
    color, shape = _draw_pairs(len(rgb), num_crossings, seed)

    def crossing(batch: slice) -> Tensors:
        palette = colors_of(photos["smooth"][color[batch]].float())
        sketch, own = lay_palette(turned[shape[batch]], palette), folds[shape[batch]]
        return {
            "crossed": shaded(flatten_regions(sketch), own).half(),
            "crossed_sketch": _to_bytes(shaded(sketch, own)),
        }

    return {"rgb": rgb, **photos, **_joined(crossing, num_crossings)}


@torch.no_grad()
def lay_out_materials(rgb: torch.Tensor, side: int, seed: int) -> Tensors:
    """Pictures that are nothing but texture, (N, 3, s, s) uint8, to `canvas` (N, 1, side, side) half."""

    def canvas(batch: slice) -> Tensors:
        lab = rgb_to_lab(rgb[batch].float() / 255)
        texture = texture_view(lab, edge_preserving_smooth(lab), torch.ones_like(lab[:, :1]))
        return {"canvas": _quilt(texture["detail"], texture["weight"], side, seed + batch.start)}

    return _joined(canvas, len(rgb))


def build_rows(
    photos: torch.Tensor, materials: torch.Tensor | None, crossings_a_photo: float, seed: int, cache_dir: str | None
) -> dict[str, Rows]:
    """Rows of photographs, of crossings and of canvases.

    Args:
        photos: (N, 3, S, S) uint8; materials: (M, 3, s, s) uint8. Without materials the photographs' own texture is all.
    """
    side, code = photos.shape[3], code_fingerprint(build_rows, *LAID_BY)

    def chunks_of(kind: str, rgb: torch.Tensor, make: Callable[[torch.Tensor, int, int], Tensors]) -> list[Tensors]:
        found, parts = [], list(_chunks(len(rgb), crossings_a_photo, seed))
        for number, (part, crossings, own) in enumerate(tqdm(parts, desc=f"laying out {kind}", mininterval=5)):
            some = rgb[part]
            identity = [code, kind, picture_fingerprint(some), str([side, crossings_a_photo, seed, number])]
            found.append(cached(cache_dir, f"detail-{kind}", identity, partial(make, some, crossings, own)))
        return found

    laid = chunks_of("photos", photos, lay_out_photos)
    rows = {"photo": Rows(laid, ("rgb",)), "crossed": Rows(laid, ("crossed",))}
    if materials is not None:
        covers = chunks_of("materials", materials, lambda some, _, own: lay_out_materials(some, side, own))
        rows["material"] = Rows(covers, ("canvas",))
    return rows
