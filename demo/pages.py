"""The pictures of the documentation's pages, made by the default model: `python -m demo.pages --output docs/images`."""

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw
import torch

from demo import layout
from demo.references import picture, reference, swatch
from mg_diffusion import compose
from mg_diffusion import edits as named
from mg_diffusion.attribution import draw_attribution
from mg_diffusion.loading import load_pipeline, model_name, quiet
from mg_diffusion.palettes import extract_palette
from mg_diffusion.recipe import prepare_output, save_png


SIDE, SEED = 160, 0
POPPY = {"color": "poppy", "texture": "weave", "shape": "flower"}
SEA = {"color": "sea", "texture": "brick", "shape": "star"}
Cell = tuple[str, PIL.Image.Image]


def row(title: str, cells: Sequence[Cell]) -> PIL.Image.Image:
    """Labeled pictures under a title."""
    columns = [
        layout.below([layout.label(text, 14, layout.FAINT, SIDE), layout.scaled(image, SIDE)], gap=4)
        for text, image in cells
    ]
    return layout.below([layout.label(title, 18), layout.beside(columns)])


def given(triple: dict[str, str]) -> dict[str, Any]:
    return {name: reference(each) for name, each in triple.items()}


def generate(pipe: Any, references: dict[str, Any], **options: Any) -> PIL.Image.Image:
    generator = torch.Generator().manual_seed(SEED)
    return pipe(reference_image=references or None, generator=generator, **options).images[0]


def five_minutes(pipe: Any) -> list[PIL.Image.Image]:
    """A leaf, then with another color reference, then with another texture reference: docs/five-minutes.md."""
    first = {"color": "coffee", "texture": "weave", "shape": "leaf"}
    triples = (first, {**first, "color": "sea"}, {**first, "texture": "brick"})
    cells = []
    for before, triple in zip(({}, *triples), triples, strict=False):
        cells += [(name, picture(each)) for name, each in triple.items() if before.get(name) != each]
        cells.append(("", generate(pipe, given(triple))))
    return [row("one reference after the other", cells)]


def palettes(pipe: Any) -> list[PIL.Image.Image]:
    """A picture as color reference, its palette, and the palette edited."""
    others = {"texture": reference("weave"), "shape": reference("leaf")}
    found = extract_palette(pipe.mg_encoder, reference("coffee"), 4)
    edited = [*found[1:], "#1d6fd1:40"]
    cells = [("texture", picture("weave")), ("shape", picture("leaf"))]
    for name, color in (("the picture", reference("coffee")), ("its palette", found), ("edited", edited)):
        shown = swatch(color) if isinstance(color, list) else color
        cells += [(name, shown), ("", generate(pipe, {"color": color, **others}))]
    return [row("palette: " + ", ".join(found), cells)]


def regions(pipe: Any) -> list[PIL.Image.Image]:
    """References that count in a part of the output, with a hard and a soft edge."""
    left, right = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)
    ramp = np.tile(np.linspace(0, 1, 64, dtype=np.float32), (64, 1))
    warm = ["#e63946", "#f4a261"]

    def two(one: Any, region: Any, other: Any, rest: Any) -> list[dict[str, Any]]:
        return [{"image": one, "region": region}, {"image": other, "region": rest}]

    weave, brick, leaf = (reference(name) for name in ("weave", "brick", "leaf"))
    calls = (
        ("colors left | right", {"color": two(warm, left, reference("sea"), right), "texture": weave, "shape": leaf}),
        ("with a soft edge", {"color": two(warm, 1 - ramp, reference("sea"), ramp), "texture": weave, "shape": leaf}),
        ("textures left | right", {"color": warm, "texture": two(brick, left, weave, right), "shape": leaf}),
        ("a shape in a corner", {"color": warm, "shape": {"image": leaf, "region": (0.5, 0.5, 1.0, 1.0)}}),
    )
    cells = [("color", swatch(warm)), ("color", picture("sea")), ("texture", picture("brick"))]
    cells += [("texture", picture("weave")), ("shape", picture("leaf"))]
    return [row("references for a part of the output", [*cells, *((text, generate(pipe, r)) for text, r in calls)])]


def cards(pipe: Any) -> list[PIL.Image.Image]:
    """From one granularity card of texture to another."""
    others = {"color": reference("sea"), "shape": reference("shirt")}
    with tempfile.TemporaryDirectory() as folder:
        one, other = (str(Path(folder, f"{name}.safetensors")) for name in ("brick", "weave"))
        for path, name in ((one, "brick"), (other, "weave")):
            pipe.mg_encoder.save_card(path, "texture", reference(name))
        cells = [("texture, card 1", picture("brick"))]
        for share in (0.0, 0.25, 0.5, 0.75, 1.0):
            weighted = [{"image": card, "weight": w} for card, w in ((one, 1 - share), (other, share)) if w]
            cells.append((f"{share:.0%} of card 2", generate(pipe, {"texture": weighted, **others})))
    cells.append(("texture, card 2", picture("weave")))
    return [row("two texture cards, mixed by weight", cells)]


