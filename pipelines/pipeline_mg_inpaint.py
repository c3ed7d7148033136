"""MGInpaintPipeline: repaint part of a picture, steered by the color, texture and shape of reference images.

Every pixel outside the mask comes back bit for bit. Full masks are generation; a source picture as its own shape
reference, with color or texture from elsewhere, is recoloring or retexturing.

This file is self-contained: it is copied into exported repositories and loaded from there as remote code, or as a
`custom_pipeline`. It must define exactly one pipeline class.
"""

import contextlib
import functools
import inspect
import json
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps
import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    ModelMixin,
    MultiAdapter,
    SchedulerMixin,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    T2IAdapter,
    UNet2DConditionModel,
)
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.image_processor import VaeImageProcessor
from diffusers.loaders import (
    FromSingleFileMixin,
    IPAdapterMixin,
    StableDiffusionLoraLoaderMixin,
    TextualInversionLoaderMixin,
)
from diffusers.models import MultiControlNetModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, StableDiffusionMixin
from diffusers.pipelines.stable_diffusion import StableDiffusionPipelineOutput
from diffusers.utils import USE_PEFT_BACKEND, replace_example_docstring, scale_lora_layers, unscale_lora_layers
from diffusers.utils.torch_utils import randn_tensor
from transformers import CLIPImageProcessor, CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection


Features = dict[str, dict[str, torch.Tensor]]  # of a granularity whose references have regions, a list of them
Conditioning = tuple[dict[str, tuple[torch.Tensor, ...]], list[torch.Tensor] | None]
# The same with the residuals by the granularities they come from.
ConditioningApart = tuple[dict[str, tuple[torch.Tensor, ...]], dict[tuple[str, ...], list[torch.Tensor]]]

LENT_TEXTURE = 0.5  # strength of a lent texture: a tile of the surroundings may hold a thing, such as a face
FEATURE_STEP = 0.1  # root mean square of a move of the latents by feature guidance at scale 1 and full noise
FEATURE_WEIGHTS = {"texture": 2.0}  # its gradient is spread over fine detail, which the denoiser resists most
SIBLINGS = ("pipeline_mg.py", "pipeline_mg_inpaint.py")  # exported together, so that one repository serves both tasks

EXAMPLE_DOC_STRING = """
    Examples:
        ```py
        >>> import torch
        >>> from diffusers.utils import load_image
        >>> from mg_diffusion import MGInpaintPipeline

        >>> pipe = MGInpaintPipeline.from_pretrained("path/to/exported/repository")
        >>> image, mask_image = load_image("jacket.png"), load_image("jacket_mask.png")
        >>> edited = pipe(
        ...     image=image,
        ...     mask_image=mask_image,
        ...     reference_image={"color": ["#c1121f"], "texture": load_image("knitted_wool.png"), "shape": image},
        ...     generator=torch.Generator().manual_seed(0),
        ... ).images[0]
        ```
"""


# Copied from pipelines.pipeline_mg.retrieve_timesteps
def retrieve_timesteps(
    scheduler: SchedulerMixin,
    num_inference_steps: int,
    device: torch.device,
    timesteps: list[int] | None = None,
    sigmas: list[float] | None = None,
) -> tuple[torch.Tensor, int]:
    """Set the schedule: evenly by `num_inference_steps`, or custom `timesteps` or `sigmas` (at most one of them).

    Raises:
        ValueError: if both are given, or one that `scheduler.set_timesteps` does not take.
    """
    custom = {name: value for name, value in (("timesteps", timesteps), ("sigmas", sigmas)) if value is not None}
    unsupported = [name for name in custom if name not in inspect.signature(scheduler.set_timesteps).parameters]
    if len(custom) > 1 or unsupported:
        raise ValueError(
            f"Pass only one of `timesteps` and `sigmas`, and one that the scheduler supports; got {list(custom)}, and "
            f"{type(scheduler).__name__} does not support {unsupported}."
        )
    if custom:
        scheduler.set_timesteps(device=device, **custom)
        return scheduler.timesteps, len(scheduler.timesteps)
    scheduler.set_timesteps(num_inference_steps, device=device)
    return scheduler.timesteps, num_inference_steps


# Copied from pipelines.pipeline_mg.retrieve_latents
def retrieve_latents(encoded: Any, generator: torch.Generator | None = None) -> torch.Tensor:
    """Latents of what a VAE's `encode` returns: a sample of its distribution, or its only point."""
    return encoded.latent_dist.sample(generator) if hasattr(encoded, "latent_dist") else encoded.latents


# Copied from pipelines.pipeline_mg.count_samples
def count_samples(reference: Any) -> int:
    """How many samples a reference is given for: a list of lists holds one list per sample, all else serves every one.

    A list of hex colors is one palette, not a list of references.
    """

    def is_list_of_references(entry: Any) -> bool:
        is_palette = isinstance(entry, (list, tuple)) and all(isinstance(x, str) and x.startswith("#") for x in entry)
        return isinstance(entry, (list, tuple)) and not is_palette

    is_nested = isinstance(reference, (list, tuple)) and any(is_list_of_references(entry) for entry in reference)
    return len(reference) if is_nested else 1


# Copied from pipelines.pipeline_mg.MultiGranularityPipelineOutput
@dataclass
class MultiGranularityPipelineOutput(StableDiffusionPipelineOutput):
    """As of Stable Diffusion, and with `return_attribution` what `attribute` returns."""

    attribution: dict[str, dict[str, torch.Tensor]] | None = None


# Copied from pipelines.pipeline_mg.shows_a_picture
def shows_a_picture(reference: Any) -> bool:
    """Whether all that a reference holds are pictures, rather than palettes or granularity cards."""
    if isinstance(reference, (list, tuple)):
        return len(reference) > 0 and all(shows_a_picture(entry) for entry in reference)
    image = reference.get("image") if isinstance(reference, dict) else reference
    if isinstance(image, (str, os.PathLike)):
        return not os.fspath(image).startswith("#") and not os.fspath(image).lower().endswith(".safetensors")
    return not isinstance(image, (list, tuple))


