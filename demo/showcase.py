"""One picture of what the default model does: `python -m demo.showcase --output outputs/showcase.png`.

Six triples of references and what is made of them; three rows in which only one reference changes; an edit. Needs no
download and no prompt: the references are photographs bundled with scikit-image, drawn shapes and palettes.
"""

import argparse
import resource
import sys
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw
import torch

from demo import layout
from demo.references import SIDE, photograph, picture, reference
from mg_diffusion.granularities import GRANULARITIES
from mg_diffusion.loading import load_pipeline, model_name, quiet
from mg_diffusion.recipe import prepare_output, save_png


Triple = dict[str, str]  # granularity -> name of a reference
SHOWN = tomllib.loads(Path(__file__).with_name("showcase.toml").read_text(encoding="utf-8"))
TRIPLES: list[Triple] = SHOWN["triples"]
SWEEPS: dict[str, tuple[Triple, list[str]]] = SHOWN["sweeps"]  # only one granularity changes; the seed stays too
EDITS: list[Triple] = SHOWN["edits"]
SEED = 0
BATCH = 2
LARGE, SMALL, TINY = 256, 132, 64  # generations, references beside them, references above them
PHOTO = 400


def generate(pipe: Any, triples: Sequence[Triple], steps: int) -> list[PIL.Image.Image]:
    """One picture for each triple, all from the same noise, several at a time."""
    images = []
    for start in range(0, len(triples), BATCH):
        batch = triples[start : start + BATCH]
        images += pipe(
            reference_image={name: [[reference(triple[name])] for triple in batch] for name in GRANULARITIES},
            num_inference_steps=steps,
            generator=[torch.Generator().manual_seed(SEED) for _ in batch],
        ).images
    return images


def sweep_triples(name: str) -> list[Triple]:
    fixed, changing = SWEEPS[name]
    return [{**fixed, name: each} for each in changing]


def edit_mask() -> PIL.Image.Image:
    """The inside of the cup on the photograph `coffee`, white."""
    mask = PIL.Image.new("L", (SIDE, SIDE))
    PIL.ImageDraw.Draw(mask).ellipse([SIDE * part for part in (0.15, 0.08, 0.66, 0.54)], fill=255)
    return mask


def edit(
    pipe: Any, image: PIL.Image.Image, mask: PIL.Image.Image, triples: Sequence[Triple], steps: int
) -> list[PIL.Image.Image]:
    """The photograph with its masked part repainted, once for each triple."""
    return pipe(
        image=image,
        mask_image=mask,
        reference_image={name: [[reference(triple[name])] for triple in triples] for name in GRANULARITIES},
        padding_mask_crop=8,
        num_inference_steps=steps,
        generator=[torch.Generator().manual_seed(SEED) for _ in triples],
    ).images


def count_outside(image: PIL.Image.Image, mask: PIL.Image.Image, edited: Sequence[PIL.Image.Image]) -> int:
    """Pixels outside the mask that differ from the photograph, over all results."""
    outside = np.asarray(mask) == 0
    return sum(int(((np.asarray(one) != np.asarray(image)).any(2) & outside).sum()) for one in edited)


def heading(title: str, subtitle: str) -> PIL.Image.Image:
    return layout.below([layout.label(title, 24), layout.label(subtitle, 15, layout.FAINT)], gap=0)


def thumbnails(names: Sequence[str], side: int, gap: int = 8) -> PIL.Image.Image:
    return layout.beside([layout.scaled(picture(name), side) for name in names], gap)


def draw_triples(triples: Sequence[Triple], images: Sequence[PIL.Image.Image]) -> PIL.Image.Image:
    """Two triples side by side in a row: color | texture | shape | generation."""
    widths = [*[SMALL] * len(GRANULARITIES), LARGE]
    header = layout.beside(
        [layout.label(t, 15, layout.FAINT, w) for t, w in zip((*GRANULARITIES, "generation"), widths, strict=True)]
    )
    cells = [
        layout.beside([thumbnails([triple[name] for name in GRANULARITIES], SMALL), layout.scaled(image, LARGE)])
        for triple, image in zip(triples, images, strict=True)
    ]
    columns = [layout.below([header, *cells[side::2]]) for side in (0, 1)]
    return layout.beside(columns, gap=48, align=0)


