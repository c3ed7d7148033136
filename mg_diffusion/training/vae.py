"""Stage `vae`: a small `AutoencoderKL`, for those who want smoother or smaller latents than the Haar codec's."""

from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from diffusers import AutoencoderKL
from torch import nn
from torch.utils.data import default_collate

from mg_diffusion.modeling_autoencoder_haar import AutoencoderHaar

from .loop import train
from .pictures import PictureSamples, load_splits
from .seeding import generators_of
from .settings import Data, RunSettings
from .sharding import gathered
from .starting import start
from .streaming import samples_of


class VaeSamples(PictureSamples):
    """Sample `i`: a picture or part of it, perhaps flipped, as {"image": (3, S, S) in [-1, 1]}."""

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng([self.seed, index])
        source = self.pictures.whole if rng.random() < 0.5 else self.pictures.crop
        image = source[int(rng.integers(len(source)))].float() / 127.5 - 1
        return {"image": image.flip(-1) if rng.random() < 0.5 else image}


class ReconstructionModel(nn.Module):
    """Encode, sample, decode: images (B, 3, S, S) -> reconstruction and KL divergence (B,)."""

    def __init__(self, vae: AutoencoderKL):
        super().__init__()
        self.vae = vae

    def forward(self, image: torch.Tensor, generators: list[torch.Generator]) -> tuple[torch.Tensor, torch.Tensor]:
        posterior = self.vae.encode(image).latent_dist
        return self.vae.decode(posterior.sample(generators)).sample, posterior.kl()


def build_vae(latent_channels: int, widths: Sequence[int], resolution: int) -> AutoencoderKL:
    levels = len(widths)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=tuple(widths),
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=16,
        sample_size=resolution,
        mid_block_add_attention=False,
    )


@torch.no_grad()
def measure_scaling_factor(vae: AutoencoderKL, images: torch.Tensor) -> float:
    """1 / deviation of the latents, so that the denoiser sees data of unit deviation (Rombach et al. 2022)."""
    return 1.0 / vae.encode(images).latent_dist.sample().std().item()


def run(args: Namespace) -> list[dict[str, float]]:
    """Train; returns the log records. `weights/` in `args.output_dir` is what `--vae` of stage base takes."""
    accelerator, settings, data = start(args), RunSettings.of(args), Data.of(args)
    pictures, held_out = load_splits(data)
    vae = build_vae(args.latent_channels, args.block_out_channels, args.resolution)
    model = ReconstructionModel(vae)
    # The Haar details make the loss ask for texture, which plain L1 gives up first.
    haar = AutoencoderHaar(detail_gain=1.0).to(accelerator.device)

    def loss_of(prepared: nn.Module, batch: dict[str, Any]) -> torch.Tensor:
        image = batch["image"]
        output, divergence = prepared(image, generators_of(batch))
        error = haar.encode(output.float() - image).latent_dist.mode()
        detail = error[:, 3:].abs().mean()
        return error[:, :3].abs().mean() + args.detail_weight * detail + args.kl_weight * divergence.mean()

    @torch.no_grad()
    def validate(step: int) -> dict[str, float]:
        if held_out is None:
            return {}
        images = held_out.whole.float().to(accelerator.device) / 127.5 - 1
        with gathered(model):
            output = vae.decode(vae.encode(images).latent_dist.mode()).sample.clamp(-1, 1)
        mse = ((output - images) / 2).square().mean((1, 2, 3))
        if accelerator.is_main_process:
            rows = torch.stack([images[:8], output[:8]]).permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)
            grid = ((rows.cpu().numpy() + 1) * 127.5).round().astype(np.uint8)
            PIL.Image.fromarray(grid).save(Path(args.output_dir, f"grid-{step:06d}.png"))
        return {"val_psnr": float((-10 * torch.log10(mse)).mean()), "val_loss": float(mse.mean())}

    def export(folder: Path) -> None:
        images = pictures.whole[:256].float().to(accelerator.device) / 127.5 - 1
        vae.register_to_config(scaling_factor=measure_scaling_factor(vae, images))
        vae.save_pretrained(folder)

    samples = samples_of(settings, data, pictures, partial(VaeSamples, seed=args.seed))
    return train(accelerator, settings, model, samples, default_collate, loss_of, validate, export)
