"""What ComfyUI hands to a model patch, as far as ours asks of it; `make test-comfyui` runs the same on the real one."""

import copy
from types import SimpleNamespace

import torch
import torch.nn.functional as F


class EpsSampling:
    """Noise levels of Stable Diffusion: a sampler holds the picture plus sigma times noise."""

    def __init__(self):
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
        cumulated = (1 - betas).cumprod(0)
        self.sigmas = ((1 - cumulated) / cumulated).sqrt()

    def noise_scaling(self, sigma, noise, latent_image, max_denoise=False):
        return latent_image + sigma.view(-1, 1, 1, 1) * noise

    def percent_to_sigma(self, percent):
        if percent <= 0:
            return 999999999.9
        return 0.0 if percent >= 1 else self.sigmas[round((1 - percent) * 999)].item()


class FlowSampling(EpsSampling):
    """Those of flow matching."""

    def noise_scaling(self, sigma, noise, latent_image, max_denoise=False):
        sigma = sigma.view(-1, 1, 1, 1)
        return sigma * noise + (1 - sigma) * latent_image

    def percent_to_sigma(self, percent):
        return 1 - percent


class LatentFormat:
    latent_channels, latent_dimensions, scale_factor = 4, 2, 0.5

    def process_out(self, latents):
        return latents / self.scale_factor


class Codec(torch.nn.Module):
    """Blocks of 8 pixels to four numbers and back, linear but for a bend."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.down = torch.nn.Parameter(torch.randn(4, 3, 8, 8, generator=generator) / 14)
        self.register_buffer("bend", torch.tensor(0.1))

    def encode(self, image):
        return F.conv2d(image, self.down, stride=8)

    def decode(self, latents):
        return torch.tanh(F.conv_transpose2d(latents, self.down, stride=8) * (1 + self.bend))


class VAE:
    """ComfyUI's VAE: pictures (B, H, W, C) in 0..1 to latents that are not scaled."""

    def __init__(self):
        self.first_stage_model = Codec()

    def encode(self, image):
        return self.first_stage_model.encode(image.movedim(3, 1) * 2 - 1)

    def spacial_compression_encode(self):
        return 8


class ModelPatcher:
    """The contract of ComfyUI's: a clone has options of its own, and shares the model."""

    def __init__(self, model=None, sampling=None):
        self.model = model or SimpleNamespace(model_sampling=sampling or EpsSampling(), latent_format=LatentFormat())
        self.model_options = {"transformer_options": {}}

    def clone(self):
        made = ModelPatcher(self.model)
        made.model_options = copy.deepcopy(self.model_options)
        return made

    def get_model_object(self, name):
        return getattr(self.model, name)

    def set_model_sampler_post_cfg_function(self, function, disable_cfg1_optimization=False):
        before = self.model_options.get("sampler_post_cfg_function", [])
        self.model_options["sampler_post_cfg_function"] = [*before, function]

    def after_guidance(self, denoised, sigma, schedule=None):
        """What a sampler gets in place of `denoised`."""
        options = self.model_options
        if schedule is not None:
            options = {**options, "transformer_options": {"sample_sigmas": schedule}}
        for function in options.get("sampler_post_cfg_function", []):
            arguments = {"denoised": denoised, "sigma": torch.tensor([sigma]), "model": self.model, "input": denoised}
            denoised = function({**arguments, "model_options": options})
        return denoised
