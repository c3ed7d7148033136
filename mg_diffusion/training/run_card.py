"""The model card of a run: what was trained, how, and how to use it."""

from datetime import timedelta
from pathlib import Path
from string import Template

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
    "distill": "A UNet of few steps",
}
STEERED = " steered by the color, texture and shape of reference images"

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


def template(name: str) -> str:
    return Path(__file__).with_name("templates").joinpath(f"{name}.md").read_text(encoding="utf-8")


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
    rows = []
    for name, value in sorted(run.config.items()):
        if name not in PLACES | ABOUT_ITSELF and value != defaults.get(name):
            is_place = isinstance(value, str) and (Path(value).is_absolute() or Path(value).exists())
            rows.append([f"`--{name}`", Path(value).name if is_place else str(value)])
    return table(["flag", "value"], rows)


def environment_table(run: Run) -> str:
    """Hardware and versions."""
    if "device" not in run.environment:
        return "Versions and hardware were not recorded."
    count, device = run.environment["processes"], run.environment["device"]
    versions = [[name, version] for name, version in run.environment["versions"].items()]
    return table(["", ""], [["hardware", device if count == 1 else f"{count} x {device}"], *versions])


def card(run: Run) -> str:
    """The text of the run's README.md."""
    config, base = run.config, run.environment.get("base_model")
    title = TITLES[config["stage"]] + (STEERED if run.kind in ("base", "adapter", "distill") else "")
    tags = ["diffusers", "mg-diffusion"]
    if run.kind in ("base", "adapter", "distill"):
        tags += ["text-to-image", "image-to-image", "reference-conditioned"]
    data = ModelCardData(library_name="diffusers", tags=tags, base_model=base, datasets=config.get("dataset_name"))
    if base:
        data.base_model_relation = "adapter" if config["stage"] == "adapter" else "finetune"
    place = (config.get("push_to_hub") and config["hub_model_id"]) or "path/to/weights"
    grids = sorted(run.folder.glob("grid-*.png"))
    duration = f", {timedelta(seconds=round(run.seconds))} h" if run.seconds else ""
    return f"---\n{data.to_yaml()}\n---\n" + template("run_card").format(
        title=title,
        stage=config["stage"] + (" --text_only" if run.kind == "text" else ""),
        resolution=config["resolution"],
        steps=max(run.steps),
        samples=run.samples,
        duration=duration,
        use=Template(template(f"use_{run.kind}")).substitute(place=place, base=base or "path/to/the/base").rstrip(),
        figures=figures_table(run),
        grid=GRID.format(rows=GRID_ROWS.get(run.kind, GRID_ROWS["base"])) if grids else "No grid was drawn.",
        environment=environment_table(run),
        settings=settings_table(run),
    )
