"""The model card of a run: what was trained, how, and how to use it."""

from datetime import timedelta
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from mg_diffusion.model_card import PLACES

from .arguments import defaults_of
from .run_files import Run
from .validation import BUCKETS, TIMESTEPS_PER_BUCKET


# Flags that say where a run reported to and what it was to push, and nothing of what was trained.
ABOUT_ITSELF = {"stage", "report_to", "tracker_project_name", "push_to_hub", "hub_model_id", "hub_private_repo"}
TITLES = {
    "vae": "An autoencoder",
    "base": "A miniature Stable Diffusion",
    "adapter": "An adapter for Stable Diffusion",
    "detail": "A detail network of the octaves above a base",
}
STEERED = " steered by the color, texture and shape of reference images"

USE = {
    "vae": """```python
from diffusers import AutoencoderKL

vae = AutoencoderKL.from_pretrained("{place}")
```

Stage `base` of the training takes it: `--vae`.""",
    "base": """```python
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("{place}", trust_remote_code=True)
references = {{"color": ["#c81e1e:2", "#f5deb3"], "texture": "texture.png", "shape": "shape.png"}}
image = pipe("a caption", reference_image=references).images[0]
```

`trust_remote_code` runs the pipeline's files in this repository; no other package is needed.""",
    "text": """```python
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("{place}", trust_remote_code=True)
image = pipe("a caption").images[0]
```""",
    "adapter": """```python
from mg_diffusion import MGAdapter, MGEncoder
from mg_diffusion.pipelines import pipeline_class

base, adapter = "{base}", "{place}"
parts = {{
    "mg_encoder": MGEncoder.from_pretrained(adapter, subfolder="mg_encoder"),
    "mg_adapter": MGAdapter.from_pretrained(adapter, subfolder="mg_adapter"),
}}
pipe = pipeline_class(base).from_pretrained(base, **parts)
references = {{"color": ["#c81e1e:2", "#f5deb3"], "texture": "texture.png", "shape": "shape.png"}}
image = pipe("a caption", reference_image=references).images[0]
```

The weights are encoder and adapter alone. `mg-diffusion export --base {base} --adapter {place} -o my-model` makes a
repository of both that loads without this package.""",
    "detail": """```python
from diffusers import UNet2DModel

unet = UNet2DModel.from_pretrained("{place}")
```

`mg_diffusion.octaves.paint_octaves` enlarges pictures with it, by sketch and canvas; `--init_from` of the stage goes on from
it.""",
}

BODY = """
# {title}

Trained with MG-Diffusion (`pip install mg-diffusion`), stage `{stage}`, at {resolution} px: {steps:,} steps, {samples:,}
samples{duration}. This card was written by the run.

## Use

{use}

## What it reached

![Losses and the norm of the gradient over the steps](curves.png)

{figures}

{grid}

These are losses, not measures of quality. `mg-diffusion bench` measures how well references are followed.

## Training

{environment}

Flags that differ from their defaults:

{settings}

## Limits

- It knows pictures like those it was trained on, at {resolution} px.
- Whether it repeats training pictures was not examined.

## Licenses

To be filled in by who publishes this: the license of the training pictures and whom to credit for them, the license of
the model that training started from, if there was one, and the license of these weights (`license` in the front matter).
"""
GRID = """![Held-out pictures and what the model makes of them](grid.png)

{rows}"""
GRID_ROWS = {
    "vae": "Held-out pictures above their reconstructions.",
    "base": "Columns: three held-out pictures as references of color, texture and shape; the result of all three without a "
    "caption; of each alone with its caption; of the caption alone. The same seeds at every validation.",
    "text": "Results of captions of held-out pictures.",
    "detail": "Held-out crops: the smaller picture, sketch and canvas as they are told, what is painted, and what is true.",
}
BUCKET_NOTE = (
    f"Validation loss of held-out samples with fixed noise, in {BUCKETS} buckets of timesteps; each sample is measured "
    f"once a bucket, at one of its {TIMESTEPS_PER_BUCKET} fixed timesteps in turn. High timesteps are noise, low ones detail."
)


def table(header: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows))


def figures_table(run: Run) -> str:
    """The first and the last value of what is measured; "before training" where a validation was made at the start."""
    rows = []
    for name in [*run.names("val_"), "loss"]:
        steps, values = run.series(name)
        if steps:
            first = f"{values[0]:.4f} ({'before training' if steps[0] == 0 else f'step {steps[0]:,}'})"
            rows.append([f"`{name}`", first, f"{values[-1]:.4f} (step {steps[-1]:,})"])
    text = table(["", "first", "last"], rows)
    return f"{text}\n\n{BUCKET_NOTE}" if run.names("val_loss_t") else text


def settings_table(run: Run) -> str:
    """The flags that differ from their defaults. Places on the machine of the run are left out or cut to a name."""
    defaults = defaults_of(run.config["stage"], is_fine_tuning=bool(run.config.get("init_from")))
    told = {
        name: value
        for name, value in sorted(run.config.items())
        if name not in PLACES | ABOUT_ITSELF and value != defaults.get(name)
    }
    return table(["flag", "value"], [[f"`--{name}`", _public(value)] for name, value in told.items()])


def _public(value: Any) -> str:
    is_place = isinstance(value, str) and (Path(value).is_absolute() or Path(value).exists())
    return Path(value).name if is_place else str(value)


def environment_table(run: Run) -> str:
    """Hardware and versions."""
    rows = []
    if "device" in run.environment:
        count = run.environment["processes"]
        rows = [["hardware", run.environment["device"] if count == 1 else f"{count} x {run.environment['device']}"]]
        rows += [[name, version] for name, version in run.environment["versions"].items()]
    return table(["", ""], rows) if rows else "Versions and hardware were not recorded."


def card(run: Run) -> str:
    """The text of the run's README.md."""
    config, base = run.config, run.environment.get("base_model")
    title = TITLES[config["stage"]] + (STEERED if run.kind in ("base", "adapter") else "")
    tags = ["diffusers", "mg-diffusion"]
    if run.kind in ("base", "adapter"):
        tags += ["text-to-image", "image-to-image", "reference-conditioned"]
    data = ModelCardData(library_name="diffusers", tags=tags, base_model=base, datasets=config.get("dataset_name"))
    if base:
        data.base_model_relation = "adapter" if config["stage"] == "adapter" else "finetune"
    place = (config.get("push_to_hub") and config["hub_model_id"]) or "path/to/weights"
    grids = sorted(run.folder.glob("grid-*.png"))
    duration = f", {timedelta(seconds=round(run.seconds))} h" if run.seconds else ""
    return f"---\n{data.to_yaml()}\n---\n" + BODY.format(
        title=title,
        stage=config["stage"] + (" --text_only" if run.kind == "text" else ""),
        resolution=config["resolution"],
        steps=max(run.steps),
        samples=run.samples,
        duration=duration,
        use=USE[run.kind].format(place=place, base=base or "path/to/the/base"),
        figures=figures_table(run),
        grid=GRID.format(rows=GRID_ROWS.get(run.kind, GRID_ROWS["base"])) if grids else "No grid was drawn.",
        environment=environment_table(run),
        settings=settings_table(run),
    )