def draw_sweep(name: str, images: Sequence[PIL.Image.Image]) -> PIL.Image.Image:
    """A row of generations, each under the reference that changed; what stayed is on the left."""
    fixed, changing = SWEEPS[name]
    columns = [
        layout.below([layout.scaled(picture(each), TINY), layout.scaled(image, LARGE)], gap=4, align=0.5)
        for each, image in zip(changing, images, strict=True)
    ]
    labeled = ((layout.label(other, 13, layout.FAINT), thumbnails([fixed[other]], 72)) for other in fixed)
    kept = [part for both in labeled for part in both]
    left = layout.below([layout.label(f"{name}:", 16), layout.space(96, 26), *kept], gap=2)
    return layout.beside([left, *columns], align=0)


def draw_edits(
    image: PIL.Image.Image, mask: PIL.Image.Image, triples: Sequence[Triple], edited: Sequence[PIL.Image.Image]
) -> PIL.Image.Image:
    """The photograph with its mask, then each result under its references."""
    columns = [layout.with_mask(layout.scaled(image, PHOTO), mask)]
    for triple, result in zip(triples, edited, strict=True):
        above = layout.beside([thumbnails([triple[name]], TINY) for name in GRANULARITIES])
        columns.append(layout.below([above, layout.scaled(result, PHOTO)], gap=4, align=0.5))
    return layout.beside(columns, gap=24, align=1)


def make_showcase(pipe: Any, inpaint: Any, steps: int) -> tuple[PIL.Image.Image, int]:
    """The picture, and the number of pixels outside the mask that the edits changed."""
    swept = {name: sweep_triples(name) for name in GRANULARITIES}
    everything = generate(pipe, [*TRIPLES, *(triple for row in swept.values() for triple in row)], steps)
    made, rest = everything[: len(TRIPLES)], everything[len(TRIPLES) :]
    photo, mask = photograph("coffee"), edit_mask()
    edited = edit(inpaint, photo, mask, EDITS, steps)
    differing = count_outside(photo, mask, edited)
    width, height = made[0].size
    sections = [
        heading(
            "Color, texture and shape, each from another reference", f"no prompt, {steps} steps; {width} x {height} px"
        ),
        draw_triples(TRIPLES, made),
        heading("One reference changes, the others stay", "the changing reference is above each picture; same seed"),
    ]
    for name in GRANULARITIES:
        sections.append(draw_sweep(name, rest[: len(swept[name])]))
        rest = rest[len(swept[name]) :]
    sections += [
        heading(
            "An edit: only the masked part of a photograph is repainted",
            f"mask hatched; color, texture and shape references above each result; pixels outside the mask that "
            f"differ: {differing}",
        ),
        draw_edits(photo, mask, EDITS, edited),
    ]
    return layout.framed(layout.below(sections, gap=20), margin=40), differing


def peak_memory() -> float:
    """Of this process so far, in GiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**30 if sys.platform == "darwin" else peak / 2**20  # bytes there, KiB elsewhere


def run(options: argparse.Namespace) -> None:
    from mg_diffusion import MGInpaintPipeline, MGPipeline  # after `quiet`: transformers reports while it is imported

    start = time.perf_counter()
    output = prepare_output(options.output, ".png")
    pipe = load_pipeline(MGPipeline, options.model, device=options.device)
    inpaint = MGInpaintPipeline(**pipe.components)
    steps = pipe.default_num_inference_steps if options.steps is None else options.steps
    image, differing = make_showcase(pipe, inpaint, steps)
    recipe = {
        "command": "demo.showcase",
        "model": model_name(options.model),
        "seed": SEED,
        "num_inference_steps": steps,
        "triples": TRIPLES,
        "sweeps": {name: sweep_triples(name) for name in GRANULARITIES},
        "edits": EDITS,
    }
    save_png(image, output, recipe)
    print(f"pixels outside the mask that differ: {differing}")
    print(f"{time.perf_counter() - start:.0f} s, peak memory {peak_memory():.2f} GiB")
    print(output)
    if differing:
        raise ValueError(f"The edits changed {differing} pixels outside the mask, which must never happen.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the picture; returns the exit status: 0, or 2 after an error."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="outputs/showcase.png", metavar="FILE.png")
    parser.add_argument("--model", metavar="FOLDER_OR_HUB_ID", help="default: the model that comes with the package")
    parser.add_argument("--steps", type=int, help="denoising steps; default: as many as the model wants")
    parser.add_argument("--device", default="auto", help="auto (CUDA where there is some), cpu, cuda, mps")
    options = parser.parse_args(arguments)
    quiet()
    try:
        run(options)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
