"""The loss of a UNet: L = sum of ||y - y_hat||^2 over noisy latents, y what the UNet predicts."""

from typing import Any

import torch
from diffusers import DDPMScheduler
from diffusers.utils.torch_utils import randn_tensor
from torch.utils.data import default_collate

from .samples import views_of
from .seeding import generators_of, per_sample


def target_of(
    scheduler: DDPMScheduler, kind: str, clean: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
) -> torch.Tensor:
    """What a UNet predicts, by the `prediction_type`; v of Salimans and Ho, arXiv 2202.00512."""
    if kind == "epsilon":
        return noise
    return clean if kind == "sample" else scheduler.get_velocity(clean, noise, timesteps)


def weight_of(kind: str, alpha_bar: torch.Tensor, gamma: float) -> torch.Tensor:
    """Weight of the squared error of a prediction, limited near the data.

    Min-SNR (Hang et al., arXiv 2303.09556) for a prediction of noise. For x0 and v it is that of v, which does not
    vanish at pure noise: v - v_hat = (x0_hat - x0) / sigma.

    Not by `diffusers.training_utils.compute_snr`: it squares a quotient of roots, which has other last bits, and a resumed
    run is to go on with those it began with.
    """
    if kind == "epsilon":
        snr = alpha_bar / (1 - alpha_bar)
        return snr.clamp(max=gamma) / snr.clamp(min=1e-8)
    limited = (1 / (1 - alpha_bar)).clamp(max=gamma)
    return limited if kind == "sample" else limited * (1 - alpha_bar)


class Objective:
    """The loss, and the noisy input it is computed from.

    Raises:
        ValueError: for a scheduler without `alphas_cumprod`, or of another prediction type.
    """

    def __init__(self, components: dict[str, Any], snr_gamma: float):
        self.vae = components["vae"]
        self.tokenizer = components["tokenizer"]
        self.dtype = components["unet"].dtype
        self.is_inpainting = components["unet"].config.in_channels > self.vae.config.latent_channels
        self.alphas = getattr(components["scheduler"], "alphas_cumprod", None)
        self.prediction_type = components["scheduler"].config.get("prediction_type", "epsilon")
        self.snr_gamma = snr_gamma
        if self.alphas is None or self.prediction_type not in ("epsilon", "v_prediction", "sample"):
            raise ValueError(
                f"Training needs a scheduler with `alphas_cumprod` that predicts epsilon, v_prediction or sample, such as "
                f"DDPMScheduler or DDIMScheduler; this is {type(components['scheduler']).__name__} with "
                f"{self.prediction_type!r}."
            )
        # Those that sample by sigmas, such as Euler's, add noise in another parametrization.
        self.noise_scheduler = DDPMScheduler()
        self.noise_scheduler.alphas_cumprod = self.alphas

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        captions = [sample.pop("caption") for sample in samples]
        tokens = self.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
        return {**default_collate(samples), "input_ids": tokens.input_ids}

    @torch.no_grad()
    def latents(self, images: torch.Tensor, generators: list[torch.Generator] | None = None) -> torch.Tensor:
        """Latents (B, C, h, w) of images (B, 3, H, W), drawn with one generator for each."""
        # In the type the VAE was given: some overflow in half precision.
        with torch.autocast(images.device.type, enabled=False):
            encoded = self.vae.encode(images.to(self.vae.dtype)).latent_dist.sample(generators)
        return encoded.float() * self.vae.config.scaling_factor

    def latent_shape(self, images: torch.Tensor) -> tuple[int, int, int, int]:
        """Shape of `latents(images)`, from the configuration alone: noise is drawn before anything is encoded."""
        config = self.vae.config
        factor = 2 ** (len(config.block_out_channels) - 1)
        return len(images), config.latent_channels, images.shape[2] // factor, images.shape[3] // factor

    def __call__(
        self,
        model: torch.nn.Module,
        batch: dict[str, Any],
        timesteps: torch.Tensor,
        noise: torch.Tensor,
        fusion_scale: float | torch.Tensor,
        generators: list[torch.Generator] | None = None,
    ) -> torch.Tensor:
        """Weighted squared error (B,) of a batch at given timesteps (B,) and noise (B, C, h, w).

        Args:
            fusion_scale: of all samples, or (B, 1, 1, 1).
            generators: of each sample, for latents that are drawn.
        """
        clean = self.clean_latents(batch, generators)
        unet_input = self.noise_scheduler.add_noise(clean, noise, timesteps)
        if self.is_inpainting:
            unet_input = torch.cat([unet_input, self.known_channels(batch, clean, generators)], 1)
        predicted = model(unet_input.to(self.dtype), timesteps, *self.conditions(batch, fusion_scale))
        target = target_of(self.noise_scheduler, self.prediction_type, clean, noise, timesteps)
        alpha_bar = self.alphas.to(timesteps.device)[timesteps]
        weight = weight_of(self.prediction_type, alpha_bar, self.snr_gamma)
        return weight * (predicted.float() - target).square().mean((1, 2, 3))

    def known_channels(
        self, batch: dict[str, Any], like: torch.Tensor, generators: list[torch.Generator] | None = None
    ) -> torch.Tensor:
        """What an inpainting UNet reads beside latents `like` (B, C, h, w): mask and masked latents (B, 1 + C, h, w)."""
        image, mask = batch["image"], batch["mask"]
        # A cell is repainted when any of its pixels is, as in the pipelines.
        cell = torch.nn.functional.max_pool2d(mask, mask.shape[2] // like.shape[2])
        return torch.cat([cell, self.latents(image * (1 - mask), generators)], 1)

    def clean_latents(self, batch: dict[str, Any], generators: list[torch.Generator] | None = None) -> torch.Tensor:
        """Latents (B, C, h, w) of the pictures to paint."""
        return self.latents(batch["image"], generators)

    def conditions(self, batch: dict[str, Any], fusion_scale: float | torch.Tensor) -> tuple[Any, ...]:
        """What the model takes after the noisy latents and their timesteps."""
        layout = (batch[name] for name in ("turn", "sketch", "has_sketch", "present"))
        return batch["input_ids"], views_of(batch), *layout, fusion_scale

    def draw_timesteps(self, batch: dict[str, Any], generators: list[torch.Generator]) -> torch.Tensor:
        """Timesteps (B,), all of them equally likely."""
        count = len(self.alphas)
        return per_sample(lambda g: torch.randint(0, count, (), generator=g), generators, batch["image"].device)

    def training_loss(self, model: torch.nn.Module, batch: dict[str, Any]) -> torch.Tensor:
        generators, device = generators_of(batch), batch["image"].device
        timesteps = self.draw_timesteps(batch, generators)
        noise = randn_tensor(self.latent_shape(batch["image"]), generator=generators, device=device)
        # The fusion is left out of half of the samples, so that alpha = 0 always works.
        is_fused = per_sample(lambda g: torch.rand((), generator=g) < 0.5, generators, device)
        fusion_scale = is_fused.float().view(-1, 1, 1, 1)
        return self(model, batch, timesteps, noise, fusion_scale, generators).mean()
