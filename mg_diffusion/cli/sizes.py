"""Sizes that are asked for, checked before anything is loaded, as far as the files of a model on this disk tell."""

import argparse
import json
from pathlib import Path
from typing import Any

from ..loading import embedded_model
from ..sizes import check_area, check_painted_size


def split_size(options: argparse.Namespace) -> None:
    """--size as --width and --height where it is exact; else it stays, and --width and --height are not given."""
    if options.size is None:
        return
    if (getattr(options, "width", None), getattr(options, "height", None)) != (None, None):
        raise ValueError("--size is width and height in one: give it, or --width and --height.")
    options.width, options.height = options.size if isinstance(options.size, tuple) else (None, None)


def painted_size(
    pipe: Any, options: argparse.Namespace, references: dict[str, Any] | None, aspect: float | None = None
) -> argparse.Namespace:
    """The flags with the --width and --height that a --size of one number stands for.

    Args:
        aspect: width over height; that of the shape reference if not given.
    """
    if not isinstance(options.size, int):
        return options
    height, width = pipe.output_size(None, None, references, options.size, aspect)
    return argparse.Namespace(**{**vars(options), "height": height, "width": width})


def check_generated_size(options: argparse.Namespace) -> None:
    """Raise a ValueError for a size that the model cannot make. Of one on the Hub nothing is known before it is loaded."""
    if isinstance(options.size, int):
        check_area(options.size, options.size)
    folder = model_folder(options)
    given = [side for side in (options.height, options.width) if side is not None]
    if (options.size is None and not given) or not (folder / "model_index.json").is_file():
        return
    unet, vae = config_of(folder, "unet"), config_of(folder, "vae")
    if not unet.get("sample_size") or "block_out_channels" not in vae:
        return
    factor, native = 2 ** (len(vae["block_out_channels"]) - 1), unet["sample_size"]
    native = tuple(factor * side for side in (native if isinstance(native, list) else [native] * 2))
    if isinstance(options.size, int) and options.size < factor:  # rounding may not make much of nothing
        raise ValueError(f"--size must be at least {factor}, got {options.size}.")
    detail = config_of(folder, "mg_detail")
    if detail and len(given) == 2:
        return check_painted_size(*given, native, factor, 2 ** (len(detail["block_out_channels"]) - 1))
    if wrong := [side for side in given if side % factor]:
        near = max(factor, factor * round(wrong[0] / factor))
        raise ValueError(f"--width and --height must be multiples of {factor}, got {wrong[0]}. Near by is {near}.")
    if detail and len(given) == 1 and getattr(options, "shape", None):
        check_area(given[0], given[0] // 4)  # the least that a side alone may lead to


def model_folder(options: argparse.Namespace) -> Path:
    """Where the files of the model lie, if it is none of the Hub."""
    return embedded_model() if options.model is None else Path(options.model)


def config_of(folder: Path, name: str, file_name: str = "config.json") -> dict[str, Any]:
    """The configuration of a part of a model; empty where there is none."""
    file = folder / name / file_name
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
