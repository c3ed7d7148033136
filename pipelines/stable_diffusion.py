"""Stable Diffusion 1 and 2: components, text, and pictures to and from latents."""

import contextlib
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    ModelMixin,
    SchedulerMixin,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)
from diffusers.image_processor import VaeImageProcessor
from diffusers.loaders import (
    FromSingleFileMixin,
    IPAdapterMixin,
    StableDiffusionLoraLoaderMixin,
    TextualInversionLoaderMixin,
)
from diffusers.pipelines.pipeline_utils import StableDiffusionMixin
from transformers import CLIPImageProcessor, CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from .components import part_or_none, scale_factor
from .conditioning import lora_scaled
from .prompts import Prompts, listed


class OfStableDiffusion(
    Prompts,
    StableDiffusionMixin,
    TextualInversionLoaderMixin,
    StableDiffusionLoraLoaderMixin,
    IPAdapterMixin,
    FromSingleFileMixin,
):
    """What a call hands over for Stable Diffusion 1 and 2."""

    tensor_inputs = ["latents", "prompt_embeds", "negative_prompt_embeds"]  # what a callback may replace
    model_cpu_offload_seq = "text_encoder->image_encoder->unet->vae->mg_detail"
    _optional_components = [
        "text_encoder",
        "tokenizer",
        "mg_encoder",
        "mg_adapter",
        "mg_detail",
        "image_encoder",
        "feature_extractor",
    ]

    def __init__(
        self,
        vae: AutoencoderKL | ModelMixin,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        unet: UNet2DConditionModel,
        scheduler: SchedulerMixin,
        mg_encoder: ModelMixin,
        mg_adapter: ModelMixin,
        image_encoder: CLIPVisionModelWithProjection = None,
        feature_extractor: CLIPImageProcessor = None,
        mg_detail: UNet2DModel = None,
    ):
        super().__init__()
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=scheduler,
            mg_encoder=mg_encoder,
            mg_adapter=mg_adapter,
            image_encoder=part_or_none("image_encoder", image_encoder),
            feature_extractor=part_or_none("feature_extractor", feature_extractor),
            mg_detail=part_or_none("mg_detail", mg_detail),
        )
        self.check_components()
        if unet is not None and unet.config.addition_embed_type is not None:
            raise ValueError(
                f"The UNet reads more than text, addition_embed_type {unet.config.addition_embed_type!r}. For SDXL there "
                f"are `MGXLPipeline` and `MGXLInpaintPipeline`."
            )
        self.vae_scale_factor = scale_factor(vae)
        self.image_processor = VaeImageProcessor(vae_scale_factor=self.vae_scale_factor)

    def check_text(self, given: SimpleNamespace, batch_size: int, size: tuple[int, int]) -> None:
        """Raise a ValueError for prompts that cannot be."""
        self.check_prompts(given, batch_size)
        needs_negative = self.do_classifier_free_guidance and self.text_encoder is None
        self.check_embeds(given.prompt_embeds, given.negative_prompt_embeds, needs_negative)

    def prepare_text(self, call: Any) -> None:
        """Embeds of the prompts, with guidance behind those of the negative ones."""
        given = call.given
        call.prompt_embeds, call.negative_prompt_embeds = self.encode_prompt(
            self.prompts_of(given, call.batch_size),
            self._execution_device,
            given.num_images_per_prompt,
            self.do_classifier_free_guidance,
            listed(given.negative_prompt, call.batch_size),
            prompt_embeds=given.prompt_embeds,
            negative_prompt_embeds=given.negative_prompt_embeds,
            lora_scale=(given.cross_attention_kwargs or {}).get("scale"),
            clip_skip=given.clip_skip,
        )
        if self.do_classifier_free_guidance:
            call.prompt_embeds = torch.cat([call.negative_prompt_embeds, call.prompt_embeds])

    def added_conditions(self, call: Any) -> dict[str, torch.Tensor]:
        """What the UNet reads beside the text."""
        return {}

    def vae_in_float32(self, *dtypes: torch.dtype) -> contextlib.AbstractContextManager:
        """The VAE as it is: these do not overflow in half precision."""
        return contextlib.nullcontext()

    def feature_guidance_precision(self, call: Any) -> contextlib.AbstractContextManager:
        """The VAE as it is."""
        return contextlib.nullcontext()

    def encode_prompt(
        self,
        prompt: str | list[str] | None,
        device: torch.device,
        num_images_per_prompt: int,
        do_classifier_free_guidance: bool,
        negative_prompt: str | list[str] | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        lora_scale: float | None = None,
        clip_skip: int | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """As in `StableDiffusionPipeline`; zeros (B, 1, cross_attention_dim) where there is neither encoder nor embeds.

        Without a text encoder, `prompt` is a list of `None`, one for each sample.
        """
        if self.text_encoder is None and prompt_embeds is None:
            count = len(prompt) * num_images_per_prompt
            zeros = torch.zeros(count, 1, self.unet.config.cross_attention_dim, device=device, dtype=self.unet.dtype)
            return zeros, zeros if do_classifier_free_guidance else None
        if clip_skip is not None and prompt_embeds is None:
            # The stock method looks for the last norm where transformers no longer has it (diffusers issue 14124).
            prompt = self.maybe_convert_prompt(prompt, self.tokenizer)
            length = self.tokenizer.model_max_length
            tokens = self.tokenizer(
                prompt, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
            )
            with lora_scaled(self.text_encoder, lora_scale):
                encoded = self.text_encoder(tokens.input_ids.to(device), output_hidden_states=True)
            norm = getattr(self.text_encoder, "text_model", self.text_encoder).final_layer_norm
            prompt, prompt_embeds = None, norm(encoded.hidden_states[-(clip_skip + 1)])
        embeds = StableDiffusionPipeline.encode_prompt(
            self,
            prompt,
            device,
            num_images_per_prompt,
            do_classifier_free_guidance,
            negative_prompt,
            prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds,
            lora_scale=lora_scale,
        )
        # transformers loads a text encoder in the type of its file, diffusers everything else in float32.
        dtype = embeds[0].dtype if self.unet is None else self.unet.dtype
        return tuple(None if each is None else each.to(dtype) for each in embeds)

    def decode_latents(self, latents: torch.Tensor, generator: Any = None) -> torch.Tensor:
        """Latents (B, C, h, w) to images (B, 3, H, W) in about [-1, 1]."""
        latents = (latents / self.vae.config.scaling_factor).to(self.vae.dtype)
        return self.vae.decode(latents, return_dict=False, generator=generator)[0]

    encode_image = StableDiffusionPipeline.encode_image
    prepare_ip_adapter_image_embeds = StableDiffusionPipeline.prepare_ip_adapter_image_embeds
