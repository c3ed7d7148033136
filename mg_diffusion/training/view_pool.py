"""Views of all pictures that a run trains on, computed once, and the pictures that are crossed of them."""

import json
import sys
from dataclasses import dataclass, replace

import torch
from tqdm import tqdm

from mg_diffusion.encoder.shape import shape_view
from mg_diffusion.encoder.texture import texture_view
from mg_diffusion.encoder.views import edge_preserving_smooth, rgb_to_lab
from mg_diffusion.modeling_mg_adapter import MGAdapter
from mg_diffusion.modeling_mg_encoder import MGEncoder

from . import crossings, renderer
from .caching import Tensors, cached, code_fingerprint, picture_fingerprint
from .crossings import Crossings, cross_photos, cross_rendered, render_pictures
from .pictures import Pictures


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


def build_pool(
    pictures: Pictures,
    num_crossings: int,
    num_rendered: int,
    seed: int,
    cache_dir: str | None = None,
    is_turned: bool = True,
    is_window: bool = False,
) -> tuple[ViewPool, dict[str, Crossings]]:
    """Views and crossings for training; pool order is whole pictures, their crops, rendered pictures.

    A kind of which there are none has no crossings. With `cache_dir` the result is stored under a fingerprint of the
    pictures, the settings and the code, and found again.

    Args:
        is_window: whether the pictures are a window of a stream; then only what is rendered is stored.
    """
    size, offset, crossed = pictures.whole.shape[2], 2 * len(pictures), {}
    code = code_fingerprint(build_pool, crossings, renderer, MGAdapter, MGEncoder)
    settings = [code, json.dumps([size, seed, is_turned])]
    folder, identity = (None, []) if is_window or not cache_dir else (cache_dir, [*settings, str(num_crossings)])
    if folder:  # what is not stored needs no name
        identity += map(picture_fingerprint, (pictures.whole, pictures.crop))

    def tell(what: str) -> None:
        if not is_window:
            kept = (
                f"kept in {cache_dir!r} for the next run" if cache_dir else "kept for no other run without --cache_dir"
            )
            print(f"Before the first step: {what}, once, {kept}.", file=sys.stderr, flush=True)

    def photographs() -> Tensors:
        tell(f"{len(pictures)} pictures are prepared, and {num_crossings} crossed of them")
        pool, smooth = compute_views(torch.cat([pictures.whole, pictures.crop]))
        found = cross_photos(smooth, pool.structure, num_crossings, seed, is_turned) if num_crossings else None
        return _pack(pool, found)

    def rendered() -> Tensors:
        tell(f"{num_rendered} pictures are rendered and prepared")
        seeds, drawn = render_pictures(num_rendered, size, seed)
        pool, _ = compute_views(drawn)
        return _pack(pool, cross_rendered(seeds, pool.structure, pool.points, seed, is_turned))

    pool, found = _unpack(cached(folder, "pool", identity, photographs))
    if found is not None:
        crossed["composite"] = found
    if num_rendered:
        drawn, found = _unpack(cached(cache_dir, "rendered", [*settings, str(num_rendered)], rendered))
        pool = ViewPool(**{name: torch.cat([value, getattr(drawn, name)]) for name, value in vars(pool).items()})
        crossed["rendered"] = replace(found, color=found.color + offset, shape=found.shape + offset)
    return pool, crossed


def _pack(pool: ViewPool, crossed: Crossings | None) -> Tensors:
    parts = {"pool": vars(pool), "crossings": vars(crossed) if crossed else {}}
    return {f"{part}.{name}": value for part, tensors in parts.items() for name, value in tensors.items()}


def _unpack(tensors: Tensors) -> tuple[ViewPool, Crossings | None]:
    pool, crossed = (
        {name.removeprefix(f"{part}."): value for name, value in tensors.items() if name.startswith(f"{part}.")}
        for part in ("pool", "crossings")
    )
    return ViewPool(**pool), Crossings(**crossed) if crossed else None
