"""Crossed pictures: the color of A, the texture of B and the shape of C in one, as targets for crossed references.

The renderer knows its factors; a photograph does not tell them. But the three views can be put together again: the
colors of A are laid into the regions of C (`lay_palette`, as the adapter does for its sketch), cleaned, and B's
shuffled texture tiles are laid over them.
"""

from dataclasses import dataclass
from itertools import permutations

import numpy as np
import torch
from tqdm import tqdm

from mg_diffusion.adapter.sketch import lay_palette, random_turns, turn_colors
from mg_diffusion.encoder.views import DETAIL_UNIT, edge_preserving_smooth, lab_to_rgb

from .renderer import halve, render, render_palette, render_regions


@dataclass
class Crossings:
    """Crossed pictures before their texture.

    lab (M, 3, S, S) half; color, shape (M,) pool indices of the references; turn (M, 3, 3), which of all assignments
    of colors to regions was drawn, see `draw_variation`.
    """

    lab: torch.Tensor
    color: torch.Tensor
    shape: torch.Tensor
    turn: torch.Tensor

    def __len__(self) -> int:
        return len(self.color)


def cross_photos(
    smooth: torch.Tensor, structure: torch.Tensor, count: int, seed: int, is_turned: bool = True
) -> Crossings:
    """`count` random pairs: the regions of one picture in the colors of another.

    Args:
        smooth: (N, 3, S, S) Lab; structure: (N, 3, S, S).
        is_turned: whether the assignment of colors is drawn, or always the one of an unturned structure map.
    """
    color, shape = np.random.default_rng([6, seed]).integers(0, len(smooth), (2, count))
    turn = draw_turns(count, seed, is_turned)
    labs = []
    for start in tqdm(range(0, count, 64), desc="crossing", mininterval=5):
        c, s = color[start : start + 64], shape[start : start + 64]
        turned = turn_colors(structure[s].float(), turn[start : start + 64])
        painted = lay_palette(turned, smooth[c].flatten(2).transpose(1, 2))
        labs.append(flatten_regions(painted).half())
    return Crossings(torch.cat(labs), torch.from_numpy(color), torch.from_numpy(shape), turn)


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
) -> Crossings:
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
    return Crossings(torch.from_numpy(np.stack(labs)).half(), torch.from_numpy(color), torch.from_numpy(shape), turn)


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


def flatten_regions(lab: torch.Tensor) -> torch.Tensor:
    """Remove the grain that the transfer amplifies in flat areas; (B, 3, H, W) Lab."""
    lab = edge_preserving_smooth(lab, sigma=1.0, steps=1, color_sigma=10.0, dilation=1)
    for _ in range(6):
        lab = edge_preserving_smooth(lab, sigma=0.6, steps=1, color_sigma=8.0, dilation=1)
    for _ in range(4):  # nearly one color per region: a slope under a texture is a texture of its own
        lab = edge_preserving_smooth(lab, sigma=0.6, steps=1, color_sigma=8.0, dilation=2)
    return lab


def add_texture(base: torch.Tensor, canvas: torch.Tensor) -> torch.Tensor:
    """Lay a texture canvas (1, H, W; lightness over 10, as the texture view gives it) over a base (3, H, W) in Lab."""
    painted = base.clone()
    painted[0] = (painted[0] + DETAIL_UNIT * canvas[0]).clamp(0, 100)
    return lab_to_rgb(painted)
