"""One run of MG-Bench, section by section; what is finished is on disk before the next begins."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mg_diffusion.evaluation.quality import name_of
from mg_diffusion.recipe import check_free, save_json, versions

from .drawing import draw_all
from .sections import SECTIONS, Bench
from .tables import markdown


def run_bench(
    bench: Bench,
    *,
    model: str,
    sections: Sequence[str],
    output: Path,
    pictures: Path | None,
    force: bool = False,
) -> dict:
    """Run sections in their order, write their figures to `output`, print them, and draw what can be drawn.

    Sections that `output` holds from an earlier run with the very same settings stay, so that one can be run again.

    Args:
        model: the name of the method in tables.
        sections: some of `SECTIONS`. Those that lack what they need (features, training pictures) are left out.
        pictures: a folder for grids and plots.
        force: whether an `output` that is there and holds anything else is overwritten.

    Raises:
        ValueError: if it is not to be.
    """
    result: dict[str, Any] = {"settings": _settings(bench, model)}
    earlier = _read(output)
    if earlier.get("settings") == json.loads(json.dumps(result["settings"])):
        result = earlier
    else:
        check_free(output, force)
    for name in (name for name in SECTIONS if name in sections):
        start = time.monotonic()
        bench.method.progress.set_description(name)
        found = SECTIONS[name](bench)
        if found is None:
            continue
        result[name] = found
        save_json(result, output)
        bench.method.progress.write(f"{name}: {time.monotonic() - start:.0f} s")
    bench.method.progress.close()
    print(markdown(result))
    print(output)
    for path in [] if pictures is None else draw_all(bench, result, pictures):
        print(path)
    return result


def _read(output: Path) -> dict[str, Any]:
    """What a file of figures holds; nothing where there is none, or what an interrupted disk left of one."""
    try:
        found = json.loads(output.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def reconstructor(vae: torch.nn.Module) -> Any:
    """A picture (H, W, 3) in [0, 1] through an autoencoder of diffusers."""

    @torch.no_grad()
    def reconstruct(picture: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(picture).permute(2, 0, 1)[None].to(vae.device, vae.dtype) * 2 - 1
        decoded = vae.decode(vae.encode(pixels).latent_dist.mode()).sample
        return (decoded[0].float().permute(1, 2, 0) / 2 + 0.5).clamp(0, 1).cpu().numpy()

    return reconstruct


def _settings(bench: Bench, model: str) -> dict[str, Any]:
    return {
        "model": model,
        "call": {**bench.method.settings, "granularity_scale": bench.method.scales},
        "data": bench.photographs.name,
        "split": bench.photographs.split,
        "pictures": len(bench.photographs.pictures),
        "sizes": asdict(bench.sizes),
        "features": None if bench.features is None else name_of(bench.features),
        "seed": bench.seed,
        "batch_size": bench.batch_size,
        "versions": versions(),
    }
