"""Stage `base`: the UNet, the text encoder, the encoder and the adapter of the embedded default, trained together."""

from argparse import Namespace
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mg_diffusion.loading import EMBEDDED_NAME, embedded_model, many_steps_unet
from mg_diffusion.pipelines import MGPipeline

from .fitting import HeldOut, fit
from .laid_samples import build_laid_samples
from .models import BASE, PARTS, TrainedModel, build_components
from .objective import Objective
from .pictures import load_materials, load_splits
from .samples import build_samples
from .settings import Data, Layouts, RunSettings, Supervision
from .starting import start
from .streaming import samples_of


def load_base(folder: str, needed: tuple[str, ...] = BASE) -> dict[str, Any]:
    """Components of a pipeline that training starts from, in float32.

    Args:
        folder: of the pipeline; "mg-bazaar" is the embedded default, wherever it is installed.

    Raises:
        ValueError: if it cannot be loaded, or lacks a component.
    """
    expected = f"--init_from must be the `weights` of a run of stage base or their export, got {folder!r}"
    place = embedded_model() if folder == EMBEDDED_NAME else folder
    try:
        many = many_steps_unet(place)  # a distilled UNet has forgotten how to be trained on pictures
        parts = {} if many is None else {"unet": many}
        components = MGPipeline.from_pretrained(place, dtype=torch.float32, **parts).components
    except (OSError, ValueError) as error:
        raise ValueError(f"{expected}: {error}") from error
    missing = [name for name in needed if components[name] is None]
    if missing:
        raise ValueError(f"{expected}, which lacks {missing}.")
    return components


def load_components(folder: str) -> dict[str, Any]:
    """As `load_base`, with encoder and adapter."""
    return load_base(folder, (*BASE, *PARTS))


def new_components(args: Namespace, captions: list[str]) -> dict[str, Any]:
    """Components as the flags of stage base describe them."""
    return build_components(captions, args.resolution, args.block_out_channels, args.text_width, args.vae)


def export_weights(components: dict[str, Any], folder: str | Path) -> None:
    """Write inference weights as a repository that `DiffusionPipeline.from_pretrained` loads."""
    # A tokenizer saves how it was called last, and a resumed run exports before it calls it.
    components["tokenizer"].backend_tokenizer.no_padding()
    components["tokenizer"].backend_tokenizer.no_truncation()
    MGPipeline(**components).save_pretrained(folder, safe_serialization=True)


def run(args: Namespace) -> list[dict[str, float]]:
    """Train; returns the log records. The resumable state and `weights/` are in `args.output_dir`."""
    accelerator, settings, data = start(args), RunSettings.of(args), Data.of(args)
    layouts = Layouts.of(args)
    large, others = load_splits(replace(data, resolution=layouts.layout_size or data.resolution), held_out_seed=1)
    pictures, others = large.resize(data.resolution), others and others.resize(data.resolution)
    components = load_components(args.init_from) if args.init_from else new_components(args, pictures.captions)
    model = TrainedModel.of(components)
    model.requires_grad_(True).to(memory_format=torch.channels_last)
    if args.lora_rank:
        from .lora import add_lora  # peft is needed for this alone

        add_lora(accelerator, model, args.lora_rank)
    components["vae"].to(accelerator.device)
    supervision, tiles = Supervision.of(args), components["mg_encoder"].config.num_tiles
    make = partial(build_samples, supervision=supervision, num_tiles=tiles, is_window=data.streaming)
    samples = samples_of(settings, data, pictures, make)
    if layouts.layout_size:
        gain = components["mg_adapter"].config.canvas_gain
        materials = load_materials(layouts.materials_dir, data, layouts.layout_size)
        samples = build_laid_samples(large, materials, samples, gain, layouts.num_laid_crossings, supervision)
    objective = Objective(components, args.snr_gamma)
    held_out = others and HeldOut(
        others, build_samples(others, data.num_validation_images, supervision.held_out(len(others)), tiles), objective
    )

    def export(folder: Path) -> None:
        whole = components
        if args.lora_rank:
            from .lora import export_lora, fused

            export_lora(components, folder / "lora")
            whole = components | {"unet": fused(components["unet"])}
        export_weights(whole, folder)

    shown = MGPipeline(**{**components, "mg_detail": None})  # what is trained, without octaves above it
    return fit(accelerator, settings, model, objective, samples, held_out, shown, export)