def schedules(pipe: Any) -> list[PIL.Image.Image]:
    """One granularity limited to a part of the run, the others throughout."""
    curves = {
        **{"always": (0.0, 1.0), "first half": (0.0, 0.5), "first quarter": (0.0, 0.25)},
        **{"second half": (0.5, 1.0), "last quarter": (0.75, 1.0), "fading, [1, 0]": [1.0, 0.0]},
    }
    return one_by_one(pipe, POPPY, "when the {} reference counts", "granularity_schedule", curves)


def one_by_one(pipe: Any, triple: dict[str, str], title: str, option: str, values: dict[str, Any]) -> list:
    """A row for each granularity, in which an option of the pipeline has other values for it alone."""
    rows, references = [], given(triple)
    for name in triple:
        cells = [(name, picture(triple[name]))]
        cells += [(text, generate(pipe, references, **{option: {name: value}})) for text, value in values.items()]
        rows.append(row(title.format(name), cells))
    return rows


def guidance(pipe: Any) -> list[PIL.Image.Image]:
    """Each granularity pushed further, and a palette that is avoided."""
    scales = {f"{scale:g}": scale for scale in (0.0, 0.5, 1.0, 2.0, 4.0)}
    rows = one_by_one(pipe, SEA, "granularity_guidance of {}", "granularity_guidance", scales)
    away, references = ["#023047"], given(SEA)
    cells = [("color", picture("sea")), ("negative color", swatch(away))]
    for scale in (0.0, 0.5, 1.0, 2.0):
        options = {"negative_reference_image": {"color": away}, "granularity_guidance": {"color": scale}}
        cells.append((f"{scale:g}", generate(pipe, references, **options)))
    return [*rows, row("away from a palette", cells)]


def feature_guidance(pipe: Any) -> list[PIL.Image.Image]:
    """Without adapter and with one, guided and not."""
    without = type(pipe)(**{**pipe.components, "mg_adapter": None})
    without.set_progress_bar_config(disable=True)
    rows = []
    for triple in (SEA, {"color": "poppy", "texture": "weave", "shape": "leaf"}):
        references = given(triple)
        cells = [(name, picture(each)) for name, each in triple.items()]
        cells.append(("neither", generate(without, {})))
        for scale in (0.3, 1.0, 3.0):
            cells.append((f"guidance {scale:g}", generate(without, references, feature_guidance_scale=scale)))
        cells.append(("adapter", generate(pipe, references)))
        cells.append(("both", generate(pipe, references, feature_guidance_scale=1.0)))
        rows.append(row("feature guidance without an adapter, and with one", cells))
    return rows


def attribution(pipe: Any) -> list[PIL.Image.Image]:
    """Where and when each granularity moved the prediction."""
    rows = []
    for triple in (POPPY, SEA):
        generator = torch.Generator().manual_seed(SEED)
        made = pipe(reference_image=given(triple), generator=generator, return_attribution=True)
        image = layout.scaled(made.images[0], SIDE)
        drawn = draw_attribution(image, made.attribution)
        titled = (("output", image), ("where and when", drawn))
        rows.append(layout.beside([layout.below([layout.label(t, 14, layout.FAINT), i], gap=4) for t, i in titled]))
    return rows


