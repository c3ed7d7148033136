"""The card of the embedded default, and the figures of the project's README, from files that commands rewrite.

    python -m mg_diffusion.cards hub_cards/mg-bazaar [--readme README.md] [--credits DATA_DIR]

reads `bench.json` (`mg-diffusion bench --pictures hub_cards/mg-bazaar/bench`), `speed.json` (`benchmarks/speed.py`) and
`training.json` (the run's `training_config.json`, with the number of `parameters` added), and writes the folder's
README.md. With `--readme` the block between the two `numbers` comments of that file is replaced too. With `--credits`
it lists the authors of the training pictures in CREDITS.md.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from mg_diffusion.granularities import GRANULARITIES
from mg_diffusion.mg_bench.tables import (
    TRACKS,
    dominance_of,
    leakage_table,
    methods_table,
    parts,
    percent,
    retrieval_table,
    table,
)
from mg_diffusion.mg_bench.targets import targets_table


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
{index}
---
"""

BODY = """
# mg-bazaar: a miniature Stable Diffusion steered by color, texture and shape

The embedded default of MG-Diffusion (`mg-diffusion` for pip): {parameters:.1f} M parameters, {resolution} px, trained from
scratch on two CPU cores. It exists so that every part can be tried on a laptop without a download; it is not a picture generator of
general use.

```python
import torch
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("mg-bazaar", trust_remote_code=True)
image = pipe(
    reference_image={{"color": ["#c81e1e:2", "#f5deb3"], "texture": "brick.png", "shape": "leaf.png"}},
    generator=torch.Generator().manual_seed(0),
).images[0]
```

`custom_pipeline="pipeline_mg_inpaint"` loads the pipeline that repaints part of a picture instead.

## Measured

By MG-Bench (`mg-diffusion bench`), on held-out pictures, with judges that share nothing with the encoder: sliced
Wasserstein distance in Lab for color, LBP histograms for texture, variance explained by regions for shape. Brackets:
95 % bootstrap intervals. All figures, with their settings, are in `bench.json`.

![Triples of references, outputs and, where it is known, the true answer](bench/grid.png)

![Which attribute moves when one reference is swapped, and how distances fall with strength](bench/plots.png)

### Targets

What this model was meant to reach; docs/training.md of the project lists what was tried for those that it misses.

{targets}

{measured}

{other_data}

{baselines}

{controls}

### Failures

The outputs farthest from their references:

![References and outputs](bench/failures.png)

### Nearest training pictures

The outputs nearest to a training picture, and that picture under them:

![Outputs and training pictures](bench/pairs.png)

## Speed

{speed}

## Training

{training}

These are the settings of the last run; it continued from the weights of earlier ones, which docs/training.md of the
project lists. Supervision: photographs whose references pass views that destroy the other granularities, exact triples
crossed from three photographs, and exact triples of a procedural renderer. No picture of the benchmark was seen in
training.

## Limits

- {resolution} px. Textures finer than two pixels do not exist here.
- Shape takes bold silhouettes and large regions; faces and small objects are lost. Now and then a patch gets a color
  that no reference shows.
- Inpainting without references continues colors, not objects; PSNR inside is below that of classical filling.
- Words do little. A prompt without references gives vague patches in likely colors.
- Crossed references give pictures that look composed rather than photographed: colors are laid into the regions of
  the shape reference, under the texture of the texture reference.
- Which region gets which color is drawn by the seed, not by meaning: a sky may turn green. Local contrast counts as
  texture.

## Training data and licenses

Pictures at 128 px of three public sources: TensorFlow's flower_photos (CC BY 2.0; authors in CREDITS.md), the
Clothing dataset of Alexey Grigorev and contributors (CC0 1.0), the Grocery Store dataset of Marcus Klasson et al.
(MIT). Code and weights: Apache-2.0.
"""


OTHER_DATA = """### The same bench on other pictures

`{data}`: {count} pictures of a distribution that training did not see, benched with no other change."""

BASELINES = """### Other methods on the same base

`python -m benchmarks.baselines` trains each of them, from diffusers' own classes, on this UNet, frozen, with the same
samples in the same order. `mg_adapter` is our own adapter trained from nothing with that budget, not the shipped one.
The base learned together with an earlier adapter of ours, which favors ours. IP-Adapter reads pictures through tokens,
T2I-Adapter and ControlNet read coarse colors, luminance and Canny edges. 12 800 samples are few, and these peers, which
see plain pictures, hardly learn from them which to take what from; what they would reach with millions, this does not
show. `gatys` is texture optimisation that starts from the shape reference recolored by histogram matching, so it keeps
that picture's very outlines, and on photographs it meets all three more often than the shipped model. `mg-bazaar` is the
shipped model, on as many pictures as the others, for Frechet distances depend on their number."""

