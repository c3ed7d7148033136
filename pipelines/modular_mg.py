"""Modular Diffusers: the parts of `MGPipeline` as blocks over a stock `UNet2DConditionModel`, and a guider.

What ships is one file, bundled from this one and the modules it needs (`mg_diffusion.bundling`). `MGAdapter` and `MGEncoder` do the work; guidance is the guider's, ours or one of diffusers.
"""

import contextlib
from typing import Any

import torch
from diffusers import (
    InputParam,
    LoopSequentialPipelineBlocks,
    ModularPipelineBlocks,
    OutputParam,
    SequentialPipelineBlocks,
    StableDiffusionPipeline,
)
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_inpaint import retrieve_latents
from diffusers.utils.torch_utils import randn_tensor

from ..features import as_lists
from .components import (
    FEW_STEPS,
    bare,
    guidance_embedding,
    reads_guidance,
    scale_factor,
)
from .modular_checks import MGInputStep, check_given_numbers
from .modular_guider import MultiGranularityGuidance  # noqa: F401 (a guider is looked up beside its blocks)
from .modular_inputs import (
    GUIDER,
    IMAGE_PROCESSOR,
    MG_ADAPTER,
    MG_ENCODER,
    SCHEDULER,
    TEXT_ENCODER,
    TOKENIZER,
    UNET,
    VAE,
    batch_size_input,
    fusion_input,
    generator_input,
    per_prompt_input,
    prompt_inputs,
    reference_input,
    scale_input,
    start_input,
    steps_input,
)
from .modular_start import MGComposedStartStep


# What `ip_hidden_states` takes, and residuals of the down blocks; `None` is the bare UNet.
UNetConditioning = tuple[dict[str, tuple[torch.Tensor, ...]], list[torch.Tensor] | None] | None


