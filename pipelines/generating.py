"""Generating from noise."""

from types import SimpleNamespace
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor


def forked(generator: torch.Generator | list[torch.Generator] | None) -> torch.Generator | list[torch.Generator]:
    """Generators of their own, so that what else is drawn of the given ones changes nothing of what these draw."""
    if isinstance(generator, list):
        return [forked(one) for one in generator]
    device = torch.device("cpu") if generator is None else generator.device
    seed = torch.randint(2**62, (), generator=generator, device=device)
    return torch.Generator(device).manual_seed(int(seed))


class FromNoise:
    """The source of a call that generates: noise."""

    def read_source(self, given: SimpleNamespace) -> None:
        return None

    def check_source(self, given: SimpleNamespace, edit: None, batch_size: int) -> None:
        """There is none."""

    def context_granularities(self, given: SimpleNamespace) -> tuple[str, ...]:
        return ()

    def prepare_source(self, call: Any) -> None:
        """There is none."""

    def add_context(self, call: Any) -> None:
        """There is none."""

    def prepare_start(self, call: Any) -> None:
        """Noise, and what an inpainting UNet reads beside it."""
        given, factor = call.given, self.vae_scale_factor
        shape = (call.count, self.vae.config.latent_channels, call.size[0] // factor, call.size[1] // factor)
        dtype, device = call.prompt_embeds.dtype, self._execution_device
        call.noise = self.draw_noise(shape, dtype, device, given.generator, given.latents)
        # Scaled to where the scheduler starts.
        call.latents = call.noise * getattr(self.scheduler, "init_noise_sigma", 1.0)
        call.unet_channels = self.prepare_unet_channels(call.latents, given.generator)
        if call.output_size is not None:
            call.detail_generator = forked(given.generator)

    def draw_noise(
        self,
        shape: tuple[int, int, int, int],
        dtype: torch.dtype,
        device: torch.device,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Noise (B, C, h, w) of unit deviation, drawn where none is given."""
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=device, dtype=dtype)
        return latents.to(device, dtype)

    def prepare_unet_channels(
        self, latents: torch.Tensor, generator: torch.Generator | list[torch.Generator] | None
    ) -> torch.Tensor | None:
        """Mask and masked image latents (B, 1 + C, h, w) of an inpainting UNet told to paint everything."""
        if self.unet.config.in_channels == latents.shape[1]:
            return None
        count, _, height, width = latents.shape
        blank = torch.zeros(1, 3, height * self.vae_scale_factor, width * self.vae_scale_factor, dtype=torch.float32)
        masked_image_latents = self.encode_vae_image(blank, count, generator).to(latents)
        return torch.cat([torch.ones_like(latents[:, :1]), masked_image_latents], dim=1)

    def unet_channels(self, call: Any) -> torch.Tensor | None:
        return call.unet_channels

    def after_step(self, call: Any, i: int) -> None:
        """Nothing is kept of a picture."""

    def decode(self, call: Any) -> Any:
        """Latents to what `output_type` asks for."""
        given = call.given
        image = call.latents if given.output_type == "latent" else self.decode_latents(call.latents, given.generator)
        if call.output_size is not None and given.output_type != "latent":
            image = self.paint_detail(call, image)
        if call.compared is not None:
            self.warn_of_leaks(image / 2 + 0.5, call.compared, call.batch_size, given.num_images_per_prompt)
        return self.image_processor.postprocess(image, output_type=given.output_type)
