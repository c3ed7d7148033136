"""Stage `base --text_only`: UNet and text encoder alone, from pictures and captions, as a Stable Diffusion is trained.

What it makes is a base without any of our parts: a stock miniature for stage `adapter` to be proven on.
"""

from argparse import Namespace
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from mg_diffusion.pipelines import MGPipeline

from .base import export_weights, load_base, new_components
from .dropout import random_mask
from .fitting import HeldOut, fit
from .models import PARTS, TextModel
from .objective import Objective
from .pictures import PictureSamples, load_splits
from .settings import Data, RunSettings
from .starting import start
from .streaming import samples_of


@dataclass(eq=False)
class TextSamples(PictureSamples):
    """Sample `i`: a picture, its caption, and what of it is repainted."""

    augment: bool = True

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = np.random.default_rng([self.seed, index])
        picture = int(rng.integers(len(self.pictures)))
        part = self.pictures.crop if self.augment and rng.random() < 0.5 else self.pictures.whole
        flip, drop = rng.random() < 0.5, rng.random() < 0.1  # of the captions are left out
        image = part[picture].float() / 127.5 - 1
        return {
            "image": image.flip(-1) if self.augment and flip else image,
            "caption": "" if self.augment and drop else self.pictures.captions[picture],
            "mask": random_mask(rng, image.shape[2], whole=0.5),
        }


class TextObjective(Objective):
    """The loss of stage `base`, for a model that reads captions only."""

    def conditions(self, batch: dict[str, Any], fusion_scale: float | torch.Tensor) -> tuple[Any, ...]:
        return (batch["input_ids"],)


def run(args: Namespace) -> list[dict[str, float]]:
    """Train; returns the log records. The resumable state and `weights/` are in `args.output_dir`."""
    accelerator, settings, data = start(args), RunSettings.of(args), Data.of(args)
    pictures, others = load_splits(data, held_out_seed=1)
    components = load_base(args.init_from) if args.init_from else new_components(args, pictures.captions)
    components |= dict.fromkeys(PARTS)
    model = TextModel(components["unet"], components["text_encoder"])
    model.requires_grad_(True).to(memory_format=torch.channels_last)
    components["vae"].to(accelerator.device)
    samples = samples_of(settings, data, pictures, partial(TextSamples, seed=args.seed, augment=args.augment))
    objective = TextObjective(components, args.snr_gamma)
    held_out = others and HeldOut(others, TextSamples(others, data.num_validation_images, 1, False), objective)
    export = partial(export_weights, components)
    shown = MGPipeline(**{**components, "mg_detail": None})  # what is trained, without octaves above it
    return fit(accelerator, settings, model, objective, samples, held_out, shown, export)
