"""Trains a baseline, or our adapter from nothing, on the frozen base: the same samples in the same order, the same loss.

Two things favor our adapter, and no table should be read without them: the base learned together with an earlier
adapter of ours, whose doors into the UNet are those of the new one; and crossed targets are composed of the same sketch
and tiles that our adapter lays out. What our adapter draws by seed, the peers cannot know: the crossings they learn from
assign colors to regions by one fixed rule. And what surrounds a hole they read from the UNet's own channels.
"""

from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mg_diffusion import MGAdapter, MGEncoder
from mg_diffusion.granularities import GRANULARITIES
from mg_diffusion.training.base import export_weights, load_components
from mg_diffusion.training.fitting import fit
from mg_diffusion.training.models import TrainedModel
from mg_diffusion.training.objective import Objective
from mg_diffusion.training.pictures import load_splits
from mg_diffusion.training.samples import SampleStream
from mg_diffusion.training.settings import Data, RunSettings, Supervision
from mg_diffusion.training.starting import start
from mg_diffusion.training.trained_parts import trained_state
from mg_diffusion.training.view_pool import build_pool

from .networks import BASELINES, Baseline


OURS = "mg_adapter"
WEIGHTS = "weights.pt"


class ReferenceStream(SampleStream):
    """The samples of our own training, with the pictures of the references beside their views."""

    def _context(self, image: torch.Tensor, hole: torch.Tensor, rng: np.random.Generator) -> dict[str, Any]:
        """Nothing: what our encoder makes of the surroundings is no reference that a peer could read."""
        return {}

    def _color(self, item: int) -> dict[str, torch.Tensor]:
        return {**super()._color(item), "color_rgb": self._picture(item)}

    def _texture(self, item: int, flip: bool, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        return {**super()._texture(item, flip, rng), "texture_rgb": self._picture(item, flip)}

    def _shape(self, item: int, flip: bool) -> dict[str, torch.Tensor]:
        return {**super()._shape(item, flip), "shape_rgb": self._picture(item, flip)}


class BaselineModel(torch.nn.Module):
    """A baseline and the frozen text encoder, as one module."""

    def __init__(self, baseline: Baseline, text_encoder: torch.nn.Module):
        super().__init__()
        self.baseline, self.text_encoder = baseline, text_encoder.requires_grad_(False)

    def forward(
        self,
        unet_input: torch.Tensor,
        timesteps: torch.Tensor,
        input_ids: torch.Tensor,
        references: dict[str, torch.Tensor],
        present: torch.Tensor,
    ) -> torch.Tensor:
        condition = self.baseline.encode(references, present.float())
        return self.baseline(unet_input, timesteps, self.text_encoder(input_ids).last_hidden_state, condition)


class BaselineObjective(Objective):
    """Our loss, for a model that reads pictures."""

    def conditions(self, batch: dict[str, Any], fusion_scale: float | torch.Tensor) -> tuple[Any, ...]:
        references = {name: batch[f"{name}_rgb"] for name in GRANULARITIES}
        return batch["input_ids"], references, batch["present"]


def build(method: str, components: dict[str, Any]) -> torch.nn.Module:
    """The module to train; all that belongs to the base is frozen."""
    encoder, unet, text_encoder = (components[name] for name in ("mg_encoder", "unet", "text_encoder"))
    if method != OURS:
        baseline = BASELINES[method](unet, encoder.config.shape_backbone)
        return BaselineModel(baseline, text_encoder)
    config = {name: encoder.config[name] for name in ("sample_size", "num_tiles", "shape_backbone")}
    components["mg_encoder"] = MGEncoder(**config)
    token_dim, stride = (components["mg_adapter"].config[name] for name in ("token_dim", "map_stride"))
    components["mg_adapter"] = MGAdapter.from_unet(
        unet, components["mg_encoder"], token_dim=token_dim, map_stride=stride
    )
    unet.requires_grad_(False)
    text_encoder.requires_grad_(False)
    return TrainedModel(unet, text_encoder, components["mg_encoder"], components["mg_adapter"])


def run(args: Namespace) -> list[dict[str, float]]:
    """Train `args.method` on the frozen base `args.init_from`; weights go to `weights/` in `args.output_dir`."""
    if args.streaming:
        raise ValueError("Baselines are compared on the same pictures: give --train_data_dir without --streaming.")
    accelerator, settings, supervision = start(args), RunSettings.of(args), Supervision.of(args)
    pictures, _ = load_splits(Data.of(args))
    components = load_components(args.init_from)
    components["vae"].to(accelerator.device)
    is_ours = args.method == OURS
    model = build(args.method, components).to(memory_format=torch.channels_last)
    objective = (Objective if is_ours else BaselineObjective)(components, args.snr_gamma)
    pool, crossings = build_pool(
        pictures, args.num_crossings, args.num_rendered, args.seed, args.cache_dir, is_turned=is_ours
    )
    length, tiles = settings.num_samples(accelerator.num_processes), components["mg_encoder"].config.num_tiles
    stream = (SampleStream if is_ours else ReferenceStream)(
        pool, crossings, pictures.captions, length, args.seed, supervision.shares, tiles
    )

    def export(folder: Path) -> None:
        if is_ours:
            export_weights(components, folder)
        else:
            torch.save({name: value.cpu() for name, value in trained_state(model).items()}, folder / WEIGHTS)

    return fit(accelerator, settings, model, objective, stream, None, None, export)
