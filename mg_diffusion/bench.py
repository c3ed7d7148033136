"""`mg-diffusion bench`: how separately a pipeline controls color, texture and shape, on a folder of pictures.

Drives `mg_diffusion.evaluation`, which scores pictures and knows no pipeline. Needs the extra `eval`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import PIL.ImageOps
import torch
from tqdm.auto import tqdm

from .evaluation.control import measure_control, random_triples, write_json
from .evaluation.metrics import GRANULARITIES
from .recipe import replacing, save_png, versions


ENDINGS = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
MIN_POOL = 32  # the candidates each output is compared with
GRID_TRIPLES = 12


@dataclass
class Pool:
    """Pictures (size, size, 3) in [0, 1] and the name of the folder they come from."""

    pictures: list[np.ndarray]
    name: str
    split: str | None


def read_pool(data: str, split: str | None, size: int) -> Pool:
    """The pictures below a folder, in the order of their names: centered square, resized to `size`.

    Args:
        data: a folder of pictures, sorted into subfolders or not.
        split: a folder inside it; `None` is "val" where there is one, else everything.

    Raises:
        ValueError: if there is no such folder, or fewer than 32 pictures in it.
    """
    root = Path(data)
    if split is None and (root / "val").is_dir():
        split = "val"
    folder = root if split is None else root / split
    remedy = (
        f"Expected is a folder with at least {MIN_POOL} pictures ({', '.join(sorted(ENDINGS))}), in subfolders or not, "
        f"such as an `imagefolder` with train/ and val/. Any photographs will do; use some that the model was not "
        f"trained on."
    )
    if not folder.is_dir():
        raise ValueError(f"There is no folder {str(folder)!r}. {remedy}")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file())
    if len(files) < MIN_POOL:
        raise ValueError(f"{str(folder)!r} holds {len(files)} pictures. {remedy}")
    return Pool([_read_square(path, size) for path in files], root.resolve().name, split)


def _read_square(path: Path, size: int) -> np.ndarray:
    try:
        with PIL.Image.open(path) as opened:
            image = PIL.ImageOps.exif_transpose(opened).convert("RGB")
    except Exception as error:  # decoders of damaged files raise errors of any type
        raise ValueError(f"{str(path)!r} cannot be read as a picture: {error}. Remove it from the folder.") from error
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side)).resize((size, size), PIL.Image.Resampling.BICUBIC)
    return np.asarray(square, np.float32) / 255


class Generator:
    """A pipeline as the callable that `measure_control` asks for; keeps the first outputs for the grid."""

    def __init__(self, pipe: Any, settings: dict[str, Any], total: int):
        self.pipe, self.settings = pipe, settings
        self.kept: list[np.ndarray] = []
        self.progress = tqdm(total=total, desc="pictures")
        pipe.set_progress_bar_config(disable=True)  # one bar for all batches is enough

    def __call__(self, *, seeds: Sequence[int], **references: Sequence[np.ndarray]) -> list[np.ndarray]:
        made = self.pipe(
            reference_image={name: [[picture] for picture in row] for name, row in references.items()},
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type="np",
            **self.settings,
        ).images
        self.kept += list(made[: GRID_TRIPLES - len(self.kept)])
        self.progress.update(len(made))
        return list(made)


def run_bench(
    pipe: Any,
    pool: Pool,
    *,
    model: str,
    settings: dict[str, Any],
    triples: int,
    seed: int,
    batch_size: int,
    output: Path,
    grid: Path | None = None,
) -> dict[str, Any]:
    """Generate from random triples of the pool, score the outputs, print the figures and write them to `output`.

    Args:
        settings: arguments of every call of `pipe`.
        triples: how many, each with one output.
        grid: where to draw the first 12 triples and their outputs.
    """
    drawn = random_triples(triples, len(pool.pictures), seed)
    generate = Generator(pipe, settings, triples)
    with generate.progress:
        result = measure_control(generate, pool.pictures, drawn, batch_size=batch_size, seed=seed)
    result["settings"] |= {
        "call": settings,
        "data": pool.name,
        "split": pool.split,
        "model": model,
        "batch_size": batch_size,
        "versions": versions(),
    }
    with replacing(output) as part:
        write_json(part, result)
    if grid is not None:
        image = draw_grid(pool.pictures, drawn, generate.kept)
        save_png(image, grid, {"command": "bench", **result["settings"]})
    print(markdown(result))
    print(*[path for path in (output, grid) if path is not None], sep="\n")
    return result


def draw_grid(pool: Sequence[np.ndarray], triples: Sequence[dict[str, int]], outputs: list[np.ndarray]) -> Any:
    """Rows of color, texture, shape references and outputs; a column for each triple."""
    rows = [[pool[triple[name]] for triple, _ in zip(triples, outputs, strict=False)] for name in GRANULARITIES]
    rows.append(outputs)
    size = outputs[0].shape[0]
    label, gap = 72, 4
    image = PIL.Image.new("RGB", (label + len(outputs) * (size + gap), 4 * (size + gap)), "white")
    draw = PIL.ImageDraw.Draw(image)
    for y, (name, row) in enumerate(zip((*GRANULARITIES, "output"), rows, strict=True)):
        draw.text((6, y * (size + gap) + size // 2), name, fill="black", anchor="lm", font=_font())
        for x, picture in enumerate(row):
            pixels = PIL.Image.fromarray((picture * 255).round().astype(np.uint8))
            image.paste(pixels, (label + x * (size + gap), y * (size + gap)))
    return image


def _font() -> Any:
    return PIL.ImageFont.load_default(size=14)


def markdown(result: dict[str, Any]) -> str:
    """The figures as two markdown tables, in percent with 95 % intervals."""

    def cell(figure: dict[str, float] | float) -> str:
        if isinstance(figure, float):
            return f"{100 * figure:.1f}"
        return f"{100 * figure['mean']:.1f} ({100 * figure['low']:.1f} to {100 * figure['high']:.1f})"

    method = result["method"]
    lines = ["| % | color | texture | shape |", "|---|---|---|---|"]
    for key, title in (
        ("pairwise", "pairwise: own reference nearer than a distractor"),
        ("top1", "top-1: own reference nearest of all"),
        ("leak", "leak: another reference nearest of all"),
    ):
        lines.append(f"| {title} | " + " | ".join(cell(method[key][name]) for name in GRANULARITIES) + " |")
    lines += ["", "| pairwise % | color | texture | shape | joint: top-1 in all three |", "|---|---|---|---|---|"]
    for name, row in {model_row(result): method, **result["reference_lines"], "chance": result["chance"]}.items():
        cells = [cell(row["pairwise"][granularity]) for granularity in GRANULARITIES]
        lines.append(f"| {name} | " + " | ".join([*cells, cell(row["joint"])]) + " |")
    return "\n".join(lines)


def model_row(result: dict[str, Any]) -> str:
    return f"**{result['settings']['model']}**"
