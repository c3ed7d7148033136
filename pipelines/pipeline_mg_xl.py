"""MGXLPipeline: `MGPipeline` for SDXL, with its two text encoders, pooled text and sizes."""

from collections.abc import Callable
from typing import Any

import torch
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from .source_only import SENTENCE  # noqa: F401 (first of all)


# isort: split
from .arguments import documented
from .call import MultiGranularityPipelineOutput
from .generating import FromNoise
from .references import Features
from .stable_diffusion_xl import OfStableDiffusionXL
from .steering import Steered


EXAMPLE_DOC_STRING = """
    Examples:
        ```py
        >>> import torch
        >>> from diffusers.utils import load_image
        >>> from mg_diffusion import MGAdapter, MGEncoder, MGXLPipeline

        >>> trained = "path/to/encoder/and/adapter"
        >>> pipe = MGXLPipeline.from_pretrained(
        ...     "stabilityai/stable-diffusion-xl-base-1.0",
        ...     mg_encoder=MGEncoder.from_pretrained(trained, subfolder="mg_encoder", dtype=torch.float16),
        ...     mg_adapter=MGAdapter.from_pretrained(trained, subfolder="mg_adapter", dtype=torch.float16),
        ...     dtype=torch.float16,
        ... ).to("cuda")
        >>> image = pipe(
        ...     "a flower",
        ...     reference_image={"color": ["#c1121f:2", "#fdf0d5"], "shape": load_image("rose.png")},
        ...     generator=torch.Generator("cuda").manual_seed(0),
        ... ).images[0]
        ```
"""


class MGXLPipeline(FromNoise, Steered, OfStableDiffusionXL, DiffusionPipeline):
    """Generation with SDXL, steered by the color, texture and shape of reference images, with or without text.

    Without references, or at strength 0, this is exactly the base model.

    Args:
        vae ([`AutoencoderKL`] or a model with its interface): images to and from latents.
        text_encoder, text_encoder_2 ([`~transformers.CLIPTextModel`], [`~transformers.CLIPTextModelWithProjection`]),
        tokenizer, tokenizer_2 ([`~transformers.CLIPTokenizer`]): may all be `None`; the UNet then reads zeros in place
            of text.
        unet ([`UNet2DConditionModel`]): reads the latents, or, in the manner of inpainting models, latents, a mask and
            the latents of the masked image; one such UNet generates and inpaints.
        scheduler ([`SchedulerMixin`])
        mg_encoder (`MGEncoder`): reads references. May be `None`; `reference_embeds` still work.
        mg_adapter (`MGAdapter`): brings what was read into the UNet. May be `None`; there are no references then.
        image_encoder, feature_extractor ([`~transformers.CLIPVisionModelWithProjection`],
            [`~transformers.CLIPImageProcessor`]): for IP-Adapters only; `load_ip_adapter` brings them along.
        mg_detail ([`UNet2DModel`]): paints the octaves above what the UNet paints; may be `None`. (Stage `detail` of the
            training; it is no part of a Stable Diffusion.)
        force_zeros_for_empty_prompt (`bool`): whether no negative prompt is zeros, rather than the empty prompt.

    Raises:
        ValueError: if the adapter was made for another UNet or another encoder, the UNet's input channels fit neither
            way of use, or the UNet is not one of SDXL's base model (a refiner is refused).
    """

    default_steps = 50  # as of the stock pipeline
    _callback_tensor_inputs = OfStableDiffusionXL.tensor_inputs
    _saved_together = ("pipeline_mg_xl", "pipeline_mg_xl_inpaint")  # so that one repository serves both tasks

    @torch.no_grad()
    @documented(
        EXAMPLE_DOC_STRING,
        prompt='one or several; `None` is "" where there are text encoders.',
        negative_prompt="""what to steer away from; one for all prompts or one for each. `None` is zeros in place of text, or ""
            where `force_zeros_for_empty_prompt` is off.""",
        ip_adapter_image="""for IP-Adapters, as in `StableDiffusionXLPipeline`; masks are given as
            `cross_attention_kwargs={"ip_adapter_masks": ...}`.""",
        clip_skip="layers of the text encoders to skip, beyond the last one, which SDXL always skips.",
    )
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        prompt_2: str | list[str] | None = None,
        reference_image: dict[str, Any] | None = None,
        granularity_scale: float | dict[str, float | list[float]] = 1.0,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | str = "auto",
        timesteps: list[int] | None = None,
        sigmas: list[float] | None = None,
        guidance_scale: float = 5.0,
        negative_prompt: str | list[str] | None = None,
        negative_prompt_2: str | list[str] | None = None,
        num_images_per_prompt: int = 1,
        eta: float = 0.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        pooled_prompt_embeds: torch.Tensor | None = None,
        negative_pooled_prompt_embeds: torch.Tensor | None = None,
        ip_adapter_image: Any = None,
        ip_adapter_image_embeds: list[torch.Tensor] | None = None,
        reference_embeds: Features | None = None,
        fusion_scale: float = 1.0,
        texture_scale: float = 1.0,
        assignment: str = "light",
        num_detail_steps: int | str = "auto",
        granularity_schedule: dict[str, Any] | None = None,
        granularity_guidance: dict[str, float] | None = None,
        negative_reference_image: dict[str, Any] | None = None,
        composed_start: float | str = "auto",
        feature_guidance_scale: float | dict[str, float] | str = "auto",
        feature_guidance_window: tuple[float, float] = (0.0, 1.0),
        feature_guidance_decoder: Any = "linear",
        feature_guidance_full: bool = False,
        return_attribution: bool = False,
        leak_guard: bool = False,
        controlnet: Any = None,
        control_image: Any = None,
        controlnet_conditioning_scale: float | list[float] = 1.0,
        control_guidance_start: float | list[float] = 0.0,
        control_guidance_end: float | list[float] = 1.0,
        t2i_adapter: Any = None,
        t2i_image: Any = None,
        adapter_conditioning_scale: float | list[float] = 1.0,
        adapter_conditioning_factor: float = 1.0,
        output_type: str = "pil",
        return_dict: bool = True,
        cross_attention_kwargs: dict[str, Any] | None = None,
        original_size: tuple[int, int] | None = None,
        crops_coords_top_left: tuple[int, int] = (0, 0),
        target_size: tuple[int, int] | None = None,
        negative_original_size: tuple[int, int] | None = None,
        negative_crops_coords_top_left: tuple[int, int] = (0, 0),
        negative_target_size: tuple[int, int] | None = None,
        clip_skip: int | None = None,
        callback_on_step_end: Callable | PipelineCallback | MultiPipelineCallbacks | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],  # noqa: B006
    ) -> MultiGranularityPipelineOutput | Any:  # a tuple where `return_dict` is false
        """Generate pictures.

        Args:
        Examples:

        Returns:
            `MultiGranularityPipelineOutput` with `images`, or a tuple that starts with them (and ends with the
            attribution, if asked for).

        Raises:
            ValueError: for arguments that cannot work, before anything is computed; the message says what to do.
        """
        return self.run(locals())
