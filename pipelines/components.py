"""What pipelines and modular blocks ask of components and of a call alike."""

from typing import Any

import torch
from diffusers import StableDiffusionPipeline

from ..arrays import check_count, plain_number, whole_number
from ..granularities import MOST_STRENGTH
from ..octaves import CONDITION_CHANNELS, HAAR_CHANNELS
from ..sizes import check_pixels


AUTO = "auto"  # as many steps as the UNet wants
FEW_STEPS = 4  # of a UNet that is distilled
KINDS = {
    "unet": ("a UNet2DConditionModel", "attn_processors"),
    "vae": ("a VAE", "decode"),
    "mg_encoder": ("an MGEncoder", "encode_context"),
    "mg_adapter": ("an MGAdapter", "check_unet"),
    "mg_detail": ("a detail network, a UNet2DModel,", "down_blocks"),
}  # of components, and what tells one, of whatever class its code is


def bare(unet: torch.nn.Module) -> torch.nn.Module:
    """The UNet itself where `torch.compile` wrapped it."""
    return getattr(unet, "_orig_mod", unet)


def reads_guidance(unet: torch.nn.Module) -> bool:
    """Whether a UNet is distilled and reads the guidance as a number, as those of Latent Consistency Models do."""
    return bare(unet).config.get("time_cond_proj_dim") is not None


def guidance_embedding(unet: torch.nn.Module, guidance_scale: float, model_input: torch.Tensor) -> torch.Tensor | None:
    """What a UNet that reads the guidance is told, a row for each of its inputs; `None` for all others."""
    if not reads_guidance(unet):
        return None
    scales = torch.full((len(model_input),), max(float(guidance_scale), 1.0) - 1, dtype=torch.float32)
    width = bare(unet).config.time_cond_proj_dim
    return StableDiffusionPipeline.get_guidance_scale_embedding(None, scales, width).to(model_input)


def part_or_none(name: str, part: Any) -> Any:
    """An optional component. `DiffusionPipeline.from_pipe` may give what an index says of it, (library, class), in its place.

    Raises:
        ValueError: where the index says that there is one.
    """
    if not isinstance(part, (tuple, list)):
        return part
    if any(part):
        raise ValueError(f"`{name}` must be a component or `None`, got {part!r}; pass `{name}=pipe.{name}`.")
    return None


def check_components(unet: Any, vae: Any, mg_encoder: Any, mg_adapter: Any, mg_detail: Any = None) -> None:
    """Raise a ValueError unless these are complete and fit each other; those that are `None` are left out."""
    parts = {"unet": unet, "vae": vae, "mg_encoder": mg_encoder, "mg_adapter": mg_adapter, "mg_detail": mg_detail}
    for name, part in parts.items():
        if part is not None:
            check_kind(name, part)
            check_complete(name, part)
    if unet is not None and vae is not None:
        found, latent = unet.config.in_channels, vae.config.latent_channels
        if found not in (latent, 2 * latent + 1):
            raise ValueError(
                f"The UNet must take {latent} input channels (the latents) or {2 * latent + 1} (latents, mask and masked "
                f"image latents), because the VAE has {latent} latent channels; this one takes {found}."
            )
    if mg_adapter is not None and unet is not None:
        mg_adapter.check_unet(bare(unet))
    if mg_adapter is not None and mg_encoder is not None:
        mg_adapter.check_encoder(mg_encoder)
    if mg_detail is not None:
        found = mg_detail.config.in_channels, mg_detail.config.out_channels
        wanted = HAAR_CHANNELS + sum(CONDITION_CHANNELS.values()), HAAR_CHANNELS
        if found != wanted or mg_detail.config.class_embed_type != "timestep":
            raise ValueError(
                f"`mg_detail` is no detail network of stage `detail`: such a one takes {wanted[0]} channels and gives "
                f"{wanted[1]}, this one {found[0]} and {found[1]}."
            )


def check_kind(name: str, part: Any) -> None:
    """Raise a ValueError for a component that is something else than its name says."""
    kind, told_by = KINDS[name]
    if not isinstance(part, torch.nn.Module) or not hasattr(bare(part), told_by):
        raise ValueError(f"`{name}` must be {kind} or `None`, got {type(part).__name__}; pass `{name}=pipe.{name}`.")


def check_complete(name: str, part: torch.nn.Module) -> None:
    """Raise a ValueError for a model of whose weights some were not in the file it was loaded from.

    diffusers leaves them without data, and warns. Those that are offloaded have none either, but a hook that brings it.
    """
    missing = [
        f"{place}.{key}" if place else key
        for place, module in part.named_modules()
        if not hasattr(module, "_hf_hook")
        for key, weight in module.named_parameters(recurse=False)
        if weight.is_meta
    ]
    if missing:
        raise ValueError(
            f"`{name}` lacks weights: {len(missing)} were not in its file ({', '.join(missing[:2])}). The file is damaged, or was "
            f"saved while a LoRA was in the model. Copy or download it again, or save it anew after `unload_lora_weights()`."
        )


