"""A composed start as a block of Modular Diffusers."""

from typing import Any

import torch
from diffusers import InputParam, ModularPipelineBlocks, OutputParam
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_inpaint import retrieve_latents

from ..features import as_lists
from .components import scale_factor
from .composed_start import add_noise, skip_steps
from .generating import forked
from .modular_inputs import (
    MG_ENCODER,
    SCHEDULER,
    VAE,
    batch_size_input,
    generator_input,
    per_prompt_input,
    scale_input,
    start_input,
)


class MGComposedStartStep(ModularPipelineBlocks):
    """The composition of the references under noise in place of noise alone, and the steps that this leaves."""

    description = "Begins with the composition of the references, if `composed_start` is above 0."
    expected_components = [MG_ENCODER, VAE, SCHEDULER]
    intermediate_outputs = [OutputParam("timesteps", torch.Tensor), OutputParam("latents", torch.Tensor)]

    @property
    def inputs(self) -> list[InputParam]:
        needed = [InputParam(name, torch.Tensor, required=True) for name in ("timesteps", "latents")]
        return [
            *needed,
            InputParam("reference_embeds", dict, required=True, description="features by granularity"),
            InputParam("layout", description="what it is laid of; of the features where there is none"),
            start_input(),
            scale_input(),
            batch_size_input(),
            per_prompt_input(),
            generator_input(),
        ]

    @torch.no_grad()
    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        given = self.get_block_state(state)
        composed = self.composed(components, given) if given.composed_start > 0 else None
        if composed is not None:
            scheduler, vae, count = components.scheduler, components.vae, len(given.latents)
            given.timesteps, _ = skip_steps(scheduler, given.composed_start, given.timesteps)
            noise = given.latents / getattr(scheduler, "init_noise_sigma", 1.0)
            image = composed.to(noise.device, vae.dtype)
            latents = torch.cat([retrieve_latents(vae.encode(one), own) for one, own in self.pairs(given, image)])
            latents = (vae.config.scaling_factor * latents).to(noise)
            given.latents = add_noise(scheduler, latents, noise, given.timesteps[:1].repeat(count))
        self.set_block_state(state, given)
        return components, state

    @staticmethod
    def pairs(given: Any, image: torch.Tensor) -> list[tuple[torch.Tensor, Any]]:
        """Pictures and what draws their latents: each its own generator, or one for all together."""
        generator = forked(given.generator)
        return (
            list(zip(image.split(1), generator, strict=True)) if isinstance(generator, list) else [(image, generator)]
        )

    @staticmethod
    def composed(components: Any, given: Any) -> torch.Tensor | None:
        """(pictures, 3, H, W) in [-1, 1]; `None` where nothing has any strength."""
        generator = forked(given.generator)
        is_regional = any("region" in part for parts in given.reference_embeds.values() for part in parts)
        if given.layout is not None and not is_regional:
            return given.layout.composed(generator)
        encoder, factor = components.mg_encoder, scale_factor(components.vae)
        strengths = encoder.strengths(given.granularity_scale, given.batch_size)
        strengths = strengths.repeat_interleave(given.num_images_per_prompt, dim=0)
        size = tuple(factor * side for side in given.latents.shape[2:])
        return encoder.compose(
            as_lists(given.reference_embeds), size, strengths, len(given.latents), generator=generator
        )
