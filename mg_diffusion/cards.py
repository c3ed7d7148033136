"""The card of a model, and the figures of the project's README, from files that commands rewrite.

    python -m mg_diffusion.cards hub_cards/mg-bazaar [--readme README.md] [--credits DATA_DIR]

reads `control.json` (`mg-diffusion bench`), `speed.json` (`benchmarks/speed.py`) and `training.json` (the run's
`training_config.json`, with the number of `parameters` added), and writes the folder's
README.md. With `--readme` the block between the two `numbers` comments of that file is replaced too. With `--credits`
it lists the authors of the training pictures in CREDITS.md.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any


NAMES = ("color", "texture", "shape")
TARGETS = {"color": 0.90, "texture": 0.75, "shape": 0.85}
# Settings that name a place on the machine of the run; they are nobody's business.
PLACES = {"train_data_dir", "output_dir", "cache_dir", "resume_from_checkpoint", "init_from", "vae"}

FRONT_MATTER = """---
library_name: diffusers
license: apache-2.0
pipeline_tag: text-to-image
tags:
- diffusers
- mg-diffusion
- image-to-image
- inpainting
- reference-conditioned
---
"""

BODY = """
# mg-bazaar: a miniature Stable Diffusion steered by color, texture and shape

The embedded default of [MG-Diffusion]: {parameters:.1f} M parameters, {resolution} px, trained from scratch on two CPU
cores. It exists so that every part can be tried on a laptop without a download; it is not a picture generator of
general use.

```python
import torch
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("mg-bazaar", trust_remote_code=True)
image = pipe(
    reference_image={{"color": ["#c81e1e:2", "#f5deb3"], "texture": "brick.png", "shape": "cat.png"}},
    generator=torch.Generator().manual_seed(0),
).images[0]
```

## Separate control

{control}

## Speed

{speed}

## Training

{training}

These are the settings of the last run; it continued from the weights of earlier ones, which docs/training.md of the
project lists. Supervision: photographs whose references pass views that destroy the other granularities, exact triples crossed from
three photographs, and exact triples of a procedural renderer. No picture of the benchmark was seen in training.

## Limits

- {resolution} px. Textures finer than two pixels do not exist here.
- Words do little. A prompt without references gives vague patches in likely colors.
- Crossed references give pictures that look composed rather than photographed: colors are laid into the regions of
  the shape reference, under the texture of the texture reference.
- Which region gets which color follows a fixed rule, not meaning: a sky may turn green. Local contrast counts as
  texture.

## Training data and licenses

Pictures at 128 px of three public sources: TensorFlow's flower_photos (CC BY 2.0; authors in CREDITS.md), the
Clothing dataset of Alexey Grigorev and contributors (CC0 1.0), the Grocery Store dataset of Marcus Klasson et al.
(MIT). Code and weights: Apache-2.0.