CONTROLS = """### Further controls

`python -m benchmarks.control_surface`. Feature guidance: {count} triples of photographs; how often the output is nearer to its
own reference than to another picture. Guidance follows a sliced Wasserstein distance of colors itself; the last column
judges colors by RGB histograms, which share nothing with it.

{guidance}

Two palettes, left and right: {share:.1f} % of {halves} halves are nearer to their own. Rank correlation of strength, nine
from 0 to 1, and likeness: {response}. Color distance of a repainted middle to its surroundings: {with_context:.2f} with
context, {without_context:.2f} without. Times of a call, over that of a plain call with all three references: {costs}."""

# The entries of `ratio_to_stock_step` of benchmarks/speed.py, for people.
TIMED = {
    "step_conditioned": "a step with all three references",
    "step_attention_only": "the same, attention only",
    "step_residuals_only": "the same, residuals only",
    "condition_once": "fusing and folding, once a call",
    "encode_64": "encoding three references of 64 px, once a call",
    "encode_128": "of 128 px",
    "encode_256": "of 256 px",
    "encode_256_color": "of 256 px, the color branch",
    "encode_256_texture": "of 256 px, the texture branch",
    "encode_256_shape": "of 256 px, the shape branch",
    "encode_512": "of 512 px",
}


def _read(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    if not path.is_file():
        raise ValueError(f"{path} is missing; the docstring of mg_diffusion.cards names the command that writes it.")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is damaged: {error}.") from error


def model_index(bench: dict[str, Any]) -> str:
    """The `model-index` of the front matter: top-1 retrieval of both tracks, and the dominance of the leakage matrices."""
    settings = bench["settings"]
    tracks = {
        "synthetic": TRACKS["synthetic"],
        "photographic": f"{settings['data']} ({settings['split'] or 'all'})",
    }
    results = []
    for track, data in tracks.items():
        metrics = []
        if f"retrieval_{track}" in bench:
            method = bench[f"retrieval_{track}"]["method"]
            metrics += [(f"{name}, own reference nearest", method["top1"][name]["mean"]) for name in GRANULARITIES]
            metrics.append(("all three nearest", method["joint"]["mean"]))
        if f"leakage_{track}" in bench:
            dominance = bench[f"leakage_{track}"]["method"]["by_everything"]["dominance"]["mean"]
            metrics.append(("leakage matrix, diagonal minus rest", dominance))
        rows = [
            {"type": name.replace(", ", "_").replace(" ", "_"), "name": name, "value": round(value, 4)}
            for name, value in metrics
        ]
        if rows:
            task = {"type": "image-to-image", "name": "crossed references"}
            results.append({"task": task, "dataset": {"type": track, "name": data}, "metrics": rows})
    return "model-index: " + json.dumps([{"name": settings["model"].split()[0], "results": results}])


def readme_tables(bench: dict[str, Any]) -> str:
    """The figures of the project's README: retrieval on photographs, and leakage."""
    if "retrieval_photographic" not in bench:
        raise ValueError("bench.json lacks retrieval_photographic. Run mg-diffusion bench with that section.")
    photographic, model = bench["retrieval_photographic"], bench["settings"]["model"]
    count = photographic["settings"]["candidates"]
    blocks = [
        f"Three references from three different held-out photographs; how often the output is nearer to its own "
        f"reference than to another picture:\n\n{retrieval_table(photographic, model, 'pairwise')}",
        f"How often its own reference is the nearest of {count}:\n\n{retrieval_table(photographic, model)}",
    ]
    if "retrieval_synthetic" in bench:
        rendered = retrieval_table(bench["retrieval_synthetic"], model)
        blocks.append(f"The same for rendered pictures, where the true answer is known:\n\n{rendered}")
    for track in ("synthetic", "photographic"):
        if f"leakage_{track}" in bench:
            found = bench[f"leakage_{track}"]
            blocks.append(
                f"Leakage, {track}: one reference is swapped, the other two and the noise stay; how much each attribute "
                f"moves, as a share of what swapping all three moves (`seed`: only the noise changes). "
                f"{dominance_of(found)}\n\n{leakage_table(found['method'])}"
            )
    return "\n\n".join(blocks)


def speed_table(speed: dict[str, Any]) -> str:
    """Markdown table of the ratios of `speed.json`."""
    place = f"{speed['settings']['cores']} CPU cores" if speed["settings"]["device"] == "cpu" else "GPU"
    ratios = speed["ratio_to_stock_step"]
    order = [*(name for name in TIMED if name in ratios), *(name for name in ratios if name not in TIMED)]
    rows = (f"| {TIMED.get(name, name)} | {ratios[name]:.2f} |" for name in order)
    return "\n".join([f"| in steps of the stock UNet, {place} | |", "|-|-|", *rows])


def card(folder: Path) -> str:
    """The text of the folder's README.md.

    Raises:
        ValueError: if one of the three measurement files is missing, or an entry the card needs.
    """
    bench, speed, training = (_read(folder, f"{name}.json") for name in ("bench", "speed", "training"))
    missing = [name for name in ("parameters", "resolution") if name not in training]
    if missing:
        raise ValueError(f"{folder / 'training.json'} lacks {', '.join(missing)}.")
    told = {name: value for name, value in sorted(training.items()) if name not in PLACES and value is not None}
    settings = "\n".join(["| setting | value |", "|-|-|", *(f"| {name} | {value} |" for name, value in told.items())])
    return FRONT_MATTER.format(index=model_index(bench)) + BODY.format(
        parameters=training["parameters"] / 1e6,
        resolution=training["resolution"],
        targets=targets_table(bench),
        measured="\n\n".join(f"### {title}\n\n{text}" for title, text in parts(bench)),
        other_data=other_data(folder),
        baselines=baselines(folder),
        controls=controls(folder),
        speed=speed_table(speed),
        training=settings,
    )


def other_data(folder: Path) -> str:
    """What was measured on other pictures, from `other_data/*.json` in the folder; empty where nothing was."""
    texts = []
    for path in sorted(folder.glob("other_data/*.json")):
        bench = _read(path.parent, path.name)
        settings = bench["settings"]
        texts.append(OTHER_DATA.format(data=settings["data"], count=settings["pictures"]))
        texts += [f"{title}:\n\n{text}" for title, text in parts(bench)]
    return "\n\n".join(texts)


def baselines(folder: Path) -> str:
    """The section on other methods, from `baselines/*.json` in the folder; empty where none was measured."""
    results = []
    for path in sorted(folder.glob("baselines/*.json")):
        result = _read(path.parent, path.name)
        results.append({**result, "settings": {**result["settings"], "model": path.stem}})  # not the folder it lay in
    if not results:
        return ""
    text = BASELINES
    for track in ("photographic", "synthetic"):
        benched = [result for result in results if f"retrieval_{track}" in result]
        if benched:
            text += f"\n\nOwn reference nearest, {TRACKS[track]}:\n\n{methods_table(benched, track)}"
    return text


def controls(folder: Path) -> str:
    """The section on further controls, from `control_surface.json`; empty where they were not measured."""
    if not (folder / "control_surface.json").is_file():
        return ""
    found = _read(folder, "control_surface.json")
    columns = [*GRANULARITIES, "color_by_histogram"]
    kinds = [
        [kind, *(percent(shares[name]) for name in columns)] for kind, shares in found["feature_guidance"].items()
    ]
    response = found["strength_response"].items()
    return CONTROLS.format(
        count=found["settings"]["count"],
        guidance=table(["%", *GRANULARITIES, "color, by histograms"], kinds),
        share=100 * found["two_palettes"]["share"],
        halves=found["two_palettes"]["halves"],
        response=", ".join(f"{name} {one['rank_correlation']:.2f}" for name, one in response),
        with_context=found["context_color_distance"]["with"],
        without_context=found["context_color_distance"]["without"],
        costs=", ".join(
            f"{name.replace('_', ' ')} {ratio:.2f}" for name, ratio in sorted(found["cost_over_plain_call"].items())
        ),
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
            bench, speed = _read(args.folder, "bench.json"), _read(args.folder, "speed.json")
            block = readme_tables(bench) + "\n\n" + speed_table(speed)
            text = replace_numbers(args.readme.read_text(encoding="utf-8"), block)
            args.readme.write_text(text, encoding="utf-8")
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
