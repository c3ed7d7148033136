"""The embedded default before and after a run of fine-tuning, on held-out pictures and on rendered ones."""

import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from matplotlib.figure import Figure  # not pyplot, which keeps figures alive and looks for a screen

from mg_diffusion.granularities import GRANULARITIES
from mg_diffusion.loading import EMBEDDED_NAME, load_pipeline
from mg_diffusion.mg_bench.drawing import picture_grid
from mg_diffusion.mg_bench.methods import PipelineMethod
from mg_diffusion.mg_bench.pools import read_pool, rendered_pool
from mg_diffusion.mg_bench.sections import (
    Bench,
    Sizes,
    editing_fidelity,
    photographic_triples,
    retrieval_photographic,
    retrieval_synthetic,
)
from mg_diffusion.pipelines import MGInpaintPipeline, MGPipeline
from mg_diffusion.training.base import load_components
from mg_diffusion.training.models import TrainedModel
from mg_diffusion.training.objective import Objective
from mg_diffusion.training.pictures import load_splits
from mg_diffusion.training.samples import build_samples
from mg_diffusion.training.settings import Data, Supervision
from mg_diffusion.training.validation import validation_loss


BEFORE = "before"
SHOWN = 10
FULL = Sizes(rendered_pool=128, synthetic_triples=96, synthetic_seeds=1, photographic_triples=96)
COUNTED = ("max_train_steps", "train_batch_size", "learning_rate", "ema_decay", "lora_rank", "composite_share")
COUNTED += ("rendered_share", "num_crossings", "num_rendered", "snr_gamma", "mixed_precision", "seed")


def read_run(run: Path) -> tuple[Namespace, list[dict[str, float]]]:
    """Flags and records of a run.

    Raises:
        ValueError: if the folder holds no finished run.
    """
    config, log = run / "training_config.json", run / "log.jsonl"
    if not (config.is_file() and log.is_file() and (run / "weights").is_dir()):
        raise ValueError(f"{str(run)!r} holds no finished run: expected are {config.name}, {log.name} and weights/.")
    records = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    args = Namespace(**json.loads(config.read_text(encoding="utf-8")))
    if not getattr(args, "init_from", None):
        raise ValueError(f"{str(run)!r} is no run of fine-tuning: it was started without --init_from.")
    return args, records


def held_out_loss(model: str, args: Namespace) -> dict[str, float]:
    """The validation loss of a run with the flags `args` and the weights of `model`."""
    components = load_components(model)
    _, held_out = load_splits(Data.of(args), held_out_seed=1)
    trained = TrainedModel.of(components)
    supervision, tiles = Supervision.of(args).held_out(len(held_out)), components["mg_encoder"].config.num_tiles
    samples = build_samples(held_out, args.num_validation_images, supervision, tiles)
    is_low = args.mixed_precision == "bf16"
    with components["mg_adapter"].attach(components["unet"]), torch.autocast("cpu", torch.bfloat16, enabled=is_low):
        objective = Objective(components, args.snr_gamma)
        return validation_loss(objective, trained.eval(), samples, torch.device("cpu"))


def judge(model: str | None, data: str, sizes: Sizes) -> tuple[dict[str, Any], Bench]:
    """Own references nearest of 32, on held-out pictures and on rendered ones that no training has seen; edits of the former."""
    generator = load_pipeline(MGPipeline, model, device="cpu")
    generator.register_modules(mg_detail=None)  # of the base; its octaves: benchmarks.octaves
    size = generator.default_size(None, None)[0]
    inpainter = MGInpaintPipeline(**generator.components)
    method = PipelineMethod(generator, inpainter, {}, dict.fromkeys(GRANULARITIES, 1.0))
    rendered = rendered_pool(sizes.rendered_pool, size, 0)
    bench = Bench(method, rendered, read_pool(data, None, size), sizes, seed=0, batch_size=16)
    found = {"pictures": retrieval_photographic(bench), "rendered": retrieval_synthetic(bench)}
    edits = editing_fidelity(bench)["method"]["psnr"]
    method.progress.close()
    return {"retrieval": {track: _scores(one) for track, one in found.items()}, "edits_psnr": edits}, bench


def _scores(found: dict[str, Any]) -> dict[str, Any]:
    method = found["method"]
    kept = {**{name: method["top1"][name] for name in GRANULARITIES}, "all three": method["joint"]}
    return kept | {"triples": found["settings"]["triples"]}


def minutes(records: Sequence[dict[str, float]]) -> float:
    """How long a run trained, pauses included and what comes before the first step not; of a resumed run its last part."""
    return max(record.get("elapsed", 0.0) for record in records) / 60


def measure(runs: Sequence[Path], sizes: Sizes = FULL) -> tuple[dict[str, Any], PIL.Image.Image]:
    """Figures of what the first run started from and of all runs, and crossed references through all of them.

    Raises:
        ValueError: if one of the folders holds no finished run of fine-tuning.
    """
    read = {run.name: read_run(run) for run in runs}
    first, _ = read[runs[0].name]
    start = None if first.init_from == EMBEDDED_NAME else first.init_from
    data, models, rows = first.train_data_dir, {}, []
    for name, model in {BEFORE: start, **{run.name: str(run / "weights") for run in runs}}.items():
        scores, bench = judge(model, data, sizes)
        if not rows:
            shown = photographic_triples(bench)[:SHOWN]
            rows = [(part, [bench.photographs.pictures[one[part]] for one in shown]) for part in GRANULARITIES]
        rows.append((name, bench.made["photographic"][:SHOWN]))
        models[name] = {**scores, "held_out": held_out_loss(model or EMBEDDED_NAME, first)}
    for run in runs:
        args, records = read[run.name]
        flags = {name: getattr(args, name) for name in COUNTED}
        models[run.name] |= {"minutes": minutes(records), "flags": flags, "records": records}
    return {"data": Path(data).name, "pictures": len(bench.photographs.pictures), "models": models}, picture_grid(rows)


def draw_curves(found: dict[str, Any]) -> Figure:
    """Training loss and validation loss over the steps, and validation loss by timestep before and after."""
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    training, validation, timesteps = figure.subplots(1, 3)
    for name, one in found["models"].items():
        by_timestep = {k.removeprefix("val_loss_t"): v for k, v in one["held_out"].items() if k != "val_loss"}
        color = "gray" if name == BEFORE else None
        timesteps.plot(by_timestep.keys(), by_timestep.values(), "o-", label=name, color=color)
        if name == BEFORE:
            continue
        losses = [(r["step"], r["loss"]) for r in one["records"] if "loss" in r]
        steps, values = zip(*losses, strict=True)
        smooth = [np.mean(values[max(0, i - 4) : i + 5]) for i in range(len(values))]
        (line,) = training.plot(steps, smooth, label=name)
        training.plot(steps, values, alpha=0.3, color=line.get_color())
        held = [(r["step"], r["val_loss"]) for r in one["records"] if "val_loss" in r]
        validation.plot(*zip(*held, strict=True), "o-", label=name)
    training.set(title="training loss", xlabel="step")
    validation.set(title="validation loss", xlabel="step")
    timesteps.set(title="validation loss by timesteps", xlabel="timesteps")
    for axes in (training, validation, timesteps):
        axes.legend()
    return figure
