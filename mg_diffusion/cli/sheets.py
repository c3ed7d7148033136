"""A contact sheet: all pictures of one call, small, each with its seed."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
from tqdm import tqdm

from ..color_profiles import in_srgb
from ..picture_files import save_picture
from ..pictures import read_upright
from ..recipe import read_recipe


SIDE, GAP, LINE = 256, 8, 20  # of a small picture, between two, and of what stands below one; in pixels
MOST_ACROSS = 8


def check_sheet(options: argparse.Namespace) -> None:
    """Raise a ValueError where a sheet is asked for and there is one picture to lay on it."""
    if options.sheet and options.num_images < 2:
        raise ValueError("--sheet lays several pictures side by side. Add --num-images N, or leave it out.")


def sheet_path(paths: Sequence[Path]) -> Path:
    """NAME.sheet.png beside NAME-0.png, NAME-1.png, ..."""
    return paths[0].with_name(f"{paths[0].stem.removesuffix('-0')}.sheet{paths[0].suffix}")


def save_sheet(images: Sequence[PIL.Image.Image], paths: Sequence[Path], seeds: Sequence[int]) -> None:
    """Write the sheet of pictures that lie at `paths`, and print its name."""
    path = sheet_path(paths)
    recipe = {"command": "sheet", "files": [one.name for one in paths], "seeds": list(seeds)}
    save_picture(drawn_sheet(images, [f"seed {seed}" for seed in seeds]), path, recipe)
    tqdm.write(str(path))


def complete_sheet(options: argparse.Namespace, paths: Sequence[Path]) -> None:
    """Write the sheet of pictures that were made before, if it is asked for and not there; their recipes tell the seeds."""
    if not options.sheet or sheet_path(paths).exists():
        return
    images = [read_upright(path) for path in paths]
    save_sheet(images, paths, [read_recipe(path).get("seed", 0) for path in paths])


def drawn_sheet(images: Sequence[PIL.Image.Image], labels: Sequence[str]) -> PIL.Image.Image:
    """Pictures row by row, in their order, on white, as nearly a square as they fill."""
    small = [_small(image) for image in images]
    width, height = (max(image.size[axis] for image in small) for axis in range(2))
    across = min(MOST_ACROSS, math.ceil(math.sqrt(len(small))))
    down = math.ceil(len(small) / across)
    cell = (width + GAP, height + LINE + GAP)
    sheet = PIL.Image.new("RGB", (across * cell[0] + GAP, down * cell[1] + GAP), "white")
    draw, font = PIL.ImageDraw.Draw(sheet), PIL.ImageFont.load_default(size=14)
    for number, (image, label) in enumerate(zip(small, labels, strict=True)):
        left, top = GAP + number % across * cell[0], GAP + number // across * cell[1]
        sheet.paste(image, (left, top))
        draw.text((left, top + image.height + LINE // 2), label, fill="#333333", font=font, anchor="lm")
    return sheet


def _small(image: PIL.Image.Image) -> PIL.Image.Image:
    """In sRGB, what is transparent over white, at most `SIDE` on a side."""
    image = in_srgb(image)  # a sheet has no profile, and pictures of a folder may have several
    if image.mode.startswith("I;16"):
        image = PIL.Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    shown = image.convert("RGBA")
    shown.thumbnail((SIDE, SIDE), PIL.Image.Resampling.LANCZOS)
    return PIL.Image.alpha_composite(PIL.Image.new("RGBA", shown.size, "white"), shown).convert("RGB")
