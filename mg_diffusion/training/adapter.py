"""Stage `adapter`: encoder and adapter for a base that is there already, which stays as it is.

The base is frozen, in low precision if asked for; what is trained is float32. Checkpoints and `weights/` hold the trained
parts alone.
"""

from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch.utils.data import default_collate

from mg_diffusion.loading import many_steps_unet
from mg_diffusion.modeling_mg_adapter import MGAdapter
from mg_diffusion.modeling_mg_encoder import MGEncoder
from mg_diffusion.pipelines import MGXLPipeline, pipeline_class

from .caching import CachedCrossings, CachedText, Tensors, cache_base, text_of
from .fitting import HeldOut, fit
from .models import BASE, ConditionedUNet
from .objective import Objective
from .pictures import load_splits
from .samples import build_samples, views_of
from .settings import Data, RunSettings, Supervision
from .starting import start, write_configuration
from .streaming import samples_of
from .trained_parts import checkpoint_trained_parts


class AdapterObjective(Objective):
    """The loss of stage `base` for a frozen base.

    Args:
        pipeline: of the base.
        resolution: side in pixels of the pictures to paint.
        view_size: side of the pictures that the encoder sees; crossed pictures are made at it.
        cached_latents: from `latents_of`, of all photographs.
        cached_text: embeddings of all captions.
    """

    def __init__(
        self,
        pipeline: Any,
        snr_gamma: float,
        resolution: int,
        view_size: int,
        cached_latents: Tensors | None = None,
        cached_text: CachedText | None = None,
    ):
        super().__init__(pipeline.components, snr_gamma)
        self.pipeline, self.cached_latents, self.cached_text = pipeline, cached_latents, cached_text
        self.cached_crossings = CachedCrossings(self.vae)
        self.resolution, self.is_enlarged = resolution, resolution > view_size

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        captions = [sample.pop("caption") for sample in samples]
        return {**default_collate(samples), "captions": captions}

    def clean_latents(self, batch: dict[str, Any], generators: list[torch.Generator] | None = None) -> torch.Tensor:
        if self.cached_latents is None:
            return self.latents(batch["image"], generators)

        def own(rows: torch.Tensor) -> list[torch.Generator] | None:
            return generators and [generators[row] for row in rows.nonzero()[:, 0].tolist()]

        is_photo, is_crossing = batch["item"] >= 0, batch["crossing"] >= 0
        is_new = ~(is_photo | is_crossing)
        clean = torch.empty(self.latent_shape(batch["image"]), device=batch["image"].device)
        if is_new.any():
            clean[is_new] = self.latents(batch["image"][is_new], own(is_new))
        if is_photo.any():
            place = batch["item"][is_photo].cpu(), batch["is_flipped"][is_photo].long().cpu()
            found = {name: value[place] for name, value in self.cached_latents.items()}
            clean[is_photo] = self.sample(found, own(is_photo), clean)
        if is_crossing.any():
            found = self.cached_crossings(batch["crossing"][is_crossing].tolist(), batch["image"][is_crossing])
            clean[is_crossing] = self.sample(found, own(is_crossing), clean)
        return clean

    def sample(self, found: Tensors, generators: list[torch.Generator] | None, like: torch.Tensor) -> torch.Tensor:
        """Latents (N, C, h, w) drawn from cached distributions."""
        mean, deviation = found["mean"].to(like), found["deviation"].to(like)
        noise = randn_tensor(mean.shape, generator=generators, device=mean.device)
        return (mean + deviation * noise) * self.vae.config.scaling_factor

    def draw_timesteps(self, batch: dict[str, Any], generators: list[torch.Generator]) -> torch.Tensor:
        """Timesteps (B,); of crossed pictures that were enlarged, only those at which noise hides their lack of detail."""
        drawn = super().draw_timesteps(batch, generators)
        if not self.is_enlarged:
            return drawn
        return torch.where(batch["item"] < 0, len(self.alphas) // 2 + drawn // 2, drawn)

    def conditions(self, batch: dict[str, Any], fusion_scale: float | torch.Tensor) -> tuple[Any, ...]:
        embed = self.cached_text or partial(text_of, self.pipeline)
        found = embed(batch["captions"], batch["image"].device)
        layout = (batch[name] for name in ("turn", "sketch", "has_sketch", "present"))
        added = self.size_conditioning(found["pooled"]) if "pooled" in found else None
        return found["text"].to(self.dtype), views_of(batch), *layout, fusion_scale, added

    def size_conditioning(self, pooled: torch.Tensor) -> Tensors:
        """What Stable Diffusion XL reads beside the text: pictures of the training size, not cropped."""
        side = float(self.resolution)
        time_ids = pooled.new_tensor([side, side, 0.0, 0.0, side, side]).repeat(len(pooled), 1)
        return {"text_embeds": pooled.to(self.dtype), "time_ids": time_ids.to(self.dtype)}


def load_pipeline(place: str, dtype: torch.dtype, variant: str | None = None, start_from: str | None = None) -> Any:
    """The pipeline of the base at `place`, frozen, with a new encoder and adapter or those of `start_from`.

    Raises:
        ValueError: if the base or the adapter cannot be loaded, or do not fit each other.
    """
    try:
        many = many_steps_unet(place)  # a distilled UNet has forgotten how to be trained on pictures
        parts = {} if many is None else {"unet": many.to(dtype)}
        pipeline = pipeline_class(place).from_pretrained(
            place, mg_encoder=None, mg_adapter=None, dtype=dtype, variant=variant, **parts
        )
    except (OSError, ValueError) as error:
        raise ValueError(
            f"--pretrained_model_name_or_path must be a Stable Diffusion in the format of diffusers, a folder or a Hub "
            f"id, got {place!r}: {error}"
        ) from error
    names = (*BASE, "text_encoder_2", "tokenizer_2") if isinstance(pipeline, MGXLPipeline) else BASE
    missing = [name for name in names if not getattr(pipeline, name)]
    if missing:
        raise ValueError(f"--pretrained_model_name_or_path {place!r} lacks {missing}.")
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(False).eval()
    if pipeline.vae.config.get("force_upcast", False) and dtype == torch.float16:
        pipeline.vae.to(torch.float32)  # it overflows in half precision
    if start_from:
        encoder = MGEncoder.from_pretrained(start_from, subfolder="mg_encoder", dtype=torch.float32)
        adapter = MGAdapter.from_pretrained(start_from, subfolder="mg_adapter", dtype=torch.float32)
    else:
        encoder = MGEncoder.from_unet(pipeline.unet)
        adapter = MGAdapter.from_unet(pipeline.unet, encoder)
    pipeline.register_modules(mg_encoder=encoder, mg_adapter=adapter)
    pipeline.check_components()
    return pipeline


def run(args: Namespace) -> list[dict[str, float]]:
    """Train; returns the log records. The resumable state and `weights/` are in `args.output_dir`."""
    accelerator = start(args)
    dtype = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[args.mixed_precision]
    pipeline = load_pipeline(args.pretrained_model_name_or_path, dtype, args.variant, args.mg_model_name_or_path)
    pipeline.to(accelerator.device)
    if args.resolution is None:
        args.resolution = pipeline.default_size(None, None)[0]
        write_configuration(accelerator, args)
    unet, encoder, adapter = pipeline.unet, pipeline.mg_encoder, pipeline.mg_adapter
    model = ConditionedUNet(unet, encoder.requires_grad_(True), adapter.requires_grad_(True))
    if args.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    checkpoint_trained_parts(accelerator)

    settings, data, supervision = RunSettings.of(args), Data.of(args), Supervision.of(args)
    pictures, others = load_splits(data, held_out_seed=1)
    view_size = min(adapter.map_size(*[args.resolution // pipeline.vae_scale_factor] * 2))
    caches = cache_base(pipeline, pictures, args.cache_dir, accelerator) if args.cache_latents else {}
    objective = AdapterObjective(pipeline, args.snr_gamma, args.resolution, view_size, **caches)
    own = {"view_size": view_size, "is_inpainting": objective.is_inpainting}
    make = partial(build_samples, num_tiles=encoder.config.num_tiles, **own)
    own = {"is_window": data.streaming, "is_repeated": args.cache_latents}
    samples = samples_of(settings, data, pictures, partial(make, supervision=supervision, **own))
    # Samples of held-out pictures are alike in all runs, so nothing of them is cached.
    held_out = others and HeldOut(
        others,
        make(others, data.num_validation_images, supervision=supervision.held_out(len(others))),
        AdapterObjective(pipeline, args.snr_gamma, args.resolution, view_size),
    )

    def export(folder: Path) -> None:
        for name, part in (("mg_encoder", encoder), ("mg_adapter", adapter)):
            part.save_pretrained(folder / name)

    return fit(accelerator, settings, model, objective, samples, held_out, pipeline, export)
