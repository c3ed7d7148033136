"""MGXLInpaintPipeline: `MGInpaintPipeline` for SDXL, with its two text encoders, pooled text and sizes.

Every pixel outside the mask comes back bit for bit. Full masks are generation; a source picture as its own shape
reference, with color or texture from elsewhere, is recoloring or retexturing.
"""

from collections.abc import Callable
from typing import Any

import torch
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from .source_only import SENTENCE  # noqa: F401 (first of all)


# isort: split
from .arguments import documented
from .call import MultiGranularityPipelineOutput
from .editing import Editing
from .references import Features
from .stable_diffusion_xl import OfStableDiffusionXL
from .steering import Steered


EXAMPLE_DOC_STRING = """
    Examples:
        ```py
        >>> import torch
        >>> from diffusers.utils import load_image
        >>> from mg_diffusion import MGAdapter, MGEncoder, MGXLInpaintPipeline

        >>> trained = "path/to/encoder/and/adapter"
        >>> pipe = MGXLInpaintPipeline.from_pretrained(
        ...     "diffusers/stable-diffusion-xl-1.0-inpainting-0.1",
        ...     mg_encoder=MGEncoder.from_pretrained(trained, subfolder="mg_encoder", dtype=torch.float16),
        ...     mg_adapter=MGAdapter.from_pretrained(trained, subfolder="mg_adapter", dtype=torch.float16),
        ...     dtype=torch.float16,
        ... ).to("cuda")
        >>> image, mask_image = load_image("jacket.png"), load_image("jacket_mask.png")
        >>> edited = pipe(
        ...     image=image,
        ...     mask_image=mask_image,
        ...     reference_image={"color": ["#c1121f"], "texture": load_image("knitted_wool.png"), "shape": image},
        ...     generator=torch.Generator("cuda").manual_seed(0),
        ... ).images[0]
        ```
"""


class MGXLInpaintPipeline(Editing, Steered, OfStableDiffusionXL, DiffusionPipeline):
    """Editing inside a mask with SDXL, steered by the color, texture and shape of reference images.

    Without references, or at strength 0, this is exactly the base model.

    Args:
        vae ([`AutoencoderKL`] or a model with its interface): images to and from latents.
        text_encoder, text_encoder_2 ([`~transformers.CLIPTextModel`], [`~transformers.CLIPTextModelWithProjection`]),
        tokenizer, tokenizer_2 ([`~transformers.CLIPTokenizer`]): may all be `None`; the UNet then reads zeros in place
            of text.
        unet ([`UNet2DConditionModel`]): reads the latents (what is outside the mask is then put back after every
            step), or, in the manner of inpainting models, latents, the mask and the latents of the masked image.
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
    _callback_tensor_inputs = [*OfStableDiffusionXL.tensor_inputs, "mask", "masked_image_latents"]
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
        height="in pixels, see above.",
    )
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        prompt_2: str | list[str] | None = None,
        image: Any = None,
        mask_image: Any = None,
        reference_image: dict[str, Any] | None = None,
        granularity_scale: float | dict[str, float | list[float]] = 1.0,
        height: int | None = None,
        width: int | None = None,
        padding_mask_crop: int | None = None,
        strength: float = 1.0,
        num_inference_steps: int | str = "auto",
        timesteps: list[int] | None = None,
        sigmas: list[float] | None = None,
        guidance_scale: float = 7.5,
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
        context_scale: float = 1.0,
        mask_feather: int = 0,
        num_detail_steps: int | str = "auto",
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
        """Repaint the white part of `mask_image`.

        Without `height` and `width` the edit is computed at the UNet's native size or, with a detail network, octave by
        octave up to the size of what is computed (at most 512 x 512), brought back to that of `image` and pasted into it.
        With one of them and no `padding_mask_crop`, image and mask are brought to that size first, which
        is then that of the result; a pixel of the smaller mask is white if any pixel under it was.

        Args:
        Examples:

        Returns:
            `MultiGranularityPipelineOutput` with `images`, or a tuple that starts with them (and ends with the
            attribution, if asked for). Outside the mask they equal `image` (at the size asked for) bit for bit.

        Raises:
            ValueError: for arguments that cannot work, before anything is computed; the message says what to do.
        """
        return self.run(locals())