# Copied from pipelines.pipeline_mg.unit_root_mean_square
def unit_root_mean_square(gradient: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) in float32 with a root mean square of 1 for each sample; zeros stay zeros."""
    gradient = gradient.float()  # in half precision the floor would be 0
    return gradient / gradient.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-12)


# Copied from pipelines.pipeline_mg.has_region
def has_region(reference: Any) -> bool:
    """Whether a reference, or one in a list of them, has a region."""
    if isinstance(reference, (list, tuple)):
        return any(has_region(entry) for entry in reference)
    return isinstance(reference, dict) and reference.get("region") is not None


# Copied from pipelines.pipeline_mg.by_region
def by_region(features: dict[str, torch.Tensor] | list[dict[str, torch.Tensor]]) -> list[dict[str, torch.Tensor]]:
    """The features of one granularity: of each region, or, where references have none, of the whole picture alone."""
    return features if isinstance(features, list) else [features]


# Copied from pipelines.pipeline_mg.lora_scaled
@contextlib.contextmanager
def lora_scaled(model: torch.nn.Module, scale: float | None) -> Iterator[None]:
    """LoRA layers at the strength that `cross_attention_kwargs` asks for, where no call of diffusers sees to it."""
    if scale is None or scale == 1.0 or not USE_PEFT_BACKEND:
        yield
        return
    scale_lora_layers(model, scale)
    try:
        yield
    finally:
        unscale_lora_layers(model, scale)


# Copied from pipelines.pipeline_mg.networks
def networks(model: Any) -> list[Any]:
    """The single ControlNets or T2I-Adapters of what a call gets: none, one, several in one, or a list."""
    bare = getattr(model, "_orig_mod", model)
    if isinstance(bare, (MultiControlNetModel, MultiAdapter)):
        return list(bare.nets if isinstance(bare, MultiControlNetModel) else bare.adapters)
    if isinstance(bare, (list, tuple)):
        return [one for entry in bare for one in networks(entry)]
    return [] if model is None else [model]


# Copied from pipelines.pipeline_mg.one_for_each
def one_for_each(value: Any, count: int, name: str) -> list[float]:
    """A number for each of `count` networks, out of one for all or a list of them."""
    values = list(value) if isinstance(value, (list, tuple)) else [value] * count
    is_number = [isinstance(one, (int, float)) and abs(one) < float("inf") for one in values]
    if len(values) != count or not all(is_number):
        raise ValueError(f"`{name}` must be a finite number or a list of one for each of {count}, got {value!r}.")
    return [float(one) for one in values]


# ---------------------------------------------------------------------------------------------------------------------
# Reading and pasting pictures
# ---------------------------------------------------------------------------------------------------------------------
def upright(picture: PIL.Image.Image | str | os.PathLike, name: str) -> PIL.Image.Image:
    """A PIL image or that of a file, decoded and turned as its EXIF orientation says; `name` is the argument's.

    Raises:
        ValueError: if it cannot be decoded.
    """
    is_path = isinstance(picture, (str, os.PathLike))
    try:
        with PIL.Image.open(picture) if is_path else contextlib.nullcontext(picture) as opened:
            return PIL.ImageOps.exif_transpose(opened)
    except Exception as error:  # decoders of damaged files raise errors of any type
        place = f" from {os.fspath(picture)!r}" if is_path else ""
        raise ValueError(
            f"`{name}` cannot be read{place}: {error}. It may be missing, truncated, too large or of another format."
        ) from error


def list_images(image: Any) -> list[PIL.Image.Image | torch.Tensor]:
    """The pictures to edit, one by one: PIL images in RGB, upright, or tensors (3, H, W) in [0, 1].

    Args:
        image: PIL image, path, numpy (H, W, 3) or (B, H, W, 3), torch (3, H, W) or (B, 3, H, W), uint8 or float in
            [0, 1]; or a list of those.

    Raises:
        ValueError: for another type, shape, range or mode, or a damaged file; the message says what to do.
    """
    if isinstance(image, (list, tuple)):
        return [one for entry in image for one in list_images(entry)]
    if isinstance(image, (str, os.PathLike, PIL.Image.Image)):
        return [opaque_rgb(upright(image, "image"))]
    if isinstance(image, (np.ndarray, torch.Tensor)):
        return list(batch_of_images(image))
    raise ValueError(
        f"`image` must be a PIL image, a path, a numpy array, a torch tensor, or a list of those; got "
        f"{type(image).__name__}."
    )


def opaque_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """A PIL image in RGB; what has no well-defined color is refused rather than given one."""
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema()[0] < 255:
            raise ValueError("`image` has transparent pixels, whose color is not defined. Composite it first.")
        return image.convert("RGB")
    if image.mode not in ("RGB", "L", "1", "P"):
        raise ValueError(f"`image` has the mode {image.mode}; convert it first, for example `image.convert('RGB')`.")
    return image.convert("RGB")


def batch_of_images(array: np.ndarray | torch.Tensor) -> torch.Tensor:
    """An array of one or several images to (B, 3, H, W), float32 in [0, 1]."""
    is_numpy = isinstance(array, np.ndarray)
    tensor = torch.from_numpy(np.array(array)) if is_numpy else array.detach()  # a copy may be written to
    tensor = tensor.unsqueeze(0) if tensor.ndim == 3 else tensor
    if tensor.ndim != 4 or tensor.shape[3 if is_numpy else 1] != 3 or tensor.numel() == 0:
        layout = "(height, width, 3) or (batch, height, width, 3)" if is_numpy else "(3, H, W) or (batch, 3, H, W)"
        raise ValueError(f"`image` as an array must have the shape {layout}, got {tuple(array.shape)}.")
    tensor = tensor.permute(0, 3, 1, 2) if is_numpy else tensor
    if tensor.dtype == torch.uint8:
        return tensor.float() / 255
    if not tensor.is_floating_point() or not (tensor.min() >= 0 and tensor.max() <= 1):
        raise ValueError(
            f"`image` as an array must be uint8, or floating point in [0, 1] without NaN; got {array.dtype} in "
            f"[{tensor.min()}, {tensor.max()}]. Images in [-1, 1] need `(image + 1) / 2`."
        )
    return tensor.float()


def list_masks(mask_image: Any) -> list[torch.Tensor]:
    """The masks, one by one: (1, H, W) of zeros and ones, ones are repainted; PIL images and files upright.

    Args:
        mask_image: PIL image, path, numpy (H, W), (H, W, 1), (B, H, W) or (B, H, W, 1), torch (H, W), (B, H, W) or
            (B, 1, H, W): bool, 0 and 1, or 0 and 255; or a list of those.

    Raises:
        ValueError: for another type or shape, for other values, for a damaged file, or if nothing is selected.
    """
    if isinstance(mask_image, (list, tuple)):
        return [one for entry in mask_image for one in list_masks(entry)]
    if isinstance(mask_image, (str, os.PathLike, PIL.Image.Image)):
        mask_image = upright(mask_image, "mask_image")
        if "A" in mask_image.getbands():
            raise ValueError("`mask_image` has an alpha channel. Pass one channel: `mask_image.getchannel('A')`?")
        mask_image = np.array(mask_image.convert("L"))
    if not isinstance(mask_image, (np.ndarray, torch.Tensor)):
        raise ValueError(f"`mask_image` must be an image, an array or a list, got {type(mask_image).__name__}.")
    mask = torch.as_tensor(mask_image).detach()
    if isinstance(mask_image, np.ndarray) and mask.ndim in (3, 4) and mask.shape[-1] == 1:
        mask = mask.squeeze(-1)
    elif mask.ndim == 4 and mask.shape[1] == 1:
        mask = mask.squeeze(1)
    mask = mask.unsqueeze(0) if mask.ndim == 2 else mask
    if mask.ndim != 3 or mask.numel() == 0:
        raise ValueError(f"`mask_image` must have one channel, got the shape {tuple(mask_image.shape)}.")
    return [binary(one) for one in mask.split(1)]


def binary(mask: torch.Tensor) -> torch.Tensor:
    """(1, H, W) of zeros and ones, checked."""
    values = mask.float().unique().tolist()
    if not (set(values) <= {0.0, 1.0} or set(values) <= {0.0, 255.0}):
        raise ValueError(
            f"`mask_image` must be binary (bool, 0 and 1, or 0 and 255), got values such as {values[:5]}. Threshold it "
            f"first, for example `mask_image.convert('L').point(lambda value: 255 * (value > 127))`."
        )
    if values == [0.0]:
        raise ValueError("`mask_image` is all black, so there is nothing to repaint. White is repainted.")
    return (mask > 0).float()


def resize(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """(B, 3, H, W) in [0, 1] to another size; the very same tensor where that is its size already."""
    if image.shape[2:] == (height, width):
        return image
    return F.interpolate(image, size=(height, width), mode="bicubic", antialias=True).clamp(0, 1)


def to_tensor(image: PIL.Image.Image | torch.Tensor, size: tuple[int, int] | None = None) -> torch.Tensor:
    """One entry of `list_images` to (3, H, W) in [0, 1], at `size` (height, width) if given."""
    if isinstance(image, torch.Tensor):
        return image if size is None else resize(image.unsqueeze(0), *size)[0]
    if size is not None:
        image = image.resize(size[::-1], PIL.Image.Resampling.LANCZOS)  # as diffusers does
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def crop_alike(image: Any, region: tuple[int, int, int, int], size: tuple[int, int]) -> Any:
    """The part of a control image, or of each in a list, that lies over a region of a picture.

    Args:
        image: PIL, numpy (..., H, W, C) or torch (..., H, W), of any size.
        region: (left, top, right, bottom) in pixels of the picture, whose `size` is (height, width).
    """
    if isinstance(image, (list, tuple)):
        return [crop_alike(one, region, size) for one in image]
    if not isinstance(image, (PIL.Image.Image, np.ndarray, torch.Tensor)):
        return image  # none, or refused later
    if isinstance(image, PIL.Image.Image):
        height, width = image.size[::-1]
    else:
        height, width = image.shape[-3:-1] if isinstance(image, np.ndarray) else image.shape[-2:]
    left, right = (round(x * width / size[1]) for x in region[::2])
    top, bottom = (round(y * height / size[0]) for y in region[1::2])
    if isinstance(image, PIL.Image.Image):
        return image.crop((left, top, right, bottom))
    rows, columns = slice(top, bottom), slice(left, right)
    return image[..., rows, columns, :] if isinstance(image, np.ndarray) else image[..., rows, columns]


def feathered(mask: torch.Tensor, pixels: int) -> torch.Tensor:
    """Mask (B, 1, H, W) of zeros and ones with a linear ramp of so many pixels, all of it inside the mask.

    Borders of the picture are no borders of the mask.
    """
    outside, inside = 1 - mask, mask.clone()
    for _ in range(pixels):
        outside = F.max_pool2d(outside, 3, stride=1, padding=1)
        inside += 1 - outside
    return inside / (pixels + 1)


class MGInpaintPipeline(
    DiffusionPipeline,
    StableDiffusionMixin,
    TextualInversionLoaderMixin,
    StableDiffusionLoraLoaderMixin,
    IPAdapterMixin,
    FromSingleFileMixin,
):
    """Editing inside a mask, steered by the color, texture and shape of reference images, with or without text.

    Without references, or at strength 0, this is exactly the base model.

    Args:
        vae ([`AutoencoderKL`] or a model with its interface): images to and from latents.
        text_encoder, tokenizer ([`~transformers.CLIPTextModel`], [`~transformers.CLIPTokenizer`]): may be `None`; the
            UNet then reads zeros in place of text.
        unet ([`UNet2DConditionModel`]): reads the latents (what is outside the mask is then put back after every
            step), or, in the manner of inpainting models, latents, the mask and the latents of the masked image.
        scheduler ([`SchedulerMixin`])
        mg_encoder (`MGEncoder`): reads references. May be `None`; `reference_embeds` still work.
        mg_adapter (`MGAdapter`): brings what was read into the UNet. May be `None`; there are no references then.
        image_encoder, feature_extractor ([`~transformers.CLIPVisionModelWithProjection`],
            [`~transformers.CLIPImageProcessor`]): for IP-Adapters only; `load_ip_adapter` brings them along.

    Raises:
        ValueError: if the adapter was made for another UNet or another encoder, or the UNet's input channels fit
            neither way of use.
    """

    model_cpu_offload_seq = "text_encoder->image_encoder->unet->vae"
    _optional_components = [
        "text_encoder",
        "tokenizer",
        "mg_encoder",
        "mg_adapter",
        "image_encoder",
        "feature_extractor",
    ]
    # Offloading moves a model when its `forward` begins; these two are small and used in other ways as well.
    _exclude_from_cpu_offload = ["mg_encoder", "mg_adapter"]
    _callback_tensor_inputs = ["latents", "prompt_embeds", "negative_prompt_embeds", "mask", "masked_image_latents"]

    # Copied from pipelines.pipeline_mg.MGPipeline.__init__
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
            image_encoder=image_encoder,
            feature_extractor=feature_extractor,
        )
        if unet is not None and unet.config.addition_embed_type is not None:
            raise ValueError(
                f"The UNet reads more than text, addition_embed_type {unet.config.addition_embed_type!r}. For SDXL there "
                f"are `MGXLPipeline` and `MGXLInpaintPipeline`."
            )
        self.check_components()
        self.vae_scale_factor = 2 ** (len(vae.config.block_out_channels) - 1) if vae is not None else 8
        self.image_processor = VaeImageProcessor(vae_scale_factor=self.vae_scale_factor)

    # -- checks -------------------------------------------------------------------------------------------------------
    # Copied from pipelines.pipeline_mg.MGPipeline.check_components
    def check_components(self) -> None:
        """Raise a ValueError unless UNet, VAE, encoder and adapter fit each other; those that are `None` are left out."""
        if self.unet is not None and self.vae is not None:
            found, latent = self.unet.config.in_channels, self.vae.config.latent_channels
            if found not in (latent, 2 * latent + 1):
                raise ValueError(
                    f"The UNet must take {latent} input channels (the latents) or {2 * latent + 1} (latents, mask and "
                    f"masked image latents), because the VAE has {latent} latent channels; this one takes {found}."
                )
        if self.mg_adapter is not None and self.unet is not None:
            self.mg_adapter.check_unet(self.bare_unet)
        if self.mg_adapter is not None and self.mg_encoder is not None:
            self.mg_adapter.check_encoder(self.mg_encoder)

    # Copied from pipelines.pipeline_mg.MGPipeline.check_inputs
    def check_inputs(
        self,
        height: int,
        width: int,
        batch_size: int,
        num_images_per_prompt: int,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: torch.Tensor | None,
        output_type: str,
        callback_on_step_end_tensor_inputs: list[str],
    ) -> None:
        """Raise a ValueError for sizes, batches, outputs and callbacks that cannot work; the message says what can."""
        factor = self.vae_scale_factor
        if height <= 0 or width <= 0 or height % factor or width % factor:
            raise ValueError(f"`height` and `width` must be positive multiples of {factor}, got {height} and {width}.")
        if not isinstance(num_images_per_prompt, int) or num_images_per_prompt < 1:
            raise ValueError(f"`num_images_per_prompt` must be a positive integer, got {num_images_per_prompt!r}.")
        count = batch_size * num_images_per_prompt
        if isinstance(generator, list) and len(generator) != count:
            raise ValueError(f"A list of generators needs one for each of the {count} images, got {len(generator)}.")
        shape = (count, self.vae.config.latent_channels, height // factor, width // factor)
        if latents is not None and tuple(latents.shape) != shape:
            raise ValueError(f"`latents` must have the shape {shape}, got {tuple(latents.shape)}.")
        if output_type not in ("pil", "np", "pt", "latent"):
            raise ValueError(f'`output_type` must be "pil", "np", "pt" or "latent", got {output_type!r}.')
        unknown = [name for name in callback_on_step_end_tensor_inputs if name not in self._callback_tensor_inputs]
        if unknown:
            raise ValueError(
                f"`callback_on_step_end_tensor_inputs` must be some of {self._callback_tensor_inputs}, got {unknown}."
            )

    # Copied from pipelines.pipeline_mg.MGPipeline.check_types
    def check_types(
        self,
        prompt_embeds: torch.Tensor | None,
        negative_prompt_embeds: torch.Tensor | None,
        reference_image: dict[str, Any] | None,
        reference_embeds: Features | None,
    ) -> None:
        """Raise a ValueError for arguments of another type; called before anything counts the samples they hold."""
        for name, embeds in (("prompt_embeds", prompt_embeds), ("negative_prompt_embeds", negative_prompt_embeds)):
            if not (embeds is None or (isinstance(embeds, torch.Tensor) and embeds.ndim == 3)):
                raise ValueError(
                    f"`{name}` must be a tensor (batch, tokens, channels) from `encode_prompt`, got "
                    f"{tuple(embeds.shape) if isinstance(embeds, torch.Tensor) else type(embeds).__name__}."
                )
        for name, given in (("reference_image", reference_image), ("reference_embeds", reference_embeds)):
            if not (given is None or isinstance(given, dict)):
                raise ValueError(
                    f'`{name}` is a dict such as {{"color": ..., "shape": ...}}, got {type(given).__name__}.'
                )
        for granularity, given in (reference_embeds or {}).items():
            for features in by_region(given):
                vector = features.get("vector") if isinstance(features, dict) else None
                if not (isinstance(vector, torch.Tensor) and vector.ndim == 2):
                    raise ValueError(
                        f'`reference_embeds[{granularity!r}]` must be a dict of tensors with a "vector" (batch, '
                        f"numbers), got {list(features) if isinstance(features, dict) else type(features).__name__}. "
                        f"Make it with `encode_reference`; pictures are passed as `reference_image`."
                    )

    # Copied from pipelines.pipeline_mg.MGPipeline.check_prompt
    def check_prompt(
        self,
        prompt: str | list[str] | None,
        negative_prompt: str | list[str] | None,
        prompt_embeds: torch.Tensor | None,
        negative_prompt_embeds: torch.Tensor | None,
        batch_size: int,
    ) -> None:
        """Raise a ValueError for prompts of another type or number, given twice, or given without a text encoder."""
        for name, text, embeds in (
            ("prompt", prompt, prompt_embeds),
            ("negative_prompt", negative_prompt, negative_prompt_embeds),
        ):
            if text is not None and embeds is not None:
                raise ValueError(f"Pass `{name}` or `{name}_embeds`, not both.")
            if text is not None and self.text_encoder is None:
                raise ValueError(f"This pipeline has no text encoder, so `{name}` has no effect. Leave it out.")
            if not (text is None or isinstance(text, (str, list))):
                raise ValueError(f"`{name}` must be a string or a list of strings, got {type(text).__name__}.")
            count = len(text) if isinstance(text, list) else None if embeds is None else embeds.shape[0]
            if count is not None and (count != batch_size or count == 0):
                raise ValueError(f"`{name}` is given for {count} samples, but this call has {batch_size}.")
        if negative_prompt_embeds is not None and prompt_embeds is None and self.text_encoder is None:
            raise ValueError("`negative_prompt_embeds` need `prompt_embeds` where there is no text encoder.")
        if prompt_embeds is not None and negative_prompt_embeds is None:
            if self.do_classifier_free_guidance and self.text_encoder is None:
                raise ValueError("Guidance with `prompt_embeds` and no text encoder needs `negative_prompt_embeds`.")
        elif prompt_embeds is not None and prompt_embeds.shape != negative_prompt_embeds.shape:
            raise ValueError(
                f"`prompt_embeds` and `negative_prompt_embeds` must have the same shape, got "
                f"{tuple(prompt_embeds.shape)} and {tuple(negative_prompt_embeds.shape)}."
            )

    # Copied from pipelines.pipeline_mg.MGPipeline.check_reference
    def check_reference(
        self,
        reference_image: dict[str, Any] | None,
        reference_embeds: Features | None,
        batch_size: int,
        name: str = "reference_image",
        guided: Sequence[str] = (),
    ) -> None:
        """Raise a ValueError for references that are given twice, by an unknown name, or for another number of samples.

        Args:
            guided: the granularities of feature guidance, which needs no adapter.
        """
        if reference_image is not None and reference_embeds is not None:
            raise ValueError("Pass `reference_image` or `reference_embeds`, not both.")
        name, given = (name, reference_image) if reference_embeds is None else ("reference_embeds", reference_embeds)
        if given is None:
            return
        missing = [part for part in ("mg_adapter", "mg_encoder") if getattr(self, part) is None]
        needed = {n for n, one in given.items() if one is not None} - set(guided)
        if ("mg_adapter" in missing and (needed or not guided)) or (
            "mg_encoder" in missing and reference_image is not None
        ):
            raise ValueError(
                f"`{name}` needs the components {missing}, which this pipeline was made without. (Without an adapter, "
                f"feature guidance still works: `feature_guidance_scale`.)"
            )
        reader = self.mg_encoder if self.mg_adapter is None else self.mg_adapter
        known = tuple(reader.config.granularities)
        sizes = reader.vector_sizes if self.mg_adapter is None else reader.config.vector_sizes
        for granularity, value in given.items():
            if granularity not in known:
                raise ValueError(f"Unknown granularity {granularity!r} in `{name}`; known are {known}.")
            vector = None if reference_embeds is None else by_region(value)[0]["vector"]
            if vector is not None and vector.shape[1] != sizes[granularity]:
                raise ValueError(
                    f"The {granularity} features have {vector.shape[1]} numbers where the adapter expects "
                    f"{sizes[granularity]}. They were made by another encoder; make them anew with `encode_reference`."
                )
            count = count_samples(value) if vector is None else vector.shape[0]
            if count not in (1, batch_size):
                raise ValueError(
                    f"`{name}[{granularity!r}]` is given for {count} samples, this call has {batch_size}."
                )

    def check_edit(
        self,
        images: list[PIL.Image.Image | torch.Tensor],
        masks: list[torch.Tensor],
        batch_size: int,
        is_resized: bool,
        strength: float,
        padding_mask_crop: int | None,
        mask_feather: int,
        context_scale: float,
    ) -> None:
        """Raise a ValueError for pictures and masks that do not go together, and for strengths and widths out of range."""
        for name, entries in (("image", images), ("mask_image", masks)):
            if len(entries) not in (1, batch_size):
                raise ValueError(f"`{name}` holds {len(entries)} pictures; this call needs 1 or {batch_size}.")
        sizes = [image.size[::-1] if isinstance(image, PIL.Image.Image) else image.shape[1:] for image in images]
        for index in range(max(len(images), len(masks))):
            found, wanted = tuple(masks[index % len(masks)].shape[1:]), tuple(sizes[index % len(sizes)])
            if found != wanted:
                raise ValueError(
                    f"`mask_image` must have the size of `image`, (height, width) = {wanted}, got {found}. Resize it "
                    f"with nearest-neighbor interpolation."
                )
        if len({tuple(size) for size in sizes}) > 1 and not is_resized:
            raise ValueError(
                f"Pictures of one call must have one size, got {sizes}. Pass `height` and `width`, or call one by one."
            )
        if not 0 < strength <= 1:
            raise ValueError(f"`strength` must be above 0 and at most 1, got {strength}.")
        if not 0 <= context_scale < float("inf"):
            raise ValueError(f"`context_scale` must be a finite number of at least 0 (0 is off), got {context_scale}.")
        for name, value in (("padding_mask_crop", padding_mask_crop), ("mask_feather", mask_feather)):
            if value is not None and (not isinstance(value, int) or value < 0):
                raise ValueError(f"`{name}` is a number of pixels, an integer of at least 0; got {value!r}.")

    # Copied from pipelines.pipeline_mg.MGPipeline.check_ip_adapter
    def check_ip_adapter(self, ip_adapter_image: Any, ip_adapter_image_embeds: list[torch.Tensor] | None) -> None:
        """Raise a ValueError unless the UNet has an IP-Adapter for what is given, and is given something for the one it has."""
        given = [one for one in (ip_adapter_image, ip_adapter_image_embeds) if one is not None]
        is_loaded = self.bare_unet.config.encoder_hid_dim_type == "ip_image_proj"
        if len(given) > 1:
            raise ValueError("Pass `ip_adapter_image` or `ip_adapter_image_embeds`, not both.")
        if given and not is_loaded:
            raise ValueError("There is no IP-Adapter to read what it is given. Load one with `load_ip_adapter`.")
        if is_loaded and not given:
            raise ValueError(
                "The UNet has an IP-Adapter, which needs `ip_adapter_image` or `ip_adapter_image_embeds`. Pass one of "
                "them, or take the IP-Adapter out with `unload_ip_adapter`."
            )
        if not given:
            return
        processors = {n: p for n, p in self.bare_unet.attn_processors.items() if n.endswith("attn2.processor")}
        other = {type(p).__name__ for p in processors.values() if not hasattr(p, "to_k_ip")}
        if other:
            raise ValueError(
                f"The IP-Adapter's attention processors have been replaced by {sorted(other)}, as attention slicing, "
                f"`fuse_qkv_projections` and `set_attn_processor` do. Leave these out, and load the IP-Adapter again."
            )
        count = len(self.bare_unet.encoder_hid_proj.image_projection_layers)
        entries = given[0] if isinstance(given[0], list) else [given[0]]
        if len(entries) != count:
            raise ValueError(f"There are {count} IP-Adapters, and something for {len(entries)} of them is given.")
        if ip_adapter_image is not None and (self.image_encoder is None or self.feature_extractor is None):
            raise ValueError(
                "`ip_adapter_image` needs the components `image_encoder` and `feature_extractor`, which this pipeline "
                "was made without. Load the IP-Adapter with its `image_encoder_folder`, or pass "
                "`ip_adapter_image_embeds`."
            )
        rows = 2 if self.do_classifier_free_guidance else 1
        for embeds in ip_adapter_image_embeds or []:
            if not (isinstance(embeds, torch.Tensor) and embeds.ndim in (3, 4) and embeds.shape[0] == rows):
                found = tuple(embeds.shape) if isinstance(embeds, torch.Tensor) else type(embeds).__name__
                raise ValueError(
                    f"`ip_adapter_image_embeds` must hold tensors ({rows}, images, ...), with guidance the negative "
                    f"embeds first, from `prepare_ip_adapter_image_embeds`; got {found}."
                )

    # Copied from pipelines.pipeline_mg.MGPipeline.check_company
    def check_company(self, controlnet: Any, control_image: Any, t2i_adapter: Any, t2i_image: Any) -> None:
        """Raise a ValueError for ControlNets and T2I-Adapters that lack their image or do not fit the UNet."""
        for kind, name, model, image_name, image in (
            (ControlNetModel, "controlnet", controlnet, "control_image", control_image),
            (T2IAdapter, "t2i_adapter", t2i_adapter, "t2i_image", t2i_image),
        ):
            if (not networks(model)) != (image is None):
                raise ValueError(f"`{name}` and `{image_name}` go together; only one of them is given.")
            for net in networks(model):
                bare = getattr(net, "_orig_mod", net)
                if not isinstance(bare, kind):
                    raise ValueError(
                        f"`{name}` must hold models of the type {kind.__name__}, got {type(bare).__name__}."
                    )
                if bare.dtype != self.unet.dtype:
                    raise ValueError(
                        f"`{name}` computes in {bare.dtype}, the UNet in {self.unet.dtype}. Use "
                        f"`{name}.to({self.unet.dtype})`."
                    )
                is_hooked = any(
                    hasattr(part, "_hf_hook") or hasattr(part, "_diffusers_hook") for part in bare.modules()
                )
                if bare.device.type != self._execution_device.type and not is_hooked:
                    raise ValueError(
                        f"`{name}` is on {bare.device}, the pipeline computes on {self._execution_device}. It is no "
                        f"component, which moves with the pipeline; move it there, or offload it."
                    )
        for net in networks(controlnet):
            ours, theirs = self.unet.config, getattr(net, "_orig_mod", net).config
            if theirs.global_pool_conditions:
                raise ValueError(
                    "ControlNets with `global_pool_conditions` need a guess mode, which there is not here."
                )
            wanted = {
                "in_channels": ours.out_channels,
                **{name: ours[name] for name in ("block_out_channels", "layers_per_block", "cross_attention_dim")},
            }
            different = {n: (theirs[n], w) for n, w in wanted.items() if str(theirs[n]) != str(w)}
            if different:
                raise ValueError(f"`controlnet` does not fit the UNet; (its own, needed): {different}.")

    # Copied from pipelines.pipeline_mg.MGPipeline.check_contrasts
    def check_contrasts(
        self,
        granularity_guidance: dict[str, float] | None,
        negative_reference_image: dict[str, Any] | None,
        given: Sequence[str],
        batch_size: int,
    ) -> dict[str, float]:
        """`granularity_guidance` by granularity; a negative reference without one has 1.

        Args:
            given: the granularities that have something to be guided by.

        Raises:
            ValueError: for guidance that is no number, or of a granularity that has neither reference nor negative one.
        """
        for name, entries in (
            ("granularity_guidance", granularity_guidance),
            ("negative_reference_image", negative_reference_image),
        ):
            if not isinstance(entries, (dict, type(None))):
                raise ValueError(f'`{name}` is a dict such as {{"color": ...}}, got {type(entries).__name__}.')
        negative = {name: one for name, one in (negative_reference_image or {}).items() if one is not None}
        scales = dict.fromkeys(negative, 1.0) | dict(granularity_guidance or {})
        if scales and self.mg_adapter is None:
            raise ValueError("Guidance by a granularity needs an adapter, which this pipeline was made without.")
        self.check_reference(negative or None, None, batch_size, "negative_reference_image")
        for name, reference in negative.items():
            if has_region(reference):
                raise ValueError(
                    f"`negative_reference_image[{name!r}]` has a region; what is avoided is avoided in the whole picture."
                )
        for name, scale in scales.items():
            if name not in self.mg_adapter.config.granularities:
                known = tuple(self.mg_adapter.config.granularities)
                raise ValueError(f"Unknown granularity {name!r} in `granularity_guidance`; known are {known}.")
            try:
                scales[name] = float(scale)
            except (TypeError, ValueError) as error:
                raise ValueError(f"`granularity_guidance[{name!r}]` must be a number, got {scale!r}.") from error
            if not 0 <= scales[name] < float("inf"):
                raise ValueError(
                    f"`granularity_guidance[{name!r}]` must be a finite number of at least 0 (0 is off), got {scale!r}."
                )
            if scales[name] > 0 and name not in given and name not in negative:
                raise ValueError(
                    f"`granularity_guidance[{name!r}]` needs a {name} reference, or a negative one, to tell what it "
                    f"should go beyond; given are {sorted(given)}."
                )
        return {name: scale for name, scale in scales.items() if scale > 0}

    # Copied from pipelines.pipeline_mg.MGPipeline.check_feature_guidance
    def check_feature_guidance(
        self,
        feature_guidance_scale: float | dict[str, float],
        feature_guidance_window: tuple[float, float],
        feature_guidance_decoder: Any,
        reference_image: dict[str, Any] | None,
        reference_embeds: Features | None,
    ) -> dict[str, float]:
        """`feature_guidance_scale` of the granularities that have a reference, those of 0 left out.

        Raises:
            ValueError: for scales, windows and decoders that are none, for a granularity without a reference, for
                references with regions, and for schedulers whose noise level cannot be told.
        """
        given = {name: one for name, one in (reference_embeds or reference_image or {}).items() if one is not None}
        is_named = isinstance(feature_guidance_scale, dict)
        scales = dict(feature_guidance_scale) if is_named else dict.fromkeys(given, feature_guidance_scale)
        if is_named and not set(scales) <= set(given):
            raise ValueError(
                f"`feature_guidance_scale` names {sorted(set(scales) - set(given))}, of which there is no reference; "
                f"given are {sorted(given)}."
            )
        for name, scale in scales.items():
            if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not 0 <= scale < float("inf"):
                raise ValueError(
                    f"`feature_guidance_scale` must be a finite number of at least 0 (0 is off), got {scale!r} for {name}."
                )
        scales = {name: float(scale) for name, scale in scales.items() if scale > 0}
        if not scales:
            return {}
        if self.mg_encoder is None:
            raise ValueError(
                "Feature guidance needs the component `mg_encoder`, which this pipeline was made without."
            )
        window = feature_guidance_window
        if not (isinstance(window, (tuple, list)) and len(window) == 2 and 0 <= window[0] < window[1] <= 1):
            raise ValueError(f"`feature_guidance_window` is (start, end) with 0 <= start < end <= 1, got {window!r}.")
        if feature_guidance_decoder not in ("linear", "vae") and not hasattr(feature_guidance_decoder, "decode"):
            raise ValueError(
                f'`feature_guidance_decoder` must be "linear", "vae" or a model that decodes latents, such as '
                f"`AutoencoderTiny`; got {feature_guidance_decoder!r}."
            )
        for name in scales:
            if has_region(given[name]) or (reference_embeds is not None and isinstance(given[name], list)):
                raise ValueError(
                    f"Feature guidance compares whole pictures; the {name} reference has a region. Set its scale to 0, "
                    f"or leave the region out."
                )
        is_told = hasattr(self.scheduler, "alphas_cumprod") or self.is_flow_matching
        if not is_told or self.scheduler.config.get("timestep_type") == "continuous":
            raise ValueError(
                f"Feature guidance needs the noise level of each step, which {type(self.scheduler).__name__} does not "
                f"tell by its timesteps. Use for example DDIMScheduler, EulerDiscreteScheduler, "
                f"DPMSolverMultistepScheduler or FlowMatchEulerDiscreteScheduler."
            )
        kind = "flow_prediction" if self.is_flow_matching else self.scheduler.config.prediction_type
        if kind not in ("epsilon", "v_prediction", "sample", "flow_prediction"):
            raise ValueError(f"Feature guidance does not know how to read predictions of the type {kind!r}.")
        return scales

    # Copied from pipelines.pipeline_mg.MGPipeline.guided_steps
    def guided_steps(self, window: tuple[float, float], steps: int) -> list[bool]:
        """Which steps of a run lie in `feature_guidance_window` as a whole.

        Raises:
            ValueError: if none does.
        """
        is_inside = [window[0] <= i / steps and (i + 1) / steps <= window[1] for i in range(steps)]
        if not any(is_inside):
            raise ValueError(
                f"`feature_guidance_window`: no step of {steps} lies as a whole in {window}. Widen it, or run more steps."
            )
        return is_inside

    # Copied from pipelines.pipeline_mg.MGPipeline.check_leak_guard
    def check_leak_guard(
        self, leak_guard: bool, reference_image: dict[str, Any] | None, output_type: str
    ) -> dict[str, Any] | None:
        """The references by which `warn_of_leaks` tells whose shape an output has; `None` where it is not asked for.

        Raises:
            ValueError: for latents as output, and if there are no pictures to compare: one that lends its shape, and one
                that lends something else.
        """
        if not leak_guard:
            return None
        given = {name: one for name, one in (reference_image or {}).items() if one is not None}
        if output_type == "latent":
            raise ValueError('`leak_guard` looks at pictures; with `output_type="latent"` there are none.')
        is_picture = {name: shows_a_picture(one) and not has_region(one) for name, one in given.items()}
        compared = {name: given[name] for name in given if is_picture[name]}
        images = {name: one.get("image") if isinstance(one, dict) else one for name, one in compared.items()}
        # A picture that lends its shape as well cannot leak it.
        compared = {n: one for n, one in compared.items() if n == "shape" or images[n] is not images.get("shape")}
        if "shape" not in compared or len(compared) < 2 or self.mg_encoder is None:
            raise ValueError(
                f"`leak_guard` compares the shape of the output with that of pictures: it needs a shape reference, and a "
                f"color or texture reference, as pictures without regions. Of what is given, {sorted(compared)} are such."
            )
        return compared

    # -- parts of a call ----------------------------------------------------------------------------------------------
    # Copied from pipelines.pipeline_mg.MGPipeline.bare_unet
    @property
    def bare_unet(self) -> UNet2DConditionModel:
        """The UNet itself where `torch.compile` wrapped it."""
        return getattr(self.unet, "_orig_mod", self.unet)

    # Copied from pipelines.pipeline_mg.MGPipeline.default_size
    def default_size(self, height: int | None, width: int | None) -> tuple[int, int]:
        """Height and width in pixels; a missing one is the UNet's native size."""
        native = self.unet.config.sample_size
        native = (native, native) if isinstance(native, int) else native
        return (
            native[0] * self.vae_scale_factor if height is None else height,
            native[1] * self.vae_scale_factor if width is None else width,
        )

    # Copied from pipelines.pipeline_mg.MGPipeline.default_batch_size
    def default_batch_size(
        self,
        prompt: str | list[str] | None,
        prompt_embeds: torch.Tensor | None,
        reference_image: dict[str, Any] | None,
        reference_embeds: Features | None,
    ) -> int:
        """Samples of a call: the number of prompts or, without any, of references given per sample; 1 without both."""
        if prompt is not None:
            return len(prompt) if isinstance(prompt, list) else 1
        if prompt_embeds is not None:
            return prompt_embeds.shape[0]
        counts = [count_samples(reference) for reference in (reference_image or {}).values()]
        counts += [by_region(features)[0]["vector"].shape[0] for features in (reference_embeds or {}).values()]
        return max(counts, default=1)

    # Copied from pipelines.pipeline_mg.MGPipeline.encode_prompt
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

    # Copied from pipelines.pipeline_mg.MGPipeline.encode_reference
    @torch.no_grad()
    def encode_reference(
        self,
        reference_image: dict[str, Any],
        height: int | None = None,
        width: int | None = None,
        batch_size: int = 1,
    ) -> Features:
        """Features of references, to be passed as `reference_embeds` to any number of calls.

        Args:
            reference_image: as in `__call__`.
            height, width: of the pictures to be made, in pixels; the shape is laid out over them.
            batch_size: number of prompts, which references given per sample must match.

        Returns:
            {granularity: {name: tensor of batch 1 or `batch_size`}}; with regions, a list of such dicts, one for each.
        """
        height, width = self.default_size(height, width)
        latent_size = (height // self.vae_scale_factor, width // self.vae_scale_factor)
        size = (height, width) if self.mg_adapter is None else self.mg_adapter.map_size(*latent_size)
        return self.mg_encoder.encode(reference_image, size=size, batch_size=batch_size)

    def add_context(
        self,
        features: Features,
        strengths: torch.Tensor,
        init_image: torch.Tensor,
        init_mask: torch.Tensor,
        context_scale: float,
    ) -> tuple[Features, torch.Tensor]:
        """What no reference gives, lent by what is computed and not repainted.

        Args:
            features: from `encode_reference`.
            strengths: (number of prompts, G).
            init_image: (B, 3, height, width) in [-1, 1]; init_mask: (B, 1, height, width), 1 is repainted. B is 1 or
                the number of prompts.

        Returns:
            both, with what was added. Pictures of which nearly all is repainted lend nothing: strength 0.
        """
        names = self.mg_adapter.config.granularities
        missing = [name for name in names if name not in features]
        count = max(len(init_image), len(init_mask))
        image, hole = (init_image / 2 + 0.5).clamp(0, 1).expand(count, -1, -1, -1), init_mask.expand(count, -1, -1, -1)
        is_surrounded = hole.mean((1, 2, 3)) < 0.95
        if not missing or not is_surrounded.any():
            return features, strengths
        height, width = (side // self.vae_scale_factor for side in image.shape[2:])
        hole = hole * is_surrounded.view(-1, 1, 1, 1)
        context = self.mg_encoder.encode_context(image, hole, missing, self.mg_adapter.map_size(height, width))
        lent = torch.tensor([name in context for name in names])
        shares = context_scale * torch.tensor([LENT_TEXTURE if name == "texture" else 1.0 for name in names])
        return {**features, **context}, strengths * torch.where(lent, shares * is_surrounded.unsqueeze(1), 1.0)

    # Copied from pipelines.pipeline_mg.MGPipeline.prepare_conditioning
    def prepare_conditioning(
        self,
        features: Features,
        strengths: torch.Tensor,
        latent_size: tuple[int, int],
        num_images_per_prompt: int = 1,
        fusion_scale: float = 1.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        factors: torch.Tensor | None = None,
        contrasts: Sequence[tuple[str, dict[str, torch.Tensor] | None]] = (),
    ) -> Conditioning | dict[tuple[bool, ...], ConditioningApart] | None:
        """What the UNet gets beside the text, for all steps at once; rows as in its input, unconditional ones first.

        Args:
            features: from `encode_reference`, of batch 1 or the number of prompts.
            strengths: (number of prompts, G) at least 0.
            latent_size: (height, width) of the latents.
            generator: draws what the references leave open, see `MGAdapter.vary`.
            factors: (steps, G) of the strengths, where these change over the steps.
            contrasts: for each further row of guidance, a granularity and its features there; `None` leaves it out.

        Returns:
            what `MGAdapter.condition` returns; with factors {which of them are above 0: what `condition_apart`
            returns}, for `MGAdapter.at_step`. `None` where nothing has any strength.
        """
        names = list(self.mg_adapter.config.granularities)
        strengths = strengths.repeat_interleave(num_images_per_prompt, dim=0)
        device, dtype, count = self._execution_device, self.mg_adapter.dtype, len(strengths)

        def rows(parts: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            """One row for each picture, or a single row for all."""
            repeats = {key: 1 if len(value) == 1 else count // len(value) for key, value in parts.items()}
            return {k: value.to(device, dtype).repeat_interleave(repeats[k], dim=0) for k, value in parts.items()}

        features = {
            name: [rows(part) for part in parts] if isinstance(parts, list) else rows(parts)
            for name, parts in features.items()
        }
        negatives = {name: rows(parts) for name, parts in contrasts if parts is not None}
        sets, shares = self.mg_adapter.in_regions(features)

        def variant(given: Features, name: str | None) -> tuple[Features, torch.Tensor]:
            """One set without the granularity `name`, or with its negative reference, and the strengths there."""
            own = {key: parts for key, parts in given.items() if key != name}
            own |= {name: negatives[name]} if name in negatives else {}
            if name == "color" and "shape" in own:  # a sketch that context knows has colors of its own
                own["shape"] = {key: value for key, value in own["shape"].items() if key != "sketch"}
            # What is not given has no strength, so that nothing is attached where nothing is given.
            present = strengths * torch.tensor([key in own for key in names])
            if name in negatives:  # what is avoided is so in full, whatever the strength of what is not
                present[:, names.index(name)] = 1.0
            return own, present.to(device)

        variants = [[variant(given, name) for given in sets] for name in [*(name for name, _ in contrasts), None]]
        if not any(present.any() for row in variants for _, present in row):
            return None  # before anything is drawn: what else the generator is for goes on as without references
        drawn = self.mg_adapter.draw({**negatives, **{k: v for own in sets for k, v in own.items()}}, count, generator)
        variants = [[(self.mg_adapter.vary(own, count, drawn=drawn), there) for own, there in row] for row in variants]

        def fuse(is_on: torch.Tensor) -> ConditioningApart:
            def condition(own: Features, present: torch.Tensor) -> ConditioningApart:
                present = present * is_on.to(device)
                return self.mg_adapter.condition_apart(self.bare_unet, own, present, latent_size, fusion_scale)

            fused = [[condition(*one) for one in row] for row in variants]
            return self.stack_rows([self.mg_adapter.join_regions(row, shares, latent_size) for row in fused])

        with lora_scaled(self.bare_unet, (self.cross_attention_kwargs or {}).get("scale")):
            if factors is not None:  # what a factor of 0 takes out has no part in the fusion either
                return {tuple(is_on.tolist()): fuse(is_on) for is_on in (factors > 0).unique(dim=0)}
            folded, residuals = fuse(torch.ones(len(names)))
        return folded, self.mg_adapter.add_residuals(residuals)

    # Copied from pipelines.pipeline_mg.MGPipeline.stack_rows
    def stack_rows(self, fused: Sequence[ConditioningApart]) -> ConditioningApart:
        """Conditionings of `MGAdapter.condition_apart` as the rows of one, behind those of classifier-free guidance.

        With values and residuals of zero the unconditional rows are those of the base model, and what a variant lacks
        adds nothing to it.
        """
        layers, parts = fused[-1][0], {used: part for _, apart in fused for used, part in apart.items()}

        def rows(tensors: list[torch.Tensor]) -> torch.Tensor:
            blank = [torch.zeros_like(tensors[-1])] if self.do_classifier_free_guidance else []
            return torch.cat(blank + tensors)

        folded = {
            name: tuple(rows(list(same)) for same in zip(*(f[name] for f, _ in fused), strict=True)) for name in layers
        }
        residuals = {}
        for used, blocks in parts.items():
            of_variants = [apart.get(used) or [torch.zeros_like(block) for block in blocks] for _, apart in fused]
            residuals[used] = [rows(list(same)).to(self.unet.dtype) for same in zip(*of_variants, strict=True)]
        return folded, residuals

    # Copied from pipelines.pipeline_mg.MGPipeline.step_factors
    def step_factors(
        self, granularity_schedule: dict[str, Any] | None, steps: int, given: Sequence[str]
    ) -> torch.Tensor | None:
        """`granularity_schedule` as factors (steps, G) of the strengths; `None` where they stay as they are.

        Args:
            given: the granularities that have a strength to be multiplied.

        Raises:
            ValueError: for a schedule that is none, of a granularity that is not given, or where there is no adapter.
        """
        if granularity_schedule is None:
            return None
        if self.mg_adapter is None:
            raise ValueError("`granularity_schedule` needs an adapter, which this pipeline was made without.")
        factors = self.mg_adapter.schedule(granularity_schedule, steps)
        for name in granularity_schedule:
            if name not in given:
                raise ValueError(
                    f"`granularity_schedule[{name!r}]` needs a {name} reference, whose strength it changes; given are "
                    f"{sorted(given)}."
                )
        return factors

    # Copied from pipelines.pipeline_mg.MGPipeline.attach
    def attach(self, conditioning: Conditioning | None) -> contextlib.AbstractContextManager:
        """The adapter's attention processors for the length of a `with` block; nothing where nothing steers."""
        return contextlib.nullcontext() if conditioning is None else self.mg_adapter.attach(self.bare_unet)

    # Copied from pipelines.pipeline_mg.MGPipeline.encode_vae_image
    def encode_vae_image(
        self, image: torch.Tensor, count: int, generator: torch.Generator | list[torch.Generator] | None
    ) -> torch.Tensor:
        """Images (B, 3, H, W) in [-1, 1] to scaled latents (count, C, h, w), each image `count / B` times in a row."""
        image = image.to(self._execution_device, self.vae.dtype)
        repeats = count // image.shape[0]
        if isinstance(generator, list):
            image = image.repeat_interleave(repeats, dim=0)
            pairs = zip(image.split(1), generator, strict=True)
            latents = torch.cat([retrieve_latents(self.vae.encode(one), own) for one, own in pairs])
        else:
            latents = retrieve_latents(self.vae.encode(image), generator).repeat_interleave(repeats, dim=0)
        return self.vae.config.scaling_factor * latents

    def crop_region(
        self, mask: torch.Tensor, height: int, width: int, padding_mask_crop: int | None
    ) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) of what is computed: everything, or the surroundings of all masks together."""
        if padding_mask_crop is None:
            return 0, 0, mask.shape[3], mask.shape[2]
        union = PIL.Image.fromarray((255 * mask.amax((0, 1))).byte().numpy())
        return self.image_processor.get_crop_region(union, width, height, pad=padding_mask_crop)

    def prepare_latents(
        self,
        image: torch.Tensor,
        shape: tuple[int, int, int, int],
        dtype: torch.dtype,
        timestep: torch.Tensor,
        strength: float,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Where to start, the noise (B, C, h, w) used for it, and the latents of the image where they are needed.

        Args:
            image: (1 or B, 3, H, W) in [-1, 1].
            timestep: the first one; below strength 1 the image is noised to it.
            latents: the noise, drawn if not given.
        """
        image_latents = None
        if strength < 1 or self.unet.config.in_channels == shape[1]:
            image_latents = self.encode_vae_image(image, shape[0], generator).to(dtype)
        device = self._execution_device
        noise = randn_tensor(shape, generator, device, dtype) if latents is None else latents.to(device, dtype)
        if strength == 1:
            return noise * getattr(self.scheduler, "init_noise_sigma", 1.0), noise, image_latents
        return self.add_noise(image_latents, noise, timestep.repeat(shape[0])), noise, image_latents

    def add_noise(self, latents: torch.Tensor, noise: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """As of the scheduler; those of flow matching call it by another name."""
        if hasattr(self.scheduler, "add_noise"):
            return self.scheduler.add_noise(latents, noise, timestep)
        return self.scheduler.scale_noise(latents, timestep, noise)

    def blend(
        self,
        latents: torch.Tensor,
        image_latents: torch.Tensor,
        noise: torch.Tensor,
        mask: torch.Tensor,
        next_timestep: torch.Tensor,
    ) -> torch.Tensor:
        """Put the image, noised to the next timestep (none: not at all), back outside the mask (B, 1, h, w)."""
        if len(next_timestep):
            image_latents = self.add_noise(image_latents, noise, next_timestep)
        return (1 - mask) * image_latents + mask * latents

    # Copied from pipelines.pipeline_mg.MGPipeline.predict_noise
    def predict_noise(
        self,
        latents: torch.Tensor,
        t: torch.Tensor,
        prompt_embeds: torch.Tensor,
        unet_channels: torch.Tensor | None,
        conditioning: Conditioning | None,
        contrast_scales: Sequence[float] = (),
        moved: list[torch.Tensor] | None = None,
        image_embeds: list[torch.Tensor] | None = None,
        control: Sequence[tuple[Any, torch.Tensor, float]] = (),
        t2i: Sequence[torch.Tensor] = (),
    ) -> torch.Tensor:
        """One call of the UNet, with guidance where it is on: classifier-free, and away from each contrast.

        How far each contrast lies is appended to `moved`, if given: (contrasts, B, h, w).

        Rows: unconditional, contrasts, conditional. The last come last, so that a callback may switch classifier-free
        guidance off in the middle: the last rows of what was prepared are what is left.

        Args:
            image_embeds: from `prepare_ip_adapter_image_embeds`.
            control: of one step of `prepare_controlnet`; t2i: of one step of `prepare_t2i`.
        """
        is_guided, count = self.do_classifier_free_guidance, latents.shape[0]
        copies = int(is_guided) + len(contrast_scales) + 1

        def rows_of(prepared: torch.Tensor) -> torch.Tensor:
            return torch.cat(
                [*prepared.split(count)[: int(is_guided)], *[prepared[-count:]] * (copies - int(is_guided))]
            )

        text = rows_of(prompt_embeds)
        model_input = self.scale_input(torch.cat([latents] * copies), t)
        controlled = self.controlnet_residuals(control, model_input, t, text, copies)
        if unet_channels is not None:
            model_input = torch.cat([model_input, torch.cat([unet_channels] * copies)], dim=1)
        rows = model_input.shape[0]
        attention_kwargs, residuals = self.cross_attention_kwargs, []
        if conditioning is not None:
            folded = {name: tuple(part[-rows:] for part in parts) for name, parts in conditioning[0].items()}
            attention_kwargs = {**(self.cross_attention_kwargs or {}), "ip_hidden_states": folded}
            if conditioning[1] is not None:
                # A fresh list: the UNet empties the one it gets.
                residuals = [residual[-rows:] for residual in conditioning[1]]
        added = [torch.cat([feature] * copies) for feature in t2i]
        summed = [one + other for one, other in zip(residuals, added, strict=False)]
        residuals = summed + residuals[len(summed) :] + added[len(summed) :]
        noise_pred = self.unet(
            model_input,
            t,
            encoder_hidden_states=text,
            cross_attention_kwargs=attention_kwargs,
            added_cond_kwargs=None if image_embeds is None else {"image_embeds": [rows_of(e) for e in image_embeds]},
            down_intrablock_additional_residuals=residuals or None,
            **controlled,
            return_dict=False,
        )[0]
        return self.guide(noise_pred, contrast_scales, moved)

    # Copied from pipelines.pipeline_mg.MGPipeline.guide
    def guide(
        self, noise_pred: torch.Tensor, contrast_scales: Sequence[float], moved: list[torch.Tensor] | None
    ) -> torch.Tensor:
        """The rows of `predict_noise` to one prediction (B, C, h, w): beyond the unconditional one, and each contrast."""
        is_guided = self.do_classifier_free_guidance
        *others, conditional = noise_pred.chunk(int(is_guided) + len(contrast_scales) + 1)
        guided = conditional
        if is_guided:
            unconditional = others.pop(0)
            guided = unconditional + self.guidance_scale * (conditional - unconditional)
        apart = [conditional - other for other in others]
        for scale, difference in zip(contrast_scales, apart, strict=True):
            guided = guided + scale * difference
        if moved is not None and apart:
            moved.append(torch.stack([difference.detach().square().mean(1).sqrt() for difference in apart]))
        return guided

    # Copied from pipelines.pipeline_mg.MGPipeline.decode_latents
    def decode_latents(self, latents: torch.Tensor, generator: Any = None) -> torch.Tensor:
        """Latents (B, C, h, w) to images (B, 3, H, W) in about [-1, 1]."""
        latents = (latents / self.vae.config.scaling_factor).to(self.vae.dtype)
        return self.vae.decode(latents, return_dict=False, generator=generator)[0]

    def soften_edge(
        self,
        image: torch.Tensor,
        init_image: torch.Tensor,
        init_mask: torch.Tensor,
        is_continued: torch.Tensor,
        context_scale: float,
    ) -> torch.Tensor:
        """Let edits that go on with their surroundings begin as a smooth continuation of them, so that no seam shows.

        Over a sixteenth of the shorter side, or to the middle of a narrower mask, the continuation fades into what was
        painted.

        Args:
            image: (B, 3, h, w) in [0, 1], what was computed.
            init_image: (1 or B', 3, h, w) in [-1, 1]; init_mask: (1 or B', 1, h, w); B' a divisor of B.
            is_continued: (B',) bool, by prompt.
            context_scale: below 1, the share of the continuation.
        """
        count = image.shape[0]
        known, hole, chosen = (
            x.to(image.device).repeat_interleave(count // len(x), dim=0) for x in (init_image, init_mask, is_continued)
        )
        filled = self.mg_encoder.fill_smoothly((known / 2 + 0.5).clamp(0, 1), hole)
        alpha = feathered(hole, round(min(image.shape[2:]) / 16))
        alpha = 1 - min(context_scale, 1.0) * (1 - alpha / alpha.amax((1, 2, 3), keepdim=True))
        return torch.where(chosen.view(-1, 1, 1, 1) & (hole > 0), torch.lerp(filled, image, alpha), image)

    def paste(
        self,
        image: torch.Tensor,
        original: torch.Tensor,
        mask: torch.Tensor,
        region: tuple[int, int, int, int],
        mask_feather: int = 0,
    ) -> torch.Tensor:
        """Bring what was computed back to its place; outside the mask the original stays, bit for bit.

        Args:
            image: (B, 3, h, w) in [0, 1], what was computed for `region`.
            original: (1 or B', 3, H, W) in [0, 1], B' a divisor of B; each serves B / B' images in a row.
            mask: (1 or B', 1, H, W) of zeros and ones.
            region: (left, top, right, bottom) in pixels of `original`.
            mask_feather: width of the ramp inside the mask, in pixels of `original`.
        """
        left, top, right, bottom = region
        count = image.shape[0]
        original, mask, alpha = (
            x.to(image.device).repeat_interleave(count // x.shape[0], dim=0)
            for x in (original, mask, feathered(mask, mask_feather))
        )
        painted = original.clone()
        painted[:, :, top:bottom, left:right] = resize(image, bottom - top, right - left)
        # Where alpha is 1 this is exactly `painted`.
        return torch.where(mask > 0, alpha * painted + (1 - alpha) * original, original)

    # Copied from pipelines.pipeline_mg.MGPipeline.attribute
    def attribute(self, names: Sequence[str], moved: Sequence[torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
        """How much each granularity moved the prediction of the UNet, from what `predict_noise` recorded.

        Args:
            names: of the contrasts; moved: by step (contrasts, B, h, w).

        Returns:
            {granularity: {"map": (B, h, w), "curve": (B, steps)}}, root mean squares over channels and steps, or over
            channels and places, in units of the prediction.
        """
        if not moved:
            return {}
        squares = torch.stack(list(moved), 2).float().cpu().square()
        maps, curves = squares.mean(2).sqrt(), squares.mean((3, 4)).sqrt()
        return {name: {"map": maps[place], "curve": curves[place]} for place, name in enumerate(names)}

    # Copied from pipelines.pipeline_mg.MGPipeline.warn_of_leaks
    def warn_of_leaks(
        self,
        image: torch.Tensor,
        compared: dict[str, Any],
        batch_size: int,
        num_images_per_prompt: int,
        mask: torch.Tensor | None = None,
    ) -> None:
        """Warn where an output follows the shape of its color or texture reference more than that of its shape reference.

        Args:
            image: (B, 3, H, W) in [0, 1]; compared: from `check_leak_guard`; mask: (B, 1, H, W), where the output counts.
        """
        size = tuple(image.shape[2:])
        apart = {}
        for name, reference in compared.items():
            targets = self.mg_encoder.guidance_targets(
                self.mg_encoder.encode({"shape": reference}, size, batch_size), size
            )["shape"].to(image.device, torch.float32)
            targets = targets.repeat_interleave(num_images_per_prompt if len(targets) > 1 else 1, dim=0)
            found = self.mg_encoder.feature_distances(image.float(), {"shape": targets}, mask)
            apart[name] = found["shape"].tolist()
        for name in [name for name in apart if name != "shape"]:
            for index, (other, own) in enumerate(zip(apart[name], apart["shape"], strict=True)):
                if other < own:
                    warnings.warn(
                        f"The shape of output {index} follows its {name} reference more than its shape reference: "
                        f"{1 - other:.2f} of its color variance against {1 - own:.2f}. Lower the strength of {name}, or "
                        f"raise that of shape.",
                        stacklevel=4,
                    )

    # -- feature guidance: step 4 at inference, theta <- theta - alpha grad L, theta being the picture -----------------
    # Copied from pipelines.pipeline_mg.MGPipeline.is_flow_matching
    @property
    def is_flow_matching(self) -> bool:
        """Whether latents are (1 - sigma) * picture + sigma * noise and the UNet predicts noise minus picture."""
        config = self.scheduler.config
        return type(self.scheduler).__name__.startswith("FlowMatch") or bool(config.get("use_flow_sigmas", False))

    # Copied from pipelines.pipeline_mg.MGPipeline.noise_level
    def noise_level(self, t: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Shares of picture and noise in what the UNet reads at timestep t, which may lie between two; `None` is the end."""
        if t is None:
            return torch.tensor(1.0), torch.tensor(0.0)
        t = t.detach().float().cpu()
        if self.is_flow_matching:
            sigma = t / self.scheduler.config.num_train_timesteps
            return 1 - sigma, sigma
        known = self.scheduler.alphas_cumprod.detach().float().cpu()
        below = t.long().clamp(0, len(known) - 1)
        above = (below + 1).clamp(max=len(known) - 1)
        # Between two, as schedulers place such timesteps: evenly in the logarithm of sigma over alpha.
        ratio = ((1 - known) / known.clamp(min=1e-12)).clamp(min=1e-12).log() / 2
        ratio = torch.lerp(ratio[below], ratio[above], t - below).exp()
        share = torch.where(t == below, known[below].sqrt(), (1 + ratio.square()).rsqrt())
        return share, (1 - share.square()).clamp(min=0).sqrt()

    # Copied from pipelines.pipeline_mg.MGPipeline.predicted_original
    def predicted_original(self, model_input: torch.Tensor, t: torch.Tensor, noise_pred: torch.Tensor) -> torch.Tensor:
        """x0, the latents of the picture that a prediction of the UNet stands for, whatever it predicts."""
        alpha, sigma = (level.to(model_input) for level in self.noise_level(t))
        if self.is_flow_matching:
            return model_input - sigma * noise_pred
        kind = self.scheduler.config.prediction_type
        if kind == "sample":
            return noise_pred
        if kind == "v_prediction":
            return alpha * model_input - sigma * noise_pred
        return (model_input - sigma * noise_pred) / alpha.clamp(min=1e-3)

    # Copied from pipelines.pipeline_mg.MGPipeline.fit_linear_decoder
    @torch.no_grad()
    def fit_linear_decoder(self) -> torch.Tensor:
        """The linear map from a latent cell to its block of pixels that comes nearest to the VAE: (3 * f * f, C + 1).

        Fitted once for a VAE, by least squares over clouds of random colors. (Linear previews of latents: Vass, "Explaining
        the SDXL latent space", huggingface.co/blog/TimothyAlexisVass/explaining-the-sdxl-latent-space.)
        """
        if getattr(self, "_linear_decoder", (None, None))[0] is self.vae:
            return self._linear_decoder[1].to(self._execution_device)
        factor, generator = self.vae_scale_factor, torch.Generator().manual_seed(0)
        clouds = torch.zeros(8, 3, 16 * factor, 16 * factor)
        for cells in (1, 2, 4, 8, 16, 16 * factor):
            noise = torch.randn(8, 3, cells, cells, generator=generator)
            clouds += F.interpolate(noise, size=clouds.shape[2:], mode="bilinear") / (1 + cells / 8)
        clouds = torch.tanh(clouds / 2)
        encoded = self.vae.encode(clouds.to(self._execution_device, self.vae.dtype))
        latents = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
        cells = F.pad(
            (latents * self.vae.config.scaling_factor).float().cpu().movedim(1, 3).flatten(0, 2), (0, 1), value=1.0
        )
        blocks = F.pixel_unshuffle(clouds, factor).movedim(1, 3).flatten(0, 2)
        weight = torch.linalg.lstsq(cells, blocks).solution.T.contiguous().to(self._execution_device)
        self._linear_decoder = (self.vae, weight)
        return weight

    # Copied from pipelines.pipeline_mg.MGPipeline.decode_for_guidance
    def decode_for_guidance(self, latents: torch.Tensor, decoder: Any) -> torch.Tensor:
        """Latents (B, C, h, w) to pictures (B, 3, H, W) in about [0, 1], differentiable."""
        if decoder == "linear":
            weight = self.fit_linear_decoder()
            blocks = F.conv2d(latents.float(), weight[:, :-1, None, None], weight[:, -1])
            return F.pixel_shuffle(blocks, self.vae_scale_factor) / 2 + 0.5
        model = self.vae if decoder == "vae" else decoder
        scaled = (latents / model.config.scaling_factor).to(model.dtype)
        return model.decode(scaled, return_dict=False)[0].float() / 2 + 0.5

    # Copied from pipelines.pipeline_mg.MGPipeline.prepare_feature_guidance
    def prepare_feature_guidance(
        self,
        scales: dict[str, float],
        features: Features,
        size: tuple[int, int],
        num_images_per_prompt: int,
        decoder: Any,
        is_full: bool,
        mask: torch.Tensor | None = None,
    ) -> dict[str, Any] | None:
        """What `guide_by_features` needs in every step; `None` where nothing guides.

        Args:
            scales: from `check_feature_guidance`.
            features: from `encode_reference`.
            size: (height, width) of the pictures.
            mask: (1 or B, 1, height, width), where the picture counts.
        """
        if not scales:
            return None
        device = self._execution_device
        targets = self.mg_encoder.guidance_targets({name: features[name] for name in scales}, size)
        targets = {
            name: target.to(device, torch.float32).repeat_interleave(
                num_images_per_prompt if len(target) > 1 else 1, 0
            )
            for name, target in targets.items()
        }
        if decoder == "linear":
            self.fit_linear_decoder()
        elif decoder != "vae":
            decoder.to(device)
        mask = None if mask is None else mask.to(device, torch.float32)
        return {"scales": scales, "targets": targets, "decoder": decoder, "is_full": is_full, "mask": mask}

    # Copied from pipelines.pipeline_mg.MGPipeline.guide_by_features
    def guide_by_features(
        self,
        predict: Callable[[torch.Tensor], torch.Tensor],
        latents: torch.Tensor,
        t: torch.Tensor,
        guidance: dict[str, Any],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A prediction, and how the picture x0 it stands for should move: down the distances of features.

        L = sum over granularities of ||features(x0) - features(reference)||^2. Every granularity's gradient in pixels is
        brought to unit root mean square, so that one scale serves all of them, in all steps and models; the step is
        scale times the noise level times 0.1. The gradient stops at x0 (MPGD, He et al., arXiv 2311.16424), or goes on
        through the UNet to the latents (FreeDoM, Yu et al., arXiv 2303.09833).

        Args:
            predict: latents to the prediction of the UNet.

        Returns:
            the prediction, and the move, of the shape of the latents.
        """
        is_full = guidance["is_full"]
        with torch.set_grad_enabled(is_full):
            source = latents.detach().requires_grad_(is_full)
            noise_pred = predict(source)
        with torch.enable_grad():
            x0 = self.predicted_original(self.scale_input(source, t), t, noise_pred)
            if not is_full:
                source = x0 = x0.detach().requires_grad_(True)
            image = self.decode_for_guidance(x0, guidance["decoder"])
            pixels = image.detach().requires_grad_(True)
            found = self.mg_encoder.feature_distances(pixels, guidance["targets"], guidance["mask"])
            pull = torch.zeros_like(pixels)
            for name, scale in guidance["scales"].items():
                (gradient,) = torch.autograd.grad(found[name].sum(), pixels, retain_graph=True)
                pull = pull + FEATURE_WEIGHTS.get(name, 1.0) * scale * unit_root_mean_square(gradient)
            (move,) = torch.autograd.grad(image, source, pull)
        if guidance["mask"] is not None:  # of where the gradient is, not of the whole picture
            pull = pull * guidance["mask"].mean((1, 2, 3), keepdim=True).sqrt()
        length = pull.square().mean((1, 2, 3), keepdim=True).sqrt()
        sigma = self.noise_level(t)[1].to(length)
        move = unit_root_mean_square(move) * length * sigma * FEATURE_STEP
        return noise_pred.detach(), -move.to(latents.dtype)

    # Copied from pipelines.pipeline_mg.MGPipeline.move_latents
    def move_latents(self, latents: torch.Tensor, move: torch.Tensor, next_timestep: torch.Tensor) -> torch.Tensor:
        """Latents after a step, their picture moved; `next_timestep` (1,) is their noise level, or (0,) at the end."""
        # Schedulers that start at another deviation than 1 keep the picture unscaled in the latents.
        is_unscaled = float(getattr(self.scheduler, "init_noise_sigma", 1.0)) != 1.0
        share = self.noise_level(next_timestep[0] if len(next_timestep) else None)[0]
        return latents + (1.0 if is_unscaled else share.to(latents)) * move

    # Copied from pipelines.pipeline_mg.MGPipeline.scale_input
    def scale_input(self, latents: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Latents as the UNet reads them; schedulers of flow matching leave them as they are."""
        scale = getattr(self.scheduler, "scale_model_input", None)
        return latents if scale is None else scale(latents, t)

    # Copied from pipelines.pipeline_mg.MGPipeline.guidance_scale
    @property
    def guidance_scale(self) -> float:
        return self._guidance_scale

    # Copied from pipelines.pipeline_mg.MGPipeline.clip_skip
    @property
    def clip_skip(self) -> int | None:
        return self._clip_skip

    # Copied from pipelines.pipeline_mg.MGPipeline.do_classifier_free_guidance
    @property
    def do_classifier_free_guidance(self) -> bool:
        return self._guidance_scale > 1

    # Copied from pipelines.pipeline_mg.MGPipeline.cross_attention_kwargs
    @property
    def cross_attention_kwargs(self) -> dict[str, Any] | None:
        return self._cross_attention_kwargs

    # Copied from pipelines.pipeline_mg.MGPipeline.num_timesteps
    @property
    def num_timesteps(self) -> int:
        return self._num_timesteps

    # Copied from pipelines.pipeline_mg.MGPipeline.interrupt
    @property
    def interrupt(self) -> bool:
        return self._interrupt

    # -- company: IP-Adapters, ControlNets, T2I-Adapters --------------------------------------------------------------
    encode_image = StableDiffusionPipeline.encode_image
    prepare_ip_adapter_image_embeds = StableDiffusionPipeline.prepare_ip_adapter_image_embeds

    # Copied from pipelines.pipeline_mg.MGPipeline.set_ip_adapter_scale
    def set_ip_adapter_scale(self, scale: Any) -> None:
        """As in `IPAdapterMixin`; in a callback, too, where processors of the adapter hide those it looks for."""
        hiding = {part: part.__dict__.get("processor") for part in self.bare_unet.modules()}
        hiding = {part: own for part, own in hiding.items() if hasattr(getattr(own, "base", None), "to_k_ip")}
        try:
            for part in hiding:
                del part.__dict__["processor"]
            IPAdapterMixin.set_ip_adapter_scale(self, scale)
        finally:
            for part, own in hiding.items():
                part.__dict__["processor"] = own

    # Copied from pipelines.pipeline_mg.MGPipeline.prepare_control_image
    def prepare_control_image(
        self, image: Any, size: tuple[int, int], channels: int, batch_size: int, name: str
    ) -> torch.Tensor:
        """The image of one ControlNet or T2I-Adapter to (1 or `batch_size`, channels, *size) in [0, 1].

        Raises:
            ValueError: unless it holds one image for all prompts or one for each, with so many channels, and values in
                [0, 1], or -1, which some ControlNets read as masked.
        """
        kind = {"do_convert_rgb": channels == 3, "do_convert_grayscale": channels == 1}
        processor = VaeImageProcessor(vae_scale_factor=self.vae_scale_factor, do_normalize=False, **kind)
        pixels = processor.preprocess(image, *size).to(dtype=torch.float32)
        if pixels.shape[0] not in (1, batch_size) or pixels.shape[1] != channels:
            raise ValueError(
                f"`{name}` must hold 1 or {batch_size} images of {channels} channels for each network, got the shape "
                f"{tuple(pixels.shape)}."
            )
        if not (pixels.min() >= -1 and pixels.max() <= 1):
            raise ValueError(
                f"`{name}` as an array must be floating point in [0, 1], got values from {pixels.min()} to {pixels.max()}."
            )
        return pixels.to(self._execution_device, self.unet.dtype)

    # Copied from pipelines.pipeline_mg.MGPipeline.by_network
    def by_network(self, image: Any, count: int, name: str) -> list[Any]:
        """The images of a call by network: as they are for one, or a list of one entry for each of several.

        Raises:
            ValueError: for a list of another length.
        """
        if count == 1:
            return [image]
        if isinstance(image, (list, tuple)) and image and isinstance(image[0], list):  # by prompt, as in diffusers
            image = [list(entries) for entries in zip(*image, strict=True)]
        if not isinstance(image, (list, tuple)) or len(image) != count:
            raise ValueError(f"`{name}` must be a list with an entry for each of the {count} networks.")
        return list(image)

    # Copied from pipelines.pipeline_mg.MGPipeline.prepare_controlnet
    def prepare_controlnet(
        self,
        controlnet: Any,
        control_image: Any,
        scale: float | list[float],
        start: float | list[float],
        end: float | list[float],
        size: tuple[int, int],
        steps: int,
        batch_size: int,
        num_images_per_prompt: int,
    ) -> list[list[tuple[Any, torch.Tensor, float]]]:
        """By step, each ControlNet with its image and its strength there, which is 0 outside its window.

        Raises:
            ValueError: for strengths, windows and images that are none, or of another number.
        """
        nets = networks(controlnet)
        if not nets:
            return [[]] * steps
        scales = one_for_each(scale, len(nets), "controlnet_conditioning_scale")
        starts = one_for_each(start, len(nets), "control_guidance_start")
        ends = one_for_each(end, len(nets), "control_guidance_end")
        if not all(0 <= first < last <= 1 for first, last in zip(starts, ends, strict=True)):
            raise ValueError(
                f"`control_guidance_start` and `control_guidance_end` are fractions of the run, 0 <= start < end <= 1; "
                f"got {starts} and {ends}."
            )
        images = [
            self.prepare_control_image(one, size, net.config.conditioning_channels, batch_size, "control_image")
            for net, one in zip(nets, self.by_network(control_image, len(nets), "control_image"), strict=True)
        ]
        count = batch_size * num_images_per_prompt
        images = [image.repeat_interleave(count // len(image), dim=0) for image in images]
        return [
            [
                (net, image, scale * (first <= i / steps and (i + 1) / steps <= last))
                for net, image, scale, first, last in zip(nets, images, scales, starts, ends, strict=True)
            ]
            for i in range(steps)
        ]

    # Copied from pipelines.pipeline_mg.MGPipeline.controlnet_residuals
    def controlnet_residuals(
        self,
        control: Sequence[tuple[Any, torch.Tensor, float]],
        model_input: torch.Tensor,
        t: torch.Tensor,
        text: torch.Tensor,
        copies: int,
        added_cond: dict[str, torch.Tensor] | None = None,
    ) -> dict[str, Any]:
        """What the ControlNets of `prepare_controlnet` add in a step, summed, as arguments of the UNet."""
        down, mid = [], None
        for net, image, scale in control:
            more, middle = net(
                model_input,
                t,
                encoder_hidden_states=text,
                controlnet_cond=torch.cat([image] * copies),
                conditioning_scale=scale,
                added_cond_kwargs=added_cond,
                return_dict=False,
            )
            down = [a + b for a, b in zip(down, more, strict=True)] if down else list(more)
            mid = middle if mid is None else mid + middle
        return {"down_block_additional_residuals": down, "mid_block_additional_residual": mid} if down else {}

    # Copied from pipelines.pipeline_mg.MGPipeline.prepare_t2i
    def prepare_t2i(
        self,
        t2i_adapter: Any,
        t2i_image: Any,
        scale: float | list[float],
        factor: float,
        size: tuple[int, int],
        steps: int,
        batch_size: int,
        num_images_per_prompt: int,
    ) -> list[list[torch.Tensor]]:
        """By step, what T2I-Adapters add to the down blocks, (number of pictures, C, h, w) each; nothing after `factor`.

        Raises:
            ValueError: for strengths, factors and images that are none or of another number, and for an adapter of
                another UNet.
        """
        adapters, features = networks(t2i_adapter), []
        if not adapters:
            return [[]] * steps
        scales = one_for_each(scale, len(adapters), "adapter_conditioning_scale")
        if not 0 <= one_for_each(factor, 1, "adapter_conditioning_factor")[0] <= 1:
            raise ValueError(f"`adapter_conditioning_factor` is a fraction of the run, from 0 to 1; got {factor}.")
        images = self.by_network(t2i_image, len(adapters), "t2i_image")
        for adapter, scale, image in zip(adapters, scales, images, strict=True):
            if any(side % adapter.downscale_factor for side in size):
                raise ValueError(
                    f"With this `t2i_adapter`, height and width must be multiples of {adapter.downscale_factor}; got {size}."
                )
            pixels = self.prepare_control_image(image, size, adapter.config.in_channels, batch_size, "t2i_image")
            own = [feature * scale for feature in adapter(pixels)]
            self.check_t2i_features(own, size)
            own = [one.repeat_interleave(batch_size // len(one), dim=0) for one in own]
            features = [a + b for a, b in zip(features, own, strict=True)] if features else own
        features = [feature.repeat_interleave(num_images_per_prompt, dim=0) for feature in features]
        return [features if i < int(steps * factor) else [] for i in range(steps)]

    # Copied from pipelines.pipeline_mg.MGPipeline.check_t2i_features
    def check_t2i_features(self, features: Sequence[torch.Tensor], size: tuple[int, int]) -> None:
        """Raise a ValueError unless the UNet's down blocks, and for one more its middle, can add these features."""
        widths, kinds = self.unet.config.block_out_channels, self.unet.config.down_block_types
        last = len(widths) - 1
        # A CrossAttnDownBlock2D adds its residual before it downsamples, a DownBlock2D after.
        levels = [level + (level < last and not kind.startswith("CrossAttn")) for level, kind in enumerate(kinds)]
        height, width = (side // self.vae_scale_factor for side in size)
        wanted = [
            (channels, -(-height // 2**level), -(-width // 2**level))
            for channels, level in zip([*widths, widths[-1]], [*levels, last], strict=True)
        ]
        found = [tuple(feature.shape[1:]) for feature in features]
        if found != wanted[: len(found)]:
            raise ValueError(
                f"`t2i_adapter` does not fit the UNet: its features have the shapes {found}, the UNet's blocks {wanted}."
            )

    # -- saving and loading -------------------------------------------------------------------------------------------
    # Copied from pipelines.pipeline_mg.MGPipeline.custom_components
    def custom_components(self) -> dict[str, type]:
        """Classes, by component, that neither diffusers nor transformers can load without their code."""
        kinds = {
            name: type(getattr(part, "_orig_mod", part)) for name, part in self.components.items() if part is not None
        }
        return {
            name: k for name, k in kinds.items() if k.__module__.split(".")[0] not in ("diffusers", "transformers")
        }

    # Copied from pipelines.pipeline_mg.MGPipeline.to_json_string
    def to_json_string(self) -> str:
        """The index of an exported repository: `[file, class]` for whatever is loaded from its own code."""
        index = json.loads(super().to_json_string())
        index.pop("_name_or_path", None)  # a folder on the machine it was saved on
        for name, kind in {"_class_name": type(self), **self.custom_components()}.items():
            index[name] = [Path(inspect.getsourcefile(kind)).stem, kind.__name__]
        return json.dumps(index, indent=2, sort_keys=True) + "\n"

    # Copied from pipelines.pipeline_mg.MGPipeline.save_config
    def save_config(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Write the index and the code it names, so that the folder loads where no package of ours is installed.

        Everything that saves a pipeline comes by here, after its components were saved.
        """
        folder, source = Path(save_directory), Path(inspect.getsourcefile(type(self)))
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, folder / source.name)
        # What `custom_pipeline=` loads of a folder or a Hub repository.
        (folder / "pipeline.py").write_text(f"from .{source.stem} import {type(self).__name__}\n", encoding="utf-8")
        beside = [source.parent, Path(self.name_or_path or source.parent)]
        if type(self).__module__.startswith("diffusers_modules."):
            beside.reverse()  # local remote code lies in one flat folder, with files of other repositories
        for name in set(SIBLINGS) - {source.name}:
            found = next((place / name for place in beside if (place / name).is_file()), None)
            if found is not None and found.resolve() != (folder / name).resolve():
                shutil.copyfile(found, folder / name)
        for name, kind in self.custom_components().items():
            (folder / name).mkdir(exist_ok=True)
            shutil.copy(inspect.getsourcefile(kind), folder / name)
        for path in folder.glob("*/config.json"):
            config = json.loads(path.read_text(encoding="utf-8"))
            if config.pop("_name_or_path", None) is not None:
                path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        super().save_config(save_directory, **kwargs)

    # Copied from pipelines.pipeline_mg.MGPipeline._dict_from_json_file
    @classmethod
    def _dict_from_json_file(cls, json_file: str | os.PathLike) -> dict[str, Any]:
        """An index read by an explicit class is read as that class's own; `DiffusionPipeline` obeys what it names."""
        index = super()._dict_from_json_file(json_file)
        return {**index, "_class_name": cls.__name__} if isinstance(index.get("_class_name"), list) else index

    # Copied from pipelines.pipeline_mg.MGPipeline.load_config
    @classmethod
    def load_config(cls, *args: Any, **kwargs: Any) -> Any:
        """As in `ConfigMixin`; models whose code the installed package has too are loaded from there, not as remote code."""
        config = super().load_config(*args, **kwargs)
        package = cls.__module__.rpartition(".pipelines.")[0]
        for entry in (config[0] if isinstance(config, tuple) else config).values():
            if isinstance(entry, list) and f"{package}.{entry[0]}" in sys.modules:
                entry[0] = f"{package}.{entry[0]}"
        return config

    # Copied from pipelines.pipeline_mg.MGPipeline.from_pipe
    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs: Any) -> DiffusionPipeline:
        """A pipeline of this class that shares the components of `pipeline`; those in `kwargs` take their places.

        Unlike in `DiffusionPipeline`, models of our own classes come along, and nothing is cast (the components would
        change in `pipeline` too) unless `dtype` is passed.
        """
        dtype = kwargs.pop("dtype", None)
        known = {**pipeline.config, **pipeline.components}
        parameters = {n: one for n, one in inspect.signature(cls).parameters.items() if n not in kwargs}
        shared = {n: known.get(n) for n, one in parameters.items() if n in known or one.default is one.empty}
        made = cls(**shared, **kwargs)
        made.register_to_config(_name_or_path=pipeline.name_or_path)
        return made if dtype is None else made.to(dtype)

    # -- the call -----------------------------------------------------------------------------------------------------
    @torch.no_grad()
    @replace_example_docstring(EXAMPLE_DOC_STRING)
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        image: Any = None,
        mask_image: Any = None,
        reference_image: dict[str, Any] | None = None,
        granularity_scale: float | dict[str, float | list[float]] = 1.0,
        height: int | None = None,
        width: int | None = None,
        padding_mask_crop: int | None = None,
        strength: float = 1.0,
        num_inference_steps: int = 20,
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
        granularity_schedule: dict[str, Any] | None = None,
        granularity_guidance: dict[str, float] | None = None,
        negative_reference_image: dict[str, Any] | None = None,
        feature_guidance_scale: float | dict[str, float] = 0.0,
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
        output_type: str = "pil",
        return_dict: bool = True,
        cross_attention_kwargs: dict[str, Any] | None = None,
        clip_skip: int | None = None,
        callback_on_step_end: Callable | PipelineCallback | MultiPipelineCallbacks | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],  # noqa: B006
    ) -> MultiGranularityPipelineOutput | tuple:
        """Repaint the white part of `mask_image`.

        Without `height` and `width` the edit is computed at the UNet's native size, brought back to the size of
        `image` and pasted into it. With `padding_mask_crop` only the surroundings of the mask are computed. With
        `height` or `width` and no `padding_mask_crop`, image and mask are brought to that size first, which is then
        the size of the result; a pixel of the smaller mask is white if any pixel under it was.

        Args:
            prompt: one or several; `None` is "" where there is a text encoder.
            image: the picture to edit, or one for each prompt: PIL image, path, numpy (H, W, 3), torch (3, H, W),
                a batched array, or a list; arrays are uint8 or float in [0, 1]. PIL images and files, of masks too,
                are turned upright as their EXIF orientation says.
            mask_image: of the same size, binary, white (1, 255, true) is repainted; not all black.
            reference_image: {"color": ..., "texture": ..., "shape": ...}, each of them optional: a PIL image, path,
                array, tensor, a dict {"image", "mask", "weight", "region"}, a list of those (averaged by weight), or a
                list of such lists, one for each prompt. "color" also takes a palette, a list of "#rrggbb" or
                "#rrggbb:weight". A region, a mask or a box in fractions, is where in the output a reference counts.
                Shapes and regions are laid out over what is computed: the whole picture or the surroundings of the mask.
            granularity_scale: strength, 0 is off, 1 is as trained, above 1 extrapolates; one for all or, by
                granularity, a number or one for each prompt. A granularity that is not named keeps 1.
            height, width: in pixels, see above.
            padding_mask_crop: pixels around the mask that are computed with it; `None` computes the whole picture.
            strength: above 0 and at most 1; how much of the noise schedule is run. 1 forgets what was under the mask.
            num_inference_steps: number of denoising steps at strength 1; `timesteps` or `sigmas` set them one by one.
            guidance_scale: how far to go beyond the prediction without prompt and references; 1 is off.
            negative_prompt: what to steer away from; one for all prompts or one for each.
            num_images_per_prompt: pictures for each prompt.
            eta: of DDIM; other schedulers ignore it.
            generator: random numbers to draw from; a list holds one for each picture.
            latents: (number of pictures, C, h, w) noise of unit deviation.
            prompt_embeds, negative_prompt_embeds: from `encode_prompt`, in place of the prompts.
            ip_adapter_image, ip_adapter_image_embeds: for IP-Adapters, as in `StableDiffusionPipeline`; masks are given
                as `cross_attention_kwargs={"ip_adapter_masks": ...}`.
            reference_embeds: from `encode_reference`, in place of `reference_image`.
            fusion_scale: how much the granularities are mixed with each other; 0 not at all, 1 as trained.
            granularity_schedule: how strengths change over the steps; by granularity a window (start, end) in fractions
                of the run, a list of factors from the first step to the last, or a callable of the fraction. A
                granularity that is not named keeps 1.
            granularity_guidance: by granularity, how far to go beyond the prediction without its reference, or with its
                negative one; 0 is off. Each named granularity costs one more row of the UNet.
            negative_reference_image: as `reference_image`, what to steer away from, at strength 1; with a
                `granularity_guidance` of 1 where none is named.
            feature_guidance_scale: training-free guidance by the features of the references; a number for all of them or
                by granularity, 0 is off, 1 a good start. Works without an adapter and along with one.
            feature_guidance_window: (start, end) in fractions of the run; steps that lie in it as a whole are guided.
            feature_guidance_decoder: how the picture is looked at in each step: "linear", a linear map fitted to the VAE
                once; "vae"; or a model with `decode`, such as `AutoencoderTiny`.
            feature_guidance_full: whether the gradient goes on through the UNet; two to three times as slow.
            return_attribution: whether to return how much each granularity moved the prediction, where and in which step;
                each costs one more row of the UNet.
            leak_guard: whether to warn where the output follows the shape of its color or texture reference more than that
                of its shape reference.
            context_scale: strength of what surrounds the mask: it lends every granularity that no reference gives, so
                that an edit matches its surroundings. 0 is off; `granularity_scale` multiplies it. Where color and
                shape are both lent, the edge of the edit fades into a smooth continuation of the surroundings.
            mask_feather: width in pixels of a soft edge, which lies inside the mask.
            controlnet, control_image: a `ControlNetModel` and its image, or lists of them; the image is PIL, numpy
                (B, H, W, 3) or torch (B, 3, H, W) in [0, 1], or a list with one for each prompt. It lies over
                the whole picture; with `padding_mask_crop` the part that is computed is cut out.
            controlnet_conditioning_scale: strength, one for all ControlNets or a list.
            control_guidance_start, control_guidance_end: in fractions of the run; a step counts if it lies between them
                as a whole.
            t2i_adapter, t2i_image: a `T2IAdapter` and its image, or lists of them.
            adapter_conditioning_scale: strength, one for all T2I-Adapters or a list.
            adapter_conditioning_factor: the fraction of the run, from its start, in which T2I-Adapters count.
            output_type: "pil", "np" (B, H, W, 3) or "pt" (B, 3, H, W) in [0, 1], or "latent" (of what was computed,
                nothing pasted or faded).
            return_dict: whether to return a `MultiGranularityPipelineOutput` or a tuple.
            cross_attention_kwargs: passed on to the attention processors; "scale" is the strength of LoRA layers.
            clip_skip: layers of the text encoder to skip at its end.
            callback_on_step_end: called after each step with pipeline, step, timestep and the tensors named in
                `callback_on_step_end_tensor_inputs`; what it returns replaces them.

        Examples:

        Returns:
            `MultiGranularityPipelineOutput` with `images`, or a tuple that starts with them (and ends with the
            attribution, if asked for). Outside the mask they
            equal `image` bit for bit (after resizing, where `height` or `width` asked for it).

        Raises:
            ValueError: for arguments that cannot work, before anything is computed; the message says what to do.
        """
        if isinstance(callback_on_step_end, (PipelineCallback, MultiPipelineCallbacks)):
            callback_on_step_end_tensor_inputs = callback_on_step_end.tensor_inputs
        self._guidance_scale = guidance_scale
        self._clip_skip = clip_skip
        self._cross_attention_kwargs = cross_attention_kwargs
        self._interrupt = False

        # 1. Check everything
        is_resized = padding_mask_crop is None and not (height is None and width is None)
        height, width = self.default_size(height, width)
        images, masks = list_images(image), list_masks(mask_image)
        self.check_types(prompt_embeds, negative_prompt_embeds, reference_image, reference_embeds)
        batch_size = self.default_batch_size(prompt, prompt_embeds, reference_image, reference_embeds)
        if prompt is None and prompt_embeds is None:
            batch_size = max(batch_size, len(images), len(masks))
        self.check_inputs(
            height,
            width,
            batch_size,
            num_images_per_prompt,
            generator,
            latents,
            output_type,
            callback_on_step_end_tensor_inputs,
        )
        self.check_edit(
            images, masks, batch_size, is_resized, strength, padding_mask_crop, mask_feather, context_scale
        )
        self.check_prompt(prompt, negative_prompt, prompt_embeds, negative_prompt_embeds, batch_size)
        self.check_ip_adapter(ip_adapter_image, ip_adapter_image_embeds)
        self.check_company(controlnet, control_image, t2i_adapter, t2i_image)
        compared = self.check_leak_guard(leak_guard, reference_image, output_type)
        if return_attribution and self.mg_adapter is None:
            raise ValueError(
                "`return_attribution` is about what an adapter does, which this pipeline was made without."
            )
        guided = self.check_feature_guidance(
            feature_guidance_scale,
            feature_guidance_window,
            feature_guidance_decoder,
            reference_image,
            reference_embeds,
        )
        self.check_reference(reference_image, reference_embeds, batch_size, guided=guided)
        given = [name for name, one in (reference_embeds or reference_image or {}).items() if one is not None]
        is_lent = context_scale > 0 and self.mg_adapter is not None and self.mg_encoder is not None
        given += self.mg_adapter.config.granularities if is_lent else []
        guidance = self.check_contrasts(granularity_guidance, negative_reference_image, given, batch_size)
        strengths = None if self.mg_adapter is None else self.mg_adapter.strengths(granularity_scale, batch_size)
        device = self._execution_device
        timesteps, num_inference_steps = retrieve_timesteps(
            self.scheduler, num_inference_steps, device, timesteps, sigmas
        )
        timesteps, num_inference_steps = StableDiffusionInpaintPipeline.get_timesteps(
            self, num_inference_steps, strength, device
        )
        if num_inference_steps < 1:
            raise ValueError(f"At `strength` {strength} no step is left. Raise it, or `num_inference_steps`.")
        factors = self.step_factors(granularity_schedule, len(timesteps), [*given, *(negative_reference_image or {})])

        is_pulled = self.guided_steps(feature_guidance_window, len(timesteps)) if guided else [False] * len(timesteps)

        # 2. The picture: what is kept, and what is computed
        size = (height, width) if is_resized else None
        original = torch.stack([to_tensor(one, size) for one in images])
        mask_image = torch.stack([one if size is None else F.adaptive_max_pool2d(one, size) for one in masks])
        region = self.crop_region(mask_image, height, width, padding_mask_crop)
        if padding_mask_crop is not None:  # what lies over what is computed
            control_image, t2i_image = (crop_alike(x, region, original.shape[2:]) for x in (control_image, t2i_image))
        control = self.prepare_controlnet(
            controlnet,
            control_image,
            controlnet_conditioning_scale,
            control_guidance_start,
            control_guidance_end,
            (height, width),
            len(timesteps),
            batch_size,
            num_images_per_prompt,
        )
        t2i = self.prepare_t2i(
            t2i_adapter,
            t2i_image,
            adapter_conditioning_scale,
            adapter_conditioning_factor,
            (height, width),
            len(timesteps),
            batch_size,
            num_images_per_prompt,
        )
        left, top, right, bottom = region
        init_image = resize(original[:, :, top:bottom, left:right], height, width)
        # The memory layout that diffusers gives pictures: convolutions then agree with its pipelines to the last bit.
        init_image = (2 * init_image - 1).contiguous(memory_format=torch.channels_last)
        init_mask = F.adaptive_max_pool2d(mask_image[:, :, top:bottom, left:right], (height, width))

        # 3. Read the references
        features = dict(reference_embeds or {})
        if reference_image is not None:
            features = self.encode_reference(reference_image, height, width, batch_size)
        avoided = {name: one for name, one in (negative_reference_image or {}).items() if name in guidance}
        negatives = self.encode_reference(avoided, height, width, batch_size) if avoided else {}

        # 4. Text
        if prompt_embeds is None:
            blank = "" if self.text_encoder is not None else None
            prompt = [blank] * batch_size if prompt is None else [prompt] if isinstance(prompt, str) else prompt
        if isinstance(negative_prompt, str):
            negative_prompt = [negative_prompt] * batch_size
        prompt_embeds, negative_prompt_embeds = self.encode_prompt(
            prompt,
            device,
            num_images_per_prompt,
            self.do_classifier_free_guidance,
            negative_prompt,
            prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds,
            lora_scale=(cross_attention_kwargs or {}).get("scale"),
            clip_skip=clip_skip,
        )
        if self.do_classifier_free_guidance:
            prompt_embeds = torch.cat([negative_prompt_embeds, prompt_embeds])
        image_embeds = None
        if ip_adapter_image is not None or ip_adapter_image_embeds is not None:
            image_embeds = self.prepare_ip_adapter_image_embeds(
                ip_adapter_image,
                ip_adapter_image_embeds,
                device,
                batch_size * num_images_per_prompt,
                self.do_classifier_free_guidance,
            )

        # 5. Noise, mask and masked image
        latent_size = (height // self.vae_scale_factor, width // self.vae_scale_factor)
        count = batch_size * num_images_per_prompt
        shape = (count, self.vae.config.latent_channels, *latent_size)
        latents, noise, image_latents = self.prepare_latents(
            init_image, shape, prompt_embeds.dtype, timesteps[:1], strength, generator, latents
        )
        # One masked pixel masks its latent cell, so that the cells cover all that is pasted.
        mask = F.max_pool2d(init_mask, self.vae_scale_factor).to(latents)
        mask = mask.repeat_interleave(count // mask.shape[0], dim=0)
        masked_image_latents, is_blended = None, self.unet.config.in_channels == shape[1]
        if not is_blended:
            masked_image = init_image * (init_mask < 0.5)
            masked_image_latents = self.encode_vae_image(masked_image, count, generator).to(latents)
        extra_step_kwargs = StableDiffusionPipeline.prepare_extra_step_kwargs(self, generator, eta)

        # 6. Fuse the references once for all steps; after the noise, which the same seed then gives without them, too
        conditioning = None
        is_continued = torch.zeros(1, dtype=torch.bool)
        if is_lent:
            features, strengths = self.add_context(features, strengths, init_image, init_mask, context_scale)
            # Color and shape both go on with what surrounds the mask, and nothing of what is under it is kept.
            if strength == 1 and "sketch" in features.get("shape", {}):
                places = [self.mg_adapter.config.granularities.index(name) for name in ("color", "shape")]
                is_continued = (strengths[:, places] > 0).all(1)
        for given in (features, negatives):
            if "color" in given:  # a palette is laid into what is repainted: all of it, and in its proportions
                laid = [{**parts, "area": init_mask} for parts in by_region(given["color"])]
                given["color"] = laid if isinstance(given["color"], list) else laid[0]
        if return_attribution:  # rows that are looked at, but do not guide
            guidance = {**dict.fromkeys(features, 0.0), **guidance}
        contrasts = [(name, negatives.get(name)) for name in guidance]
        if (features or contrasts) and self.mg_adapter is not None:
            conditioning = self.prepare_conditioning(
                features,
                strengths,
                latent_size,
                num_images_per_prompt,
                fusion_scale,
                generator,
                factors,
                contrasts,
            )
        contrast_scales = [] if conditioning is None else list(guidance.values())
        pull = self.prepare_feature_guidance(
            guided,
            features,
            (height, width),
            num_images_per_prompt,
            feature_guidance_decoder,
            feature_guidance_full,
            init_mask.repeat_interleave(count // len(init_mask), dim=0),
        )

        # 7. Denoise
        moved = [] if return_attribution else None
        num_warmup_steps = len(timesteps) - num_inference_steps * self.scheduler.order
        self._num_timesteps = len(timesteps)
        with self.attach(conditioning), self.progress_bar(total=num_inference_steps) as progress_bar:
            for i, t in enumerate(timesteps):
                if self.interrupt:
                    continue
                unet_channels = None if is_blended else torch.cat([mask, masked_image_latents], dim=1)
                at_step = conditioning
                if factors is not None and conditioning is not None:
                    is_on = tuple((factors[i] > 0).tolist())
                    at_step = self.mg_adapter.at_step(*conditioning[is_on], factors[i])
                predict = functools.partial(
                    self.predict_noise,
                    t=t,
                    prompt_embeds=prompt_embeds,
                    unet_channels=unet_channels,
                    conditioning=at_step,
                    contrast_scales=contrast_scales,
                    moved=moved,
                    image_embeds=image_embeds,
                    control=control[i],
                    t2i=t2i[i],
                )
                move = None
                if is_pulled[i]:
                    noise_pred, move = self.guide_by_features(predict, latents, t, pull)
                else:
                    noise_pred = predict(latents)
                latents = self.scheduler.step(noise_pred, t, latents, **extra_step_kwargs, return_dict=False)[0]
                if move is not None:
                    latents = self.move_latents(latents, move, timesteps[i + 1 : i + 2])
                if is_blended:
                    latents = self.blend(latents, image_latents, noise, mask, timesteps[i + 1 : i + 2])

                if callback_on_step_end is not None:
                    callback_kwargs = {}
                    for name in callback_on_step_end_tensor_inputs:
                        callback_kwargs[name] = locals()[name]
                    changed = callback_on_step_end(self, i, t, callback_kwargs)
                    latents = changed.pop("latents", latents)
                    prompt_embeds = changed.pop("prompt_embeds", prompt_embeds)
                    negative_prompt_embeds = changed.pop("negative_prompt_embeds", negative_prompt_embeds)
                    mask = changed.pop("mask", mask)
                    masked_image_latents = changed.pop("masked_image_latents", masked_image_latents)

                if i == len(timesteps) - 1 or ((i + 1) > num_warmup_steps and (i + 1) % self.scheduler.order == 0):
                    progress_bar.update()

        # 8. Decode, and paste into the picture
        if output_type == "latent":
            image = latents
        else:
            image = self.image_processor.denormalize(self.decode_latents(latents, generator).float())
            if compared is not None:
                hole = init_mask.repeat_interleave(count // len(init_mask), dim=0).to(image)
                self.warn_of_leaks(image, compared, batch_size, num_images_per_prompt, hole)
            if is_continued.any():
                image = self.soften_edge(image, init_image, init_mask, is_continued, context_scale)
            image = self.paste(image, original, mask_image, region, mask_feather)
            image = self.image_processor.postprocess(image, output_type, do_denormalize=[False] * count)
        attribution = self.attribute(list(guidance), moved) if return_attribution else None
        self.maybe_free_model_hooks()
        if not return_dict:
            return (image, None, attribution) if return_attribution else (image, None)
        return MultiGranularityPipelineOutput(images=image, nsfw_content_detected=None, attribution=attribution)
