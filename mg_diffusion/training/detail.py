"""Stage `detail`: the network of the octaves above the base (`mg_diffusion.octaves`), trained on crops."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DModel
from diffusers.utils.torch_utils import randn_tensor
from torch import nn
from torch.utils.data import Dataset, default_collate

from mg_diffusion.octaves import (
    DETAIL_GAIN,
    HAAR_CHANNELS,
    build_detail_unet,
    build_scheduler,
    condition,
    paint_octave,
    predict_cells,
    to_cells,
    to_picture,
)
from mg_diffusion.restoring import AVERAGES, details_of, restored_cells

from .detail_pool import build_rows
from .detail_samples import DetailSamples
from .loop import train
from .objective import weight_of
from .pictures import load_materials, load_splits
from .seeding import generators_of, per_sample
from .settings import Data, RunSettings
from .sharding import gathered
from .starting import start
from .validation import labeled_grid, validation_loss


SHEET = 8  # pictures of a validation sheet
RESTORED_WEIGHT = 0.4  # of what is restored, over its level of noise and
LEAST_LEVEL = 0.1


class DetailObjective:
    """L = w(t) ||x - x_hat||^2 over Haar cells, w the weight of v limited near the data.

    What is restored has no noise to begin with, the noisiest timestep, and counts as pixels do.
    """

    collate = staticmethod(default_collate)

    def __init__(self, snr_gamma: float):
        self.alphas, self.snr_gamma = build_scheduler().alphas_cumprod, snr_gamma

    def latent_shape(self, images: torch.Tensor) -> tuple[int, int, int, int]:
        return len(images), HAAR_CHANNELS, images.shape[2] // 2, images.shape[3] // 2

    def __call__(
        self, model: nn.Module, batch: dict[str, Any], timesteps: torch.Tensor, noise: torch.Tensor, **_: Any
    ) -> torch.Tensor:
        """Weighted squared error (B,) at given timesteps (B,) and noise (B, 12, h, w); what is known does not count."""
        clean, is_direct = to_cells(batch["image"]), batch["is_direct"]
        timesteps = torch.where(is_direct, len(self.alphas) - 1, timesteps)
        alpha_bar = self.alphas.to(timesteps.device)[timesteps].view(-1, 1, 1, 1)
        noisy = alpha_bar.sqrt() * clean + (1 - alpha_bar).sqrt() * noise
        noisy = noisy * ~is_direct.view(-1, 1, 1, 1)
        conditions = conditions_of(batch)
        predicted = predict_cells(model, noisy, timesteps, conditions, batch["level"]).float() + details_of(conditions)
        hole = batch["hole"]
        error = (predicted - clean).square()
        as_pixels = DETAIL_GAIN**2 * torch.ones_like(error[:, :AVERAGES])
        error[:, :AVERAGES] *= torch.where(is_direct.view(-1, 1, 1, 1), as_pixels, 1.0)
        error = (error * hole).mean((1, 2, 3)) / hole.mean((1, 2, 3))
        weight = weight_of("sample", alpha_bar, self.snr_gamma).flatten()
        # Decibels count alike at all levels of noise, not squared errors, which those of much noise would rule.
        return torch.where(is_direct, RESTORED_WEIGHT / (LEAST_LEVEL + batch["level"]), weight) * error

    def training_loss(self, model: nn.Module, batch: dict[str, Any]) -> torch.Tensor:
        generators, device = generators_of(batch), batch["image"].device
        count = len(self.alphas)
        timesteps = per_sample(lambda g: torch.randint(0, count, (), generator=g), generators, device)
        noise = randn_tensor(self.latent_shape(batch["image"]), generator=generators, device=device)
        return self(model, batch, timesteps, noise).mean()


def conditions_of(batch: dict[str, Any]) -> torch.Tensor:
    names = ("smaller", "canvas", "canvas_scale", "sketch", "sketch_scale", "hole")
    return condition(*(batch[name] for name in names), to_cells(batch["image"]))


def save_sheet(unet: UNet2DModel, samples: Dataset, path: Path) -> None:
    """Held-out samples as rows: what is given, what is painted, and what it should be."""
    batch = default_collate([samples[index] for index in range(min(SHEET, len(samples)))])
    batch = {name: value.to(unet.device) for name, value in batch.items()}
    size = batch["image"].shape[2:]
    levels = batch["level"].tolist()
    painted = [
        to_picture(restored_cells(unet, conditions, torch.tensor([level])))
        if is_direct
        else paint_octave(unet, build_scheduler(), conditions, level, generator=torch.Generator().manual_seed(row))
        for row, (conditions, level, is_direct) in enumerate(
            zip(conditions_of(batch).split(1), levels, batch["is_direct"], strict=True)
        )
    ]
    rows = {
        "smaller\npicture": nn.functional.interpolate(batch["smaller"], size),
        "sketch": batch["sketch"] * nn.functional.interpolate(batch["sketch_scale"], size),
        "canvas": (batch["canvas"] * nn.functional.interpolate(batch["canvas_scale"], size)).expand(-1, 3, -1, -1) / 2,
        "painted": torch.cat(painted),
        "true": batch["image"],
    }
    labeled_grid(
        {
            name: [((one.clamp(-1, 1) + 1) * 127.5).byte().permute(1, 2, 0).cpu().numpy() for one in row]
            for name, row in rows.items()
        }
    ).save(path)


def run(args: Namespace) -> list[dict[str, float]]:
    """Train; returns the log records. `weights/` in `args.output_dir` is a `UNet2DModel`."""
    accelerator, settings, data = start(args), RunSettings.of(args), Data.of(args)
    pictures, held_out = load_splits(data)
    if args.init_from:
        unet = UNet2DModel.from_pretrained(args.init_from)
    else:
        unet = build_detail_unet(args.block_out_channels, args.layers_per_block, args.crop_size // 2)
    materials = load_materials(args.materials_dir, data, args.resolution)
    share = args.num_crossings / len(pictures)
    rows = build_rows(pictures.whole, materials, share, args.seed, args.cache_dir)
    samples = DetailSamples(rows, args.crop_size, settings.num_samples(accelerator.num_processes), args.seed)
    objective = DetailObjective(args.snr_gamma)
    held = None
    if held_out is not None:
        rows = build_rows(held_out.whole, None, share, args.seed, args.cache_dir)
        held = DetailSamples(rows, args.crop_size, 4 * len(held_out), seed=0)

    def validate(step: int) -> dict[str, float]:
        if held is None:
            return {}
        unet.eval()
        with torch.no_grad(), accelerator.autocast():
            losses = validation_loss(objective, unet, held, accelerator.device)
        with gathered(unet):
            if accelerator.is_main_process:
                save_sheet(unet, held, Path(args.output_dir, f"grid-{step:06d}.png"))
        unet.train()
        return losses

    loss_of = objective.training_loss
    return train(accelerator, settings, unet, samples, objective.collate, loss_of, validate, unet.save_pretrained)
