"""Stable Diffusion XL: components, text with its pooled part, sizes, and pictures to and from latents."""

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    ModelMixin,
    SchedulerMixin,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)
from diffusers.image_processor import VaeImageProcessor
from diffusers.loaders import (
    FromSingleFileMixin,
    IPAdapterMixin,
    StableDiffusionXLLoraLoaderMixin,
    TextualInversionLoaderMixin,
)
from diffusers.pipelines.pipeline_utils import StableDiffusionMixin
from transformers import (
    CLIPImageProcessor,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
)

from ..arrays import check_tensor, whole_number
from .components import part_or_none, scale_factor
from .prompts import Prompts, listed


class OfStableDiffusionXL(
    Prompts,
    StableDiffusionMixin,
    TextualInversionLoaderMixin,
    StableDiffusionXLLoraLoaderMixin,
    IPAdapterMixin,
    FromSingleFileMixin,
):
    """What a call hands over for Stable Diffusion XL."""

    tensor_inputs = [
        "latents",
        "prompt_embeds",
        "negative_prompt_embeds",
        "add_text_embeds",
        "add_time_ids",
    ]  # what a callback may replace
    model_cpu_offload_seq = "text_encoder->text_encoder_2->image_encoder->unet->vae->mg_detail"
    _optional_components = [
        "text_encoder",
        "text_encoder_2",
        "tokenizer",
        "tokenizer_2",
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
        text_encoder_2: CLIPTextModelWithProjection,
        tokenizer: CLIPTokenizer,
        tokenizer_2: CLIPTokenizer,
        unet: UNet2DConditionModel,
        scheduler: SchedulerMixin,
        mg_encoder: ModelMixin,
        mg_adapter: ModelMixin,
        image_encoder: CLIPVisionModelWithProjection = None,
        feature_extractor: CLIPImageProcessor = None,
        mg_detail: UNet2DModel = None,
        force_zeros_for_empty_prompt: bool = True,
    ):
        super().__init__()
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            text_encoder_2=text_encoder_2,
            tokenizer=tokenizer,
            tokenizer_2=tokenizer_2,
            unet=unet,
            scheduler=scheduler,
            mg_encoder=mg_encoder,
            mg_adapter=mg_adapter,
            image_encoder=part_or_none("image_encoder", image_encoder),
            feature_extractor=part_or_none("feature_extractor", feature_extractor),
            mg_detail=part_or_none("mg_detail", mg_detail),
        )
        self.register_to_config(force_zeros_for_empty_prompt=force_zeros_for_empty_prompt)
        self.check_components()
        self.check_xl_components()
        self.vae_scale_factor = scale_factor(vae)
        self.image_processor = VaeImageProcessor(vae_scale_factor=self.vae_scale_factor)

    def check_xl_components(self) -> None:
        """Raise a ValueError unless UNet, text encoders and VAE are those of SDXL's base model, or absent."""
        unet, text_encoder_2 = self.unet, self.text_encoder_2
        if unet is not None and unet.config.addition_embed_type != "text_time":
            raise ValueError(
                f'The UNet must be one of SDXL, with addition_embed_type "text_time", got '
                f"{unet.config.addition_embed_type!r}. For Stable Diffusion there are `MGPipeline` and "
                f"`MGInpaintPipeline`."
            )
        if (
            unet is not None
            and text_encoder_2 is not None
            and text_encoder_2.config.projection_dim != self.pooled_size
        ):
            raise ValueError(
                f"The UNet reads six sizes and a pooled text of {self.pooled_size} numbers, but `text_encoder_2` gives "
                f"{text_encoder_2.config.projection_dim}. Load both from one repository. A refiner, which reads an "
                f"aesthetic score in place of a size, is not supported."
            )
        if (self.text_encoder is None) != (text_encoder_2 is None):
            raise ValueError("`text_encoder` and `text_encoder_2` go together: pass both, or `None` for both.")
        if self.vae is not None and self.vae.config.get("latents_mean") is not None:
            raise ValueError(
                "The VAE has a `latents_mean`, which this pipeline does not apply. Use a VAE without, as SDXL's own."
            )

    def check_text(self, given: SimpleNamespace, batch_size: int, size: tuple[int, int]) -> list[list[int]]:
        """Raise a ValueError for prompts and sizes that cannot be; returns what `check_sizes` does."""
        self.check_prompts(given, batch_size)
        for name in ("prompt", "negative_prompt"):
            if getattr(given, name) is None and getattr(given, f"{name}_2") is not None:
                raise ValueError(f'`{name}_2` needs a `{name}`, for the first text encoder; it may be "".')
        is_zero = self.config.force_zeros_for_empty_prompt
        needs_negative = self.do_classifier_free_guidance and self.text_encoder is None and not is_zero
        self.check_embeds(given.prompt_embeds, given.negative_prompt_embeds, needs_negative)
        self.check_pooled(given)
        return self.check_sizes(given, size)

    def check_pooled(self, given: SimpleNamespace) -> None:
        """Raise a ValueError for pooled embeds that do not go with the embeds, or not into the UNet."""
        for name in ("prompt_embeds", "negative_prompt_embeds"):
            pooled_name = name.replace("prompt", "pooled_prompt")
            embeds, pooled = getattr(given, name), getattr(given, pooled_name)
            if (embeds is None) != (pooled is None):
                raise ValueError(f"`{name}` and `{pooled_name}` go together, both from `encode_prompt`. Pass both.")
            if embeds is None:
                continue
            check_tensor(pooled, pooled_name, (embeds.shape[0], self.pooled_size), "encode_prompt")

    def check_sizes(self, given: SimpleNamespace, size: tuple[int, int]) -> list[list[int]]:
        """What the UNet is told about sizes: of what to steer away from, and of the picture, six integers each.

        Args:
            size: (height, width) of what is computed, in place of what is not given.

        Raises:
            ValueError: for sizes and places that are no pairs of integers, or of which one is missing.
        """
        names = ("original_size", "crops_coords_top_left", "target_size")
        for name in (*names, *(f"negative_{name}" for name in names)):
            pair = getattr(given, name)
            sides = tuple(map(whole_number, pair)) if isinstance(pair, (tuple, list)) else ()
            is_pair = len(sides) == 2 and None not in sides
            if not is_pair and not (pair is None and name.endswith("size")):
                raise ValueError(f"`{name}` is a pair of integers, (height, width) or (top, left); got {pair!r}.")
            setattr(given, name, sides if is_pair else None)
        is_negative = [one is not None for one in (given.negative_original_size, given.negative_target_size)]
        is_cropped = tuple(given.negative_crops_coords_top_left) != (0, 0)
        if any(is_negative) != all(is_negative) or (is_cropped and not any(is_negative)):
            raise ValueError(
                "`negative_original_size` and `negative_target_size` go together, and `negative_crops_coords_top_left` "
                "goes with them. Pass both sizes, or none of the three."
            )
        sizes = [*(given.original_size or size), *given.crops_coords_top_left, *(given.target_size or size)]
        if not any(is_negative):
            return [sizes, sizes]
        negative = (getattr(given, f"negative_{name}") for name in names)
        return [[side for pair in negative for side in pair], sizes]

    @property
    def pooled_size(self) -> int:
        """Numbers of pooled text that the UNet reads, beside six sizes."""
        return self.unet.config.projection_class_embeddings_input_dim - 6 * self.unet.config.addition_time_embed_dim

    def encode_prompt(
        self,
        prompt: str | list[str] | None,
        prompt_2: str | list[str] | None,
        device: torch.device,
        num_images_per_prompt: int,
        do_classifier_free_guidance: bool,
        negative_prompt: str | list[str] | None = None,
        negative_prompt_2: str | list[str] | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        pooled_prompt_embeds: torch.Tensor | None = None,
        negative_pooled_prompt_embeds: torch.Tensor | None = None,
        lora_scale: float | None = None,
        clip_skip: int | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor | None]:
        """As in `StableDiffusionXLPipeline`; zeros where there is neither encoder nor embeds.

        Without a text encoder, `prompt` is a list of `None`, one for each sample.

        Returns:
            embeds of prompts and negative prompts (B, tokens, C), and the pooled ones of both (B, P).
        """
        if self.text_encoder is None and prompt_embeds is None:
            count = len(prompt) * num_images_per_prompt
            zeros = torch.zeros(count, 1, self.unet.config.cross_attention_dim, device=device, dtype=self.unet.dtype)
            pooled = zeros.new_zeros(count, self.pooled_size)
            return (zeros, zeros, pooled, pooled) if do_classifier_free_guidance else (zeros, None, pooled, None)
        embeds = StableDiffusionXLPipeline.encode_prompt(
            self,
            prompt,
            prompt_2,
            device,
            num_images_per_prompt,
            do_classifier_free_guidance,
            negative_prompt,
            negative_prompt_2,
            prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds,
            pooled_prompt_embeds=pooled_prompt_embeds,
            negative_pooled_prompt_embeds=negative_pooled_prompt_embeds,
            lora_scale=lora_scale,
            clip_skip=clip_skip,
        )
        # transformers loads a text encoder in the type of its file, diffusers everything else in float32.
        return tuple(None if each is None else each.to(device, self.unet.dtype) for each in embeds)

    def prepare_text(self, call: Any) -> None:
        """Embeds of the prompts, pooled text and sizes, with guidance behind those of the negative ones."""
        given = call.given
        # An empty second one stays as it is: diffusers takes the first one in its place.
        prompt_2, negative_prompt_2 = (
            listed(text, call.batch_size) if text else text for text in (given.prompt_2, given.negative_prompt_2)
        )
        embeds = self.encode_prompt(
            self.prompts_of(given, call.batch_size),
            prompt_2,
            self._execution_device,
            given.num_images_per_prompt,
            self.do_classifier_free_guidance,
            listed(given.negative_prompt, call.batch_size),
            negative_prompt_2,
            prompt_embeds=given.prompt_embeds,
            negative_prompt_embeds=given.negative_prompt_embeds,
            pooled_prompt_embeds=given.pooled_prompt_embeds,
            negative_pooled_prompt_embeds=given.negative_pooled_prompt_embeds,
            lora_scale=(given.cross_attention_kwargs or {}).get("scale"),
            clip_skip=given.clip_skip,
        )
        call.prompt_embeds, call.negative_prompt_embeds, call.add_text_embeds, negative_text_embeds = embeds
        negative_time_ids, call.add_time_ids = (
            torch.tensor([one], dtype=call.prompt_embeds.dtype, device=self._execution_device).expand(call.count, -1)
            for one in call.sizes
        )
        if self.do_classifier_free_guidance:
            call.prompt_embeds = torch.cat([call.negative_prompt_embeds, call.prompt_embeds])
            call.add_text_embeds = torch.cat([negative_text_embeds, call.add_text_embeds])
            call.add_time_ids = torch.cat([negative_time_ids, call.add_time_ids])

    def added_conditions(self, call: Any) -> dict[str, torch.Tensor]:
        """What the UNet reads beside the text."""
        return {"text_embeds": call.add_text_embeds, "time_ids": call.add_time_ids}

    def feature_guidance_precision(self, call: Any) -> contextlib.AbstractContextManager:
        """Where pictures are guided, a linear decoder is fitted to the VAE, or its gradient is taken."""
        return self.vae_in_float32(*((torch.float16, torch.bfloat16) if call.feature_scales else ()))

    @contextlib.contextmanager
    def vae_in_float32(self, *dtypes: torch.dtype) -> Iterator[None]:
        """The VAE in float32 for the length of a `with` block, if it overflows in half precision and is in one of these."""
        before = self.vae.dtype
        if before not in dtypes or not self.vae.config.get("force_upcast", False):
            yield
            return
        self.vae.to(torch.float32)
        try:
            yield
        finally:
            self.vae.to(before)

    def decode_latents(self, latents: torch.Tensor, generator: Any = None) -> torch.Tensor:
        """Latents (B, C, h, w) to images (B, 3, H, W) in about [-1, 1]."""
        with self.vae_in_float32(torch.float16):
            latents = latents.to(self.vae.dtype) / self.vae.config.scaling_factor
            return self.vae.decode(latents, return_dict=False, generator=generator)[0]

    encode_image = StableDiffusionXLPipeline.encode_image
    prepare_ip_adapter_image_embeds = StableDiffusionXLPipeline.prepare_ip_adapter_image_embeds
