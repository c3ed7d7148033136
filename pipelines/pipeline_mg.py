"""MGPipeline: pictures from noise, steered by the color, texture and shape of reference images, with or without text."""

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
from .stable_diffusion import OfStableDiffusion
from .steering import Steered


EXAMPLE_DOC_STRING = """
    Examples:
        ```py
        >>> import torch
        >>> from diffusers.utils import load_image
        >>> from mg_diffusion import MGPipeline

        >>> pipe = MGPipeline.from_pretrained("path/to/exported/repository")
        >>> reference_image = {
        ...     "color": ["#c1121f:2", "#fdf0d5"],
        ...     "texture": load_image("knitted_wool.png"),
        ...     "shape": load_image("rose.png"),
        ... }
        >>> image = pipe(
        ...     "a flower",
        ...     reference_image=reference_image,
        ...     granularity_scale={"texture": 0.8},
        ...     generator=torch.Generator().manual_seed(0),
        ... ).images[0]
        ```
"""


class MGPipeline(FromNoise, Steered, OfStableDiffusion, DiffusionPipeline):
    """Generation steered by the color, texture and shape of reference images, with or without text.

    Without references, or at strength 0, this is exactly the base model.

    Args:
        vae ([`AutoencoderKL`] or a model with its interface): images to and from latents.
        text_encoder, tokenizer ([`~transformers.CLIPTextModel`], [`~transformers.CLIPTokenizer`]): may be `None`; the
            UNet then reads zeros in place of text.
        unet ([`UNet2DConditionModel`]): reads the latents, or, in the manner of inpainting models, latents, a mask and
            the latents of the masked image; one such UNet generates and inpaints.
        scheduler ([`SchedulerMixin`])
        mg_encoder (`MGEncoder`): reads references. May be `None`; `reference_embeds` still work.
        mg_adapter (`MGAdapter`): brings what was read into the UNet. May be `None`; there are no references then.
        image_encoder, feature_extractor ([`~transformers.CLIPVisionModelWithProjection`],
            [`~transformers.CLIPImageProcessor`]): for IP-Adapters only; `load_ip_adapter` brings them along.
        mg_detail ([`UNet2DModel`]): paints the octaves above what the UNet paints; may be `None`. (Stage `detail` of the
            training; it is no part of a Stable Diffusion.)

    Raises:
        ValueError: if the adapter was made for another UNet or another encoder, or the UNet's input channels fit
            neither way of use.
    """

    _callback_tensor_inputs = OfStableDiffusion.tensor_inputs
    _saved_together = ("pipeline_mg", "pipeline_mg_inpaint")  # so that one repository serves both tasks

    @torch.no_grad()
    @documented(EXAMPLE_DOC_STRING)
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        reference_image: dict[str, Any] | None = None,
        granularity_scale: float | dict[str, float | list[float]] = 1.0,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | str = "auto",
        timesteps: list[int] | None = None,
        sigmas: list[float] | None = None,
        guidance_scale: float = 1.5,
        negative_prompt: str | list[str] | None = None,
        num_images_per_prompt: int = 1,
        eta: float = 0.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
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
