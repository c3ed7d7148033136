"""Stage `base --text_only`: UNet and text encoder alone, from pictures and captions, as a Stable Diffusion is trained.

What it makes is a base without any of our parts: a stock miniature for stage `adapter` to be proven on.
"""

from argparse import Namespace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from mg_diffusion.pipelines import MGPipeline

from .base import Objective, export_weights, fit, load_base
from .dropout import random_mask
from .fingerprints import picture_fingerprint
from .loop import run_length, start
from .models import TextModel, build_components
from .pictures import Pictures, load_splits
from .streaming import samples_of


class TextStream(Dataset):
    """Sample `i` of a run, a function of (seed, i) alone: a picture, its caption, and what of it is repainted."""

    def __init__(self, pictures: Pictures, length: int, seed: int, text_dropout: float = 0.1, augment: bool = True):
        self.pictures, self.length, self.seed = pictures, length, seed
        self.text_dropout, self.augment = text_dropout, augment

    @property
    def fingerprint(self) -> str:
        return picture_fingerprint(self.pictures.whole, self.pictures.captions)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = np.random.default_rng([self.seed, index])
        picture = int(rng.integers(len(self.pictures)))
        part = self.pictures.crop if self.augment and rng.random() < 0.5 else self.pictures.whole
        flip, drop = rng.random() < 0.5, rng.random() < self.text_dropout
        image = part[picture].float() / 127.5 - 1
        return {
            "image": image.flip(-1) if self.augment and flip else image,
            "caption": "" if self.augment and drop else self.pictures.captions[picture],
            "mask": random_mask(rng, image.shape[2], whole=0.5),
        }


class TextObjective(Objective):
    """The loss of stage `base`, for a model that reads captions only."""

    def predict(
        self,
        model: torch.nn.Module,
        batch: dict[str, Any],
        unet_input: torch.Tensor,
        timesteps: torch.Tensor,
        fusion_scale: float | torch.Tensor,
    ) -> torch.Tensor:
        return model(unet_input, timesteps, batch["input_ids"])


def run(args: Namespace) -> list[dict[str, float]]:
    """Train; returns the log records. The resumable state and `weights/` are in `args.output_dir`."""
    accelerator = start(args)
    pictures, held_out = load_splits(args, held_out_seed=1)
    components = load_base(args.init_from) if args.init_from else build_components(args, pictures.captions)
    components |= {"mg_encoder": None, "mg_adapter": None}
    model = TextModel(components["unet"], components["text_encoder"])
    model.requires_grad_(True).to(memory_format=torch.channels_last)
    components["vae"].to(accelerator.device)
    length = run_length(accelerator, args)
    stream = samples_of(args, pictures, lambda some: TextStream(some, length, args.seed, augment=args.augment), length)
    objective = TextObjective(components, args.snr_gamma)
    held = None
    if held_out is not None:
        held = held_out, TextStream(held_out, args.num_validation_images, 1, augment=False), objective
    pipeline = MGPipeline(**components)
    export = partial(export_weights, components)
    return fit(accelerator, args, model, objective, stream, held, pipeline, export)