[MG-Diffusion]: https://pypi.org/project/mg-diffusion/
"""


def _read(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    if not path.is_file():
        raise ValueError(f"{path} is missing; the docstring of mg_diffusion.cards names the command that writes it.")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is damaged: {error}.") from error


def _percent(figure: dict[str, float]) -> str:
    return f"{100 * figure['mean']:.1f} % [{100 * figure['low']:.1f}, {100 * figure['high']:.1f}]"


def control_table(control: dict[str, Any]) -> str:
    """Markdown: the output is nearer to its own reference than to another picture, and what trivial methods reach."""
    candidates = control["settings"]["candidates"]
    lines = ["| | " + " | ".join(NAMES) + f" | all three nearest of {candidates} |", "|-|-|-|-|-|"]
    rows = {"**mg-bazaar**": control["method"]}
    labels = {
        "copy_color": "copy the color reference",
        "copy_texture": "copy the texture reference",
        "copy_shape": "copy the shape reference",
        "reinhard": "Reinhard color transfer onto the shape reference",
        "random_picture": "a random picture",
    }
    rows |= {labels[name]: control["reference_lines"][name] for name in labels if name in control["reference_lines"]}
    for label, row in rows.items():
        cells = [_percent(row["pairwise"][name]) for name in NAMES]
        lines.append(f"| {label} | " + " | ".join(cells) + f" | {_percent(row['joint'])} |")
    lines.append("| target | " + " | ".join(f"{100 * TARGETS[name]:.0f} %" for name in NAMES) + " | |")
    note = (
        "Share of cases in which the output is nearer to its own reference than to a random other picture, each of the "
        "three references a different held-out photograph; judged by sliced Wasserstein distance in Lab, LBP "
        "histograms and explained variance of regions, none of which shares anything with the encoder. Brackets: 95 % "
        "bootstrap intervals."
    )
    return "\n".join(lines) + "\n\n" + note


def speed_table(speed: dict[str, Any]) -> str:
    """Markdown table of the ratios of `speed.json`."""
    place = f"{speed['settings']['cores']} CPU cores" if speed["settings"]["device"] == "cpu" else "GPU"
    rows = (f"| {name} | {value:.2f} |" for name, value in speed["ratio_to_stock_step"].items())
    return "\n".join([f"| in steps of the stock UNet, {place} | |", "|-|-|", *rows])


def card(folder: Path) -> str:
    """The text of the folder's README.md.

    Raises:
        ValueError: if one of the three measurement files is missing, or an entry the card needs.
    """
    control, speed, training = (_read(folder, f"{name}.json") for name in ("control", "speed", "training"))
    missing = [name for name in ("parameters", "resolution") if name not in training]
    if missing:
        raise ValueError(f"{folder / 'training.json'} lacks {', '.join(missing)}.")
    told = {name: value for name, value in sorted(training.items()) if name not in PLACES and value is not None}
    table = "\n".join(["| setting | value |", "|-|-|", *(f"| {name} | {value} |" for name, value in told.items())])
    return FRONT_MATTER + BODY.format(
        parameters=training["parameters"] / 1e6,
        resolution=training["resolution"],
        control=control_table(control),
        speed=speed_table(speed),
        training=table,
    )


def replace_numbers(text: str, block: str) -> str:
    """Put `block` between `<!-- numbers -->` and `<!-- /numbers -->`.

    Raises:
        ValueError: if the text lacks the two comments.
    """
    pattern = re.compile(r"(<!-- numbers -->\n).*?(<!-- /numbers -->)", re.DOTALL)
    if not pattern.search(text):
        raise ValueError("The README has no <!-- numbers --> ... <!-- /numbers --> block to fill.")
    return pattern.sub(lambda match: f"{match[1]}{block}\n{match[2]}", text)


def credits(data_dir: Path) -> str:
    """Authors of the training pictures that ask for credit, from the imagefolder's metadata."""
    rows = []
    for metadata in sorted(data_dir.glob("*/metadata.jsonl")):
        rows += [json.loads(line) for line in metadata.read_text(encoding="utf-8").splitlines() if line.strip()]
    try:
        named = sorted({(row["author"], row["source_url"], row["license"]) for row in rows if row.get("author")})
    except KeyError as error:
        raise ValueError(f"A picture of {data_dir} has an author, but no {error.args[0]!r}.") from error
    if not named:
        raise ValueError(f"{data_dir} has no metadata.jsonl with authors below it.")
    lines = [f"- {author}: {url} ({license})" for author, url, license in named]
    return "# Credits of the training pictures\n\n" + "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--readme", type=Path)
    parser.add_argument("--credits", type=Path, metavar="DATA_DIR")
    args = parser.parse_args(arguments)
    try:
        if args.credits:
            (args.folder / "CREDITS.md").write_text(credits(args.credits), encoding="utf-8")
        (args.folder / "README.md").write_text(card(args.folder), encoding="utf-8")
        if args.readme:
            control, speed = _read(args.folder, "control.json"), _read(args.folder, "speed.json")
            block = control_table(control) + "\n\n" + speed_table(speed)
            text = replace_numbers(args.readme.read_text(encoding="utf-8"), block)
            args.readme.write_text(text, encoding="utf-8")
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
