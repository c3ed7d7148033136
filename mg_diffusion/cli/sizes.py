"""Sizes that are asked for, checked before anything is loaded, as far as the files of a model on this disk tell."""

import argparse
import json
from pathlib import Path
from typing import Any

from ..loading import embedded_model
from ..sizes import check_area, check_painted_size


def split_size(options: argparse.Namespace) -> None:
    """--size as --width and --height."""
    if options.size is not None:
        if (options.width, options.height) != (None, None):
            raise ValueError("--size is width and height in one: give it, or --width and --height.")
        options.width, options.height = options.size


def check_generated_size(options: argparse.Namespace) -> None:
    """Raise a ValueError for a size that the model cannot make. Of one on the Hub nothing is known before it is loaded."""
    folder = embedded_model() if options.model is None else Path(options.model)
    given = [side for side in (options.height, options.width) if side is not None]
    if not given or not (folder / "model_index.json").is_file():
        return
    unet, vae = _config(folder, "unet"), _config(folder, "vae")
    if not unet.get("sample_size") or "block_out_channels" not in vae:
        return
    factor, native = 2 ** (len(vae["block_out_channels"]) - 1), unet["sample_size"]
    native = tuple(factor * side for side in (native if isinstance(native, list) else [native] * 2))
    detail = _config(folder, "mg_detail")
    if detail and len(given) == 2:
        return check_painted_size(*given, native, factor, 2 ** (len(detail["block_out_channels"]) - 1))
    if wrong := [side for side in given if side % factor]:
        near = max(factor, factor * round(wrong[0] / factor))
        raise ValueError(f"--width and --height must be multiples of {factor}, got {wrong[0]}. Near by is {near}.")
    if detail and len(given) == 1 and options.shape:
        check_area(given[0], given[0] // 4)  # the least that a side alone may lead to


def check_side(side: int | None) -> None:
    """Raise a ValueError for a --size, the side of a square, of more pixels than are painted at once."""
    if side is not None:
        check_area(side, side)


def _config(folder: Path, name: str) -> dict[str, Any]:
    file = folder / name / "config.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