def check_ready(pipeline: Any) -> None:
    """Raise a ValueError for a pipeline that lacks what every call needs."""
    for name in ("unet", "vae"):
        if getattr(pipeline, name) is None:
            raise ValueError(
                f"A call needs the component `{name}`, which this pipeline was made without. Pass it along."
            )
    scheduler = pipeline.scheduler
    if isinstance(scheduler, type) or not hasattr(scheduler, "config"):
        found = f"the class {scheduler.__name__}" if isinstance(scheduler, type) else repr(scheduler)
        raise ValueError(
            f"`scheduler` must be a scheduler of diffusers, got {found}. Make one, for example "
            f'`DDIMScheduler.from_pretrained(path, subfolder="scheduler")`.'
        )


def check_numbers(given: Any) -> None:
    """Raise a ValueError for numbers and generators of another type or range than they are documented to have.

    Whole numbers become those of Python, as numpy's wrap around. What is not among `given` is not looked at: blocks take a
    part of what pipelines do.
    """
    steps = getattr(given, "num_inference_steps", AUTO)
    if not (isinstance(steps, str) and steps == AUTO):
        given.num_inference_steps = whole_number(steps) or 0
        if given.num_inference_steps < 1:
            raise ValueError(f'`num_inference_steps` must be a positive integer, or "{AUTO}"; got {steps!r}.')
    for name in ("height", "width"):
        value = getattr(given, name, None)
        if value is not None and (side := whole_number(value)) is None:
            raise ValueError(f"`{name}` must be an integer, in pixels; got {value!r}. Round it: `{name}=int({name})`.")
        if value is not None:
            setattr(given, name, side)
    for name in ("padding_mask_crop", "mask_feather"):
        if getattr(given, name, None) is not None:
            setattr(given, name, check_pixels(getattr(given, name), name))
    for name, off, most in (("guidance_scale", 1, MOST_STRENGTH), ("fusion_scale", 0, MOST_STRENGTH), ("eta", 0, 1)):
        if hasattr(given, name):
            check_scale(name, getattr(given, name), off, most)
    generator = getattr(given, "generator", None)
    generators = generator if isinstance(generator, list) else [generator]
    if not all(isinstance(one, torch.Generator) for one in generators) and generator is not None:
        raise ValueError(
            f"`generator` must be a `torch.Generator` or a list of them, got {generator!r}. A seed becomes one by "
            f"`torch.Generator().manual_seed(seed)`."
        )
    check_attention_kwargs(getattr(given, "cross_attention_kwargs", None))


def check_attention_kwargs(given: Any) -> None:
    """Raise a ValueError for `cross_attention_kwargs` that are none, or hold a strength of LoRAs that is no number."""
    if given is None:
        return
    if not isinstance(given, dict) or not all(isinstance(name, str) for name in given):
        raise ValueError(f'`cross_attention_kwargs` is a dict such as {{"scale": 0.5}}, or `None`; got {given!r}.')
    if "gligen" in given:
        raise ValueError("`cross_attention_kwargs` holds boxes of GLIGEN, which is not read here. Leave `gligen` out.")
    scale = plain_number(given.get("scale", 1.0))
    if scale is None or abs(scale) > MOST_STRENGTH:
        raise ValueError(
            f'`cross_attention_kwargs["scale"]`, the strength of LoRAs, must be a finite number of at most {MOST_STRENGTH:g}; '
            f"got {given['scale']!r}. Leave it out for 1."
        )


def check_scale(name: str, value: Any, off: int = 0, most: float = MOST_STRENGTH) -> float:
    """How far something goes as a number, or a ValueError if it is none from 0 to `most`; `off` is where it does nothing."""
    if not is_finite(value) or not 0 <= value <= most:
        raise ValueError(
            f"`{name}` must be a finite number of at least 0 ({off} is off), at most {most:g}; got {value!r}."
        )
    return float(value)


def is_finite(value: Any) -> bool:
    """Whether a value is a number (of Python, numpy or torch), and neither infinite nor NaN."""
    return plain_number(value) is not None


def check_counts(given: Any, batch_size: int) -> None:
    """Raise a ValueError for numbers of pictures and generators, and for outputs, that cannot be."""
    given.num_images_per_prompt = check_count(given.num_images_per_prompt)
    count = batch_size * given.num_images_per_prompt
    if isinstance(given.generator, list) and len(given.generator) != count:
        raise ValueError(f"A list of generators needs one for each of the {count} images, got {len(given.generator)}.")
    if not isinstance(given.output_type, str) or given.output_type not in ("pil", "np", "pt", "latent"):
        raise ValueError(f'`output_type` must be "pil", "np", "pt" or "latent", got {given.output_type!r}.')


def default_size(unet: torch.nn.Module, factor: int, height: int | None, width: int | None) -> tuple[int, int]:
    """Height and width in pixels; a missing one is the UNet's native size, of `factor` pixels a latent cell."""
    native = unet.config.sample_size
    if native is None and None in (height, width):
        raise ValueError(
            "The UNet's configuration has no `sample_size`, the side of its latents, so that no size goes without saying. Pass "
            "`height` and `width`."
        )
    native = (native, native) if isinstance(native, int) else native
    return native[0] * factor if height is None else height, native[1] * factor if width is None else width


def scale_factor(vae: Any) -> int:
    """Pixels per latent cell; 8 where there is no VAE, as in diffusers."""
    return 8 if vae is None else 2 ** (len(vae.config.block_out_channels) - 1)
