"""Twenty edits of photographs of scikit-image, chosen before any of them was made: before and after, at native size.

    python -m benchmarks.edits.twenty --output docs/images/twenty-edits.webp

Masks are ellipses in fractions of the picture. Where noise is to be removed it is added first, where a picture is to be enlarged it
is shrunk first; before is then what the edit was given.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw
from skimage import data

from mg_diffusion import MGInpaintPipeline
from mg_diffusion import edits as named
from mg_diffusion.loading import load_pipeline, quiet


Picture = PIL.Image.Image
WIDTH, GAP, LABEL = 2900, 12, 22


def photograph(name: str) -> Picture:
    return PIL.Image.fromarray(getattr(data, name)()).convert("RGB")


def noisy(deviation: float) -> Callable[[Picture], Picture]:
    def add(picture: Picture) -> Picture:
        noise = np.random.default_rng(0).normal(0, deviation, np.asarray(picture).shape)
        return PIL.Image.fromarray((np.asarray(picture) + noise).round().clip(0, 255).astype(np.uint8))

    return add


def shrunk(factor: int) -> Callable[[Picture], Picture]:
    return lambda picture: picture.resize(
        (picture.width // factor, picture.height // factor), PIL.Image.Resampling.BICUBIC
    )


@dataclass(frozen=True)
class Edit:
    """One of the twenty.

    Args:
        name: of the edit; of: the photograph; given: what it takes; ellipse: of its mask, left, top, right and bottom.
        first: what is done to the photograph before.
    """

    name: str
    of: str
    given: dict[str, Any] = field(default_factory=dict)
    ellipse: tuple[float, float, float, float] | None = None
    first: Callable[[Picture], Picture] = lambda picture: picture

    def make(self, pipe: Any) -> tuple[Picture, Picture, Picture | None]:
        """Before, after and mask."""
        before, mask = self.first(photograph(self.of)), None
        given = {
            n: photograph(v) if n in ("color", "texture") and isinstance(v, str) else v for n, v in self.given.items()
        }
        if self.ellipse is not None:
            mask = PIL.Image.new("L", before.size)
            sides = [part * side for part, side in zip(self.ellipse, before.size * 2, strict=True)]
            PIL.ImageDraw.Draw(mask).ellipse(sides, fill=255)
            given["mask_image"] = mask
        (after,) = getattr(named, self.name)(pipe, before, **given)
        return before, after, mask


EDITS = (
    Edit("recolor", "astronaut", {"color": ["#0a9396"], "select": "#e1552d", "tolerance": 25.0}),
    Edit("recolor", "coffee", {"color": ["#1d3557", "#457b9d", "#f1faee"]}),
    Edit("recolor", "hubble_deep_field", {"color": "coffee"}),
    Edit("recolor", "rocket", {"color": "coffee"}),
    Edit("recolor", "retina", {"color": ["#2a9d8f"]}),
    Edit("recolor", "immunohistochemistry", {"color": ["#22577a", "#c7f9cc"]}),
    Edit("retexture", "coffee", {"texture": "gravel", "texture_scale": 0.5}),
    Edit("retexture", "moon", {"texture": "grass", "texture_scale": 0.5}),
    Edit("retexture", "astronaut", {"texture": "brick", "texture_scale": 0.5}),
    Edit("remove", "astronaut", {}, (0.52, 0.62, 0.66, 0.78)),
    Edit("remove", "coffee", {}, (0.58, 0.55, 0.86, 0.88)),
    Edit("remove", "rocket", {}, (0.44, 0.28, 0.56, 0.82)),
    Edit("remove", "hubble_deep_field", {}, (0.25, 0.25, 0.4, 0.4)),
    Edit("remove", "moon", {}, (0.4, 0.4, 0.6, 0.6)),
    Edit("outpaint", "moon", {"left": 128, "right": 128}),
    Edit("outpaint", "hubble_deep_field", {"right": 200}),
    Edit("denoise", "astronaut", {}, None, noisy(25)),
    Edit("denoise", "rocket", {}, None, noisy(15)),
    Edit("enhance", "rocket", {"color": "coffee", "strength": 0.5}),
    Edit("enlarge", "astronaut", {"factor": 2}, None, shrunk(2)),
)


def pair(number: int, edit: Edit, before: Picture, after: Picture, mask: Picture | None) -> Picture:
    """Before, with the border of the mask, and after, side by side at native size."""
    shown = before.copy()
    if mask is not None:
        left, top, right, bottom = mask.getbbox()
        PIL.ImageDraw.Draw(shown).ellipse((left, top, right, bottom), outline="white", width=3)
    made = PIL.Image.new("RGB", (shown.width + GAP + after.width, LABEL + max(shown.height, after.height)), "white")
    PIL.ImageDraw.Draw(made).text((2, 4), f"{number}. {edit.name}: {edit.of}", fill="black", font_size=14)
    made.paste(shown, (0, LABEL))
    made.paste(after, (shown.width + GAP, LABEL))
    return made


def sheet(pairs: list[Picture]) -> Picture:
    """All pairs in their order, as many in a row as there is room for."""
    rows: list[list[Picture]] = [[]]
    for one in pairs:
        if rows[-1] and sum(other.width + GAP for other in rows[-1]) + one.width > WIDTH:
            rows.append([])
        rows[-1].append(one)
    widths = [sum(one.width + GAP for one in row) + GAP for row in rows]
    heights = [max(one.height for one in row) + GAP for row in rows]
    made, top = PIL.Image.new("RGB", (max(widths), sum(heights) + GAP), "white"), GAP
    for row, height in zip(rows, heights, strict=True):
        left = GAP
        for one in row:
            made.paste(one, (left, top))
            left += one.width + GAP
        top += height
    return made


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.edits.twenty", description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("docs/images/twenty-edits.webp"), metavar="FILE.webp")
    parser.add_argument("--singles", type=Path, metavar="FOLDER", help="each of them, too, as PNG")
    args = parser.parse_args()
    quiet()
    pipe = load_pipeline(MGInpaintPipeline)
    pairs = []
    for number, edit in enumerate(EDITS, 1):
        made = edit.make(pipe)
        pairs.append(pair(number, edit, *made))
        if args.singles:
            args.singles.mkdir(parents=True, exist_ok=True)
            pairs[-1].save(args.singles / f"{number:02d}.png")
        print(f"{number}. {edit.name}: {edit.of}", flush=True)
    sheet(pairs).save(args.output, quality=80)


if __name__ == "__main__":
    main()