# -- blocks -----------------------------------------------------------------------------------------------------------
class MGReferenceEncoderStep(ModularPipelineBlocks):
    """References to features, by the views of `MGEncoder`."""

    description = "Reads color, texture and shape of the references. Its output serves any number of calls."
    expected_components = [MG_ENCODER, MG_ADAPTER, VAE]
    intermediate_outputs = [OutputParam("reference_embeds", dict, description="features by granularity")]

    @property
    def inputs(self) -> list[InputParam]:
        sizes = [InputParam(name, int, required=True, description="in pixels") for name in ("height", "width")]
        return [reference_input(), *sizes, start_input(), batch_size_input()]

    @torch.no_grad()
    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        given = self.get_block_state(state)
        given.reference_embeds = {}
        if given.reference_image:
            factor, size = scale_factor(components.vae), (given.height, given.width)
            layout_size = size if given.composed_start > 0 else None
            if components.mg_adapter is not None:
                size = components.mg_adapter.map_size(given.height // factor, given.width // factor)
            given.reference_embeds = components.mg_encoder.encode(
                given.reference_image, size, given.batch_size, layout_size
            )
        self.set_block_state(state, given)
        return components, state


class MGTextEncoderStep(ModularPipelineBlocks):
    """Prompts to embeddings as in Stable Diffusion; zeros where there is no text encoder."""

    description = "Encodes prompts and negative prompts; gives zeros where there is no text encoder."
    expected_components = [TEXT_ENCODER, TOKENIZER, UNET]
    intermediate_outputs = [
        OutputParam("prompt_embeds", torch.Tensor, description="(pictures, tokens, channels)"),
        OutputParam("negative_prompt_embeds", torch.Tensor, description="(pictures, tokens, channels)"),
    ]

    @property
    def inputs(self) -> list[InputParam]:
        return [*prompt_inputs(), batch_size_input(), per_prompt_input()]

    @torch.no_grad()
    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        given = self.get_block_state(state)
        unet, device = components.unet, components._execution_device
        if components.text_encoder is None:
            count = given.batch_size * given.num_images_per_prompt
            embeds = [torch.zeros(count, 1, unet.config.cross_attention_dim, device=device, dtype=torch.float32)] * 2
        else:
            texts = ["" if text is None else text for text in (given.prompt, given.negative_prompt)]
            texts = [[text] * given.batch_size if isinstance(text, str) else text for text in texts]
            embeds = StableDiffusionPipeline.encode_prompt(
                components, texts[0], device, given.num_images_per_prompt, True, texts[1]
            )
        # transformers loads a text encoder in the type of its file, diffusers everything else in float32.
        given.prompt_embeds, given.negative_prompt_embeds = (each.to(unet.dtype) for each in embeds)
        self.set_block_state(state, given)
        return components, state


class MGPrepareLatentsStep(ModularPipelineBlocks):
    """Noise to start from, and what a UNet of the inpainting kind reads besides it."""

    description = "Sets the timesteps and draws the noise. An inpainting UNet is told to paint everything."
    expected_components = [UNET, VAE, SCHEDULER]
    intermediate_outputs = [
        OutputParam("timesteps", torch.Tensor),
        OutputParam("latents", torch.Tensor, description="(pictures, C, h, w)"),
        OutputParam("unet_channels", torch.Tensor, description="mask and masked image latents, or `None`"),
    ]

    @property
    def inputs(self) -> list[InputParam]:
        sizes = [InputParam(name, int, required=True, description="in pixels") for name in ("height", "width")]
        return [steps_input(), *sizes, batch_size_input(), per_prompt_input(), generator_input()]

    @torch.no_grad()
    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        given = self.get_block_state(state)
        check_given_numbers(given)
        scheduler, vae, unet, device = (
            components.scheduler,
            components.vae,
            components.unet,
            components._execution_device,
        )
        if given.num_inference_steps is None or isinstance(given.num_inference_steps, str):  # the latter is "auto"
            given.num_inference_steps = FEW_STEPS if reads_guidance(unet) else 20
        scheduler.set_timesteps(given.num_inference_steps, device=device)
        given.timesteps, factor = scheduler.timesteps, scale_factor(vae)
        count = given.batch_size * given.num_images_per_prompt
        shape = (count, vae.config.latent_channels, given.height // factor, given.width // factor)
        noise = randn_tensor(shape, generator=given.generator, device=device, dtype=unet.dtype)
        given.latents = noise * getattr(scheduler, "init_noise_sigma", 1.0)
        given.unet_channels = None
        if unet.config.in_channels != shape[1]:
            blank = torch.zeros(1, 3, given.height, given.width, dtype=torch.float32).to(device, vae.dtype)
            generators = given.generator if isinstance(given.generator, list) else [given.generator]
            masked = torch.cat([retrieve_latents(vae.encode(blank), own) for own in generators])
            masked = vae.config.scaling_factor * masked.repeat_interleave(count // len(masked), dim=0)
            given.unet_channels = torch.cat([torch.ones_like(noise[:, :1]), masked.to(noise)], dim=1)
        self.set_block_state(state, given)
        return components, state


class MGConditioningStep(ModularPipelineBlocks):
    """Fuses the references once for all steps, and once more without each granularity that the guider goes beyond."""

    description = "Fuses the references (`MGAdapter`): one conditioning for each prediction that the guider asks for."
    expected_components = [MG_ADAPTER, UNET, VAE, GUIDER]
    intermediate_outputs = [
        OutputParam(
            "conditioning",
            tuple,
            description="of the conditional, the unconditional, and the prediction without each guided granularity",
        ),
        OutputParam("layout", description="what a composed start is laid of, or `None`"),
    ]

    @property
    def inputs(self) -> list[InputParam]:
        return [
            InputParam("reference_embeds", dict, required=True, description="features by granularity"),
            scale_input(),
            fusion_input(),
            InputParam("latents", torch.Tensor, required=True, description="(pictures, C, h, w)"),
            start_input(),
            batch_size_input(),
            per_prompt_input(),
            generator_input(),  # after the noise, which the same seed then gives without references, too
        ]

    @torch.no_grad()
    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        given = self.get_block_state(state)
        check_given_numbers(given)
        left_out = list(getattr(components.guider, "contrasts", {}))  # guiders of diffusers have none
        for name in left_out:
            if name not in given.reference_embeds:
                raise ValueError(
                    f"`granularity_guidance[{name!r}]` of the guider needs a {name} reference, to tell what it should go "
                    f"beyond; given are {sorted(given.reference_embeds)}."
                )
        given.conditioning, given.layout = (None,) * (2 + len(left_out)), None
        given.reference_embeds = as_lists(given.reference_embeds)
        if given.reference_embeds and components.mg_adapter is not None:
            factor = scale_factor(components.vae)
            size = tuple(factor * side for side in given.latents.shape[2:])
            adapter, scale = components.mg_adapter, given.granularity_scale
            strengths = adapter.strengths(scale, given.batch_size)
            conditioning = adapter.assemble_conditioning(
                bare(components.unet),
                given.reference_embeds,
                strengths.repeat_interleave(given.num_images_per_prompt, dim=0),
                tuple(given.latents.shape[2:]),
                given.fusion_scale,
                contrasts=[(name, None) for name in left_out],
                generator=given.generator,
                layout_size=size if given.composed_start > 0 else None,
                block_scales=adapter.block_scales(scale),
            )
            if conditioning is not None:
                given.layout = conditioning.start
                *others, conditional = conditioning.split(len(given.latents))
                given.conditioning = (conditional, None, *others)
        self.set_block_state(state, given)
        return components, state


class MGLoopDenoiser(ModularPipelineBlocks):
    """One step: every prediction that the guider asks for, and what it makes of them."""

    description = "Inside the loop: runs the UNet for each prediction that the guider asks for, and guides."
    expected_components = [UNET, SCHEDULER, GUIDER]

    @property
    def inputs(self) -> list[InputParam]:
        needed = ("latents", "timesteps", "prompt_embeds", "negative_prompt_embeds")
        return [
            *[InputParam(name, torch.Tensor, required=True) for name in needed],
            InputParam("conditioning", tuple, required=True),
            InputParam("unet_channels", torch.Tensor, description="what an inpainting UNet reads besides the latents"),
        ]

    @torch.no_grad()
    def __call__(self, components: Any, block_state: Any, i: int, t: torch.Tensor) -> tuple[Any, Any]:
        unet, guider, scheduler = components.unet, components.guider, components.scheduler
        guider.set_state(step=i, num_inference_steps=len(block_state.timesteps), timestep=t)
        guider.is_told = reads_guidance(unet)  # guiders of diffusers do not look
        text, conditioning = block_state.prompt_embeds, block_state.conditioning
        texts = (text, block_state.negative_prompt_embeds, *[text] * (len(conditioning) - 2))
        batches = guider.prepare_inputs({"prompt_embeds": texts, "conditioning": conditioning})
        model_input = block_state.latents
        if hasattr(scheduler, "scale_model_input"):  # schedulers of flow matching have none
            model_input = scheduler.scale_model_input(model_input, t)
        if block_state.unet_channels is not None:
            model_input = torch.cat([model_input, block_state.unet_channels], dim=1)
        told = guidance_embedding(unet, getattr(guider, "told_scale", 1.0), model_input)
        for batch in batches:
            guider.prepare_models(unet)
            try:
                batch.noise_pred = self.predict(unet, model_input, t, batch.prompt_embeds, batch.conditioning, told)
            finally:
                guider.cleanup_models(unet)
        block_state.noise_pred = guider(batches)[0]
        return components, block_state

    @staticmethod
    def predict(
        unet: torch.nn.Module,
        model_input: torch.Tensor,
        t: torch.Tensor,
        text: torch.Tensor,
        conditioning: UNetConditioning,
        timestep_cond: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """One run of the UNet: (pictures, C, h, w)."""
        folded, residuals = (None, None) if conditioning is None else conditioning
        return unet(
            model_input,
            t,
            encoder_hidden_states=text,
            cross_attention_kwargs=None if folded is None else {"ip_hidden_states": folded},
            timestep_cond=timestep_cond,
            # A fresh list: the UNet empties the one it gets.
            down_intrablock_additional_residuals=None if residuals is None else list(residuals),
            return_dict=False,
        )[0]


class MGLoopAfterDenoiser(ModularPipelineBlocks):
    """The scheduler's step."""

    description = "Inside the loop: moves the latents on by the scheduler."
    expected_components = [SCHEDULER]
    intermediate_outputs = [OutputParam("latents", torch.Tensor, description="(pictures, C, h, w)")]

    @property
    def inputs(self) -> list[InputParam]:
        return [InputParam("latents", torch.Tensor, required=True), generator_input()]

    @torch.no_grad()
    def __call__(self, components: Any, block_state: Any, i: int, t: torch.Tensor) -> tuple[Any, Any]:
        options = StableDiffusionPipeline.prepare_extra_step_kwargs(components, block_state.generator, eta=0.0)
        latents = components.scheduler.step(
            block_state.noise_pred, t, block_state.latents, **options, return_dict=False
        )[0]
        block_state.latents = latents.to(block_state.prompt_embeds.dtype)
        return components, block_state


class MGDenoiseStep(LoopSequentialPipelineBlocks):
    """The loop over the timesteps, with the adapter's attention processors on the UNet for as long as it runs."""

    block_classes = [MGLoopDenoiser, MGLoopAfterDenoiser]
    block_names = ["denoiser", "after_denoiser"]
    description = "Denoises; the adapter is attached to the UNet for as long as that takes."
    loop_expected_components = [MG_ADAPTER, UNET]

    @property
    def loop_inputs(self) -> list[InputParam]:
        return [InputParam("timesteps", torch.Tensor, required=True), InputParam("conditioning", tuple, required=True)]

    @torch.no_grad()
    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        attached = contextlib.nullcontext()
        if any(one is not None for one in block_state.conditioning):
            attached = components.mg_adapter.attach(bare(components.unet))
        with attached, self.progress_bar(total=len(block_state.timesteps)) as progress_bar:
            for i, t in enumerate(block_state.timesteps):
                components, block_state = self.loop_step(components, block_state, i=i, t=t)
                progress_bar.update()
        self.set_block_state(state, block_state)
        return components, state


class MGDecodeStep(ModularPipelineBlocks):
    """Latents to pictures."""

    description = "Decodes the latents."
    expected_components = [VAE, IMAGE_PROCESSOR]
    intermediate_outputs = [
        OutputParam("images", description="PIL images, (B, H, W, 3) or (B, 3, H, W) in [0, 1], or latents")
    ]

    @property
    def inputs(self) -> list[InputParam]:
        return [
            InputParam("latents", torch.Tensor, required=True),
            InputParam("output_type", str, default="pil", description='"pil", "np", "pt" or "latent"'),
            generator_input(),
        ]

    @torch.no_grad()
    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        given, vae = self.get_block_state(state), components.vae
        images = given.latents
        if given.output_type != "latent":
            scaled = (given.latents / vae.config.scaling_factor).to(vae.dtype)
            images = vae.decode(scaled, return_dict=False, generator=given.generator)[0]
        given.images = components.image_processor.postprocess(images, output_type=given.output_type)
        self.set_block_state(state, given)
        return components, state


class MGBlocks(SequentialPipelineBlocks):
    """Generation steered by the color, texture and shape of reference images, as `MGPipeline` does it."""

    block_classes = [
        MGInputStep,
        MGReferenceEncoderStep,
        MGTextEncoderStep,
        MGPrepareLatentsStep,
        MGConditioningStep,
        MGComposedStartStep,
        MGDenoiseStep,
        MGDecodeStep,
    ]
    block_names = ["inputs", "references", "text_encoder", "latents", "conditioning", "start", "denoise", "decode"]
    description = "Generates pictures steered by the color, texture and shape of reference images."
    outputs = [OutputParam("images", description="PIL images, (B, H, W, 3) or (B, 3, H, W) in [0, 1], or latents")]