def edits(pipe: Any) -> list[PIL.Image.Image]:
    """Photographs and what the named edits make of them, at the size they have."""
    from mg_diffusion import MGInpaintPipeline  # late, as in `main`

    inpaint = MGInpaintPipeline(**pipe.components)
    inpaint.set_progress_bar_config(disable=True)
    photos = {name: reference(name) for name in ("cat", "coffee", "rocket")}
    gravel, brick, red = reference("gravel"), reference("brick"), ["#cc2222", "#882222"]

    def spot(photo: PIL.Image.Image, radius: float) -> PIL.Image.Image:
        mask, side = PIL.Image.new("L", photo.size, 0), min(photo.size)
        x, y, r = photo.width // 2, photo.height // 2, round(radius * side)
        PIL.ImageDraw.Draw(mask).ellipse([x - r, y - r, x + r, y + r], fill=255)
        return mask

    def marked(photo: PIL.Image.Image) -> PIL.Image.Image:
        return PIL.Image.composite(PIL.Image.new("RGB", photo.size, "#ff00ff"), photo, spot(photo, 0.16))

    def noisy(photo: PIL.Image.Image) -> PIL.Image.Image:
        noise = np.random.default_rng(SEED).normal(0, 30, (*photo.size[::-1], 3))
        return PIL.Image.fromarray((np.asarray(photo) + noise).clip(0, 255).round().astype(np.uint8))

    calls: dict[str, Callable[[PIL.Image.Image, dict[str, Any]], list[PIL.Image.Image]]] = {
        "retextured: gravel": lambda photo, seed: named.retexture(inpaint, photo, gravel, **seed),
        "retextured: bricks": lambda photo, seed: named.retexture(inpaint, photo, brick, **seed),
        "reshaped": lambda photo, seed: named.reshape(inpaint, photo, spot(photo, 0.28), color=red, **seed),
        "before": lambda photo, seed: [marked(photo)],
        "removed": lambda photo, seed: named.remove(inpaint, marked(photo), spot(photo, 0.18), **seed),
        "variation": lambda photo, seed: named.variation(inpaint, photo, **seed),
        "outpainted": lambda photo, seed: named.outpaint(inpaint, photo, 48, 48, 48, 48, **seed),
    }
    if pipe.mg_detail is not None:
        calls["noisy"] = lambda photo, seed: [noisy(photo)]
        calls["denoised"] = lambda photo, seed: named.denoise(inpaint, noisy(photo))
    rows = []
    for name, photo in photos.items():
        cells = [("photograph", photo)]
        for title, call in calls.items():
            cells.append((title, call(photo, {"generator": torch.Generator().manual_seed(SEED)})[0]))
        rows.append(row("named edits" if name == "cat" else "", cells))
    return rows


def recolor(pipe: Any) -> list[PIL.Image.Image]:
    """Photographs in other colors, computed at the size they have."""
    rows, warm, cold = [], ["#e76f51", "#f4a261", "#e9c46a", "#264653"], ["#0a9396", "#005f73", "#e9d8a6", "#001219"]
    for name, color, shade in (("astronaut", "#e1552d", "#0a9396"), ("coffee", "#7a3b1e", "#2a9d8f")):
        photo = reference(name)
        cells = [("photograph", photo)]
        for each in ("sea", "poppy", "rocket"):
            cells += [("colors", picture(each)), ("recolored", named.recolor(pipe, photo, reference(each))[0])]
        cells.append(("one of them alone", named.recolor(pipe, photo, [shade], select=color, tolerance=25)[0]))
        cells += [(title, named.recolor(pipe, photo, each)[0]) for title, each in (("warm", warm), ("cold", cold))]
        rows.append(row("recolored" if not rows else "", cells))
    return rows


def your_checkpoint(pipe: Any) -> list[PIL.Image.Image]:
    """The composition of references, and what a base without an adapter makes of it as a start."""
    references, laid = given(POPPY), {"height": 256, "width": 256}

    def composed(names: Sequence[str], **options: Any) -> PIL.Image.Image:
        own, generator = {name: references[name] for name in names}, torch.Generator().manual_seed(SEED)
        return compose(own, **laid, generator=generator, encoder=pipe.mg_encoder, **options)[0]

    cells = [(name, picture(each)) for name, each in POPPY.items()]
    cells += [("all three", composed(list(POPPY))), ("assigned freely", composed(list(POPPY), assignment="free"))]
    cells += [(f"{name} alone", composed([name])) for name in POPPY]
    alone = type(pipe)(**{**pipe.components, "mg_adapter": None, "mg_detail": None})
    alone.set_progress_bar_config(disable=True)
    painted = [
        (f"composed start {start:g}", generate(alone, references, composed_start=start))
        for start in (0.0, 0.3, 0.5, 0.7)
    ]
    return [
        row("composed, no model", cells),
        row("a base of 64 px without an adapter, guided from that start", painted),
    ]


MADE = (
    five_minutes,
    palettes,
    regions,
    cards,
    schedules,
    guidance,
    feature_guidance,
    attribution,
    your_checkpoint,
    edits,
    recolor,
)
PAGES: dict[str, Callable[[Any], list[PIL.Image.Image]]] = {page.__name__: page for page in MADE}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="docs/images", metavar="FOLDER")
    parser.add_argument("--only", nargs="+", choices=PAGES, default=list(PAGES), metavar="NAME")
    parser.add_argument("--model", metavar="FOLDER_OR_HUB_ID", help="default: the model that comes with the package")
    options = parser.parse_args(arguments)
    quiet()
    try:
        from mg_diffusion import MGPipeline  # after `quiet`: transformers reports while it is imported

        pipe = load_pipeline(MGPipeline, options.model)
        pipe.set_progress_bar_config(disable=True)
        for name in options.only:
            path = prepare_output(Path(options.output, f"{name}.png"), ".png")
            page = layout.framed(layout.below(PAGES[name](pipe), gap=20), margin=20)
            save_png(page, path, {"command": "demo.pages", "page": name, "model": model_name(options.model)})
            print(path)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
