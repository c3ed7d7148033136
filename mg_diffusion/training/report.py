"""The card of a run and its curves, from the files it wrote, into `weights/`.

    python -m mg_diffusion.training.report OUTPUT_DIR

reads `training_config.json`, `environment.json`, `log.jsonl` and the last `grid-*.png`, and writes `README.md`,
`curves.png` and `grid.png` into `OUTPUT_DIR/weights`. Every run that ends does so by itself.
"""

import argparse
import json
import shutil
import sys
from argparse import Namespace
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from huggingface_hub import ModelCardData
from matplotlib import colormaps
from matplotlib.figure import Figure  # not pyplot, which keeps figures alive and looks for a screen
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from mg_diffusion.cards import PLACES

from .arguments import STAGES, defaults_of
from .checkpoints import writing
from .hub import push
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
    "detail": """```python
from diffusers import UNet2DModel

unet = UNet2DModel.from_pretrained("{place}")
```

`mg_diffusion.octaves.paint_octaves` enlarges pictures with it, by sketch and canvas; `--init_from` of the stage goes on from
it.""",
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


@dataclass
class Run:
    """What a run left behind.

    Attributes:
        steps: figures by step, in order; those that a resumed run wrote again are the later ones.
        seconds: time spent, pauses and repeated steps included; `None` where the log does not tell.
        damaged: numbers of the lines of `log.jsonl` that cannot be read.
    """

    folder: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    steps: dict[int, dict[str, float]]
    seconds: float | None
    damaged: list[int]

    @property
    def samples(self) -> int:
        per_step = self.config["train_batch_size"] * self.config["gradient_accumulation_steps"]
        sharing = 1 if self.config.get("split_batches") else self.environment.get("processes", 1)
        return max(self.steps) * per_step * sharing

    @property
    def kind(self) -> str:
        """The stage, or "text" where a base was trained without references."""
        return "text" if self.config.get("text_only") else self.config["stage"]

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of a figure."""
        found = {step: figures[name] for step, figures in self.steps.items() if name in figures}
        return list(found), list(found.values())

    def names(self, beginning: str) -> list[str]:
        return list(dict.fromkeys(n for figures in self.steps.values() for n in figures if n.startswith(beginning)))


def read_run(output_dir: str | Path) -> Run:
    """Read the files of a run.

    Raises:
        ValueError: if the folder holds no run, or one without a readable record or without weights.
    """
    folder = Path(output_dir)
    missing = [n for n in ("training_config.json", "log.jsonl", "weights") if not Path(folder, n).exists()]
    if missing:
        raise ValueError(
            f"{str(folder)!r} holds no run with a checkpoint, for {', '.join(missing)} is missing. Give the --output_dir of "
            f"a training, after its first checkpoint."
        )
    config = json.loads((folder / "training_config.json").read_text(encoding="utf-8"))
    if config.get("stage") not in STAGES:
        raise ValueError(
            f"{str(folder / 'training_config.json')!r} names the stage {config.get('stage')!r}, not {STAGES}."
        )
    path = folder / "environment.json"
    environment = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    steps: dict[int, dict[str, float]] = {}
    sessions, damaged = [], []
    for number, line in enumerate((folder / "log.jsonl").read_text(encoding="utf-8").splitlines(), 1):
        try:
            record = json.loads(line)
            step = int(record.pop("step"))
        except (ValueError, KeyError, TypeError, AttributeError):
            damaged.append(number)
            continue
        steps[step] = {**steps.get(step, {}), **record}
        if "elapsed" in record:
            if sessions and record["elapsed"] >= sessions[-1]:
                sessions.pop()
            sessions.append(record["elapsed"])
    if not steps:
        raise ValueError(f"{str(folder / 'log.jsonl')!r} has no readable record.")
    return Run(folder, config, environment, dict(sorted(steps.items())), sum(sessions) or None, damaged)


def smooth(values: list[float]) -> list[float]:
    """Means of a window around each value, a tenth of all wide."""
    reach = len(values) // 20
    windows = (values[max(0, i - reach) : i + reach + 1] for i in range(len(values)))
    return [sum(window) / len(window) for window in windows]


def _draw_loss(axes: Any, run: Run) -> None:
    steps, losses = run.series("loss")
    axes.plot(steps, losses, color="#9db4d0", linewidth=1, marker="." if len(steps) < 40 else None, label="as logged")
    axes.plot(steps, smooth(losses), color="#1f4e8c", linewidth=2, label="smoothed")
    axes.set_title("training loss")
    axes.legend(frameon=False)


def _draw_validation(axes: Any, run: Run) -> None:
    buckets = run.names("val_loss_t")
    for name, color in zip(buckets, colormaps["viridis"](np.linspace(0, 0.9, len(buckets))), strict=True):
        axes.plot(*run.series(name), color=color, marker=".", label=name.removeprefix("val_loss_"))
    if "val_psnr" in run.names("val_"):
        axes.plot(*run.series("val_psnr"), color="black", linewidth=2, marker=".")
        axes.set_title("PSNR of held-out pictures, dB")
    else:
        axes.plot(*run.series("val_loss"), color="black", linewidth=2, marker=".", label="mean")
        axes.set_title("validation loss")
        axes.set_yscale("log")
    if buckets:
        axes.legend(frameon=False, title="timesteps", loc="center left", bbox_to_anchor=(1, 0.5))
    elif not run.names("val_"):
        axes.text(0.5, 0.5, "no held-out pictures", ha="center", transform=axes.transAxes, color="gray")


def _draw_gradient(axes: Any, run: Run) -> None:
    axes.plot(*run.series("grad_norm"), color="#7a5195", linewidth=1.5, marker="." if len(run.steps) < 40 else None)
    limit = run.config["max_grad_norm"]
    axes.axhline(limit, color="gray", linestyle="--", linewidth=1, label=f"clipped to {limit:g}")
    axes.set_yscale("log")
    axes.set_title("norm of the gradient")
    axes.legend(frameon=False)


def draw_curves(run: Run) -> Figure:
    """Training loss, validation loss by bucket of timesteps, and the norm of the gradient, over the steps."""
    figure = Figure(figsize=(15, 4), layout="constrained")
    for axes, draw in zip(figure.subplots(1, 3), (_draw_loss, _draw_validation, _draw_gradient), strict=True):
        draw(axes, run)
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if axes.get_yscale() == "log":
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


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


def write_report(output_dir: str | Path) -> Path:
    """Write card, curves and grid into `weights/`; the path of the card. May be called at any time after a checkpoint.

    Raises:
        ValueError: see `read_run`.
    """
    run = read_run(output_dir)
    weights = run.folder / "weights"
    draw_curves(run).savefig(weights / "curves.png", dpi=110)
    for grid in sorted(run.folder.glob("grid-*.png"))[-1:]:
        shutil.copyfile(grid, weights / "grid.png")
    (weights / "README.md").write_text(card(run), encoding="utf-8")
    if run.damaged:
        print(f"log.jsonl: lines {run.damaged} are damaged and were left out.", file=sys.stderr)
    return weights / "README.md"


def finish(args: Namespace) -> None:
    """What the main process does once a run has ended: the report, and the push if `--push_to_hub` asks for it.

    Raises:
        WriteError: if the disk is full.
    """
    if not PartialState().is_main_process:
        return
    with writing("The card", args.output_dir):
        place = write_report(args.output_dir)
    print(f"{place}: what was trained, how, and how to use it")
    if args.push_to_hub:
        print(f"pushed: {push(args)}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output_dir", type=Path)
    try:
        print(write_report(parser.parse_args(arguments).output_dir))
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
