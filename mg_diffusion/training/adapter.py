"""Stage `adapter`: encoder and adapter for a base that is there already, which stays as it is.

The base is frozen, in low precision if asked for; what is trained is float32. Checkpoints and `weights/` hold the trained
parts alone.
"""

from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import DistributedType
from diffusers.utils.torch_utils import randn_tensor
from safetensors.torch import load_file, save_file
from torch.utils.data import default_collate

from mg_diffusion.modeling_mg_adapter import MGAdapter
from mg_diffusion.modeling_mg_encoder import MGEncoder
from mg_diffusion.pipelines import MGXLPipeline, pipeline_class

from .base import BASE, Objective, fit
from .caching import CachedCrossings, CachedText, Tensors, cached, latents_of, text_of
from .fingerprints import code_fingerprint, model_fingerprint, picture_fingerprint
from .loop import run_length, start, write_configuration
from .models import ConditionedUNet
from .pictures import Pictures, load_splits
from .samples import SampleStream, views_of
from .streaming import samples_of
from .view_pool import build_pool


TRAINED = "trained.safetensors"  # in a checkpoint


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
            kept = {name: value[place] for name, value in self.cached_latents.items()}
            clean[is_photo] = self.sample(kept, own(is_photo), clean)
        if is_crossing.any():
            kept = self.cached_crossings(batch["crossing"][is_crossing].tolist(), batch["image"][is_crossing])
            clean[is_crossing] = self.sample(kept, own(is_crossing), clean)
        return clean

    def sample(self, kept: Tensors, generators: list[torch.Generator] | None, like: torch.Tensor) -> torch.Tensor:
        """Latents (N, C, h, w) of the distributions that were kept."""
        mean, deviation = kept["mean"].to(like), kept["deviation"].to(like)
        noise = randn_tensor(mean.shape, generator=generators, device=mean.device)
        return (mean + deviation * noise) * self.vae.config.scaling_factor

    def draw_timesteps(self, batch: dict[str, Any], generators: list[torch.Generator]) -> torch.Tensor:
        """Timesteps (B,); of crossed pictures that were enlarged, only those at which noise hides their lack of detail."""
        drawn = super().draw_timesteps(batch, generators)
        if not self.is_enlarged:
            return drawn
        half = len(self.alphas) // 2
        return torch.where(batch["item"] < 0, half + drawn // 2, drawn)

    def predict(
        self,
        model: torch.nn.Module,
        batch: dict[str, Any],
        unet_input: torch.Tensor,
        timesteps: torch.Tensor,
        fusion_scale: float | torch.Tensor,
    ) -> torch.Tensor:
        device = unet_input.device
        if self.cached_text is None:
            found = text_of(self.pipeline, batch["captions"], device)
        else:
            found = self.cached_text(batch["captions"], device)
        return model(
            unet_input.to(self.pipeline.unet.dtype),
            timesteps,
            found["text"].to(self.pipeline.unet.dtype),
            views_of(batch),
            batch["turn"],
            batch["sketch"],
            batch["has_sketch"],
            batch["present"],
            fusion_scale,
            self.size_conditioning(found["pooled"]) if "pooled" in found else None,
        )

    def size_conditioning(self, pooled: torch.Tensor) -> Tensors:
        """What Stable Diffusion XL reads beside the text: pictures of the training size, not cropped."""
        side = float(self.resolution)
        time_ids = pooled.new_tensor([side, side, 0.0, 0.0, side, side]).repeat(len(pooled), 1)
        return {
            name: value.to(self.pipeline.unet.dtype)
            for name, value in (("text_embeds", pooled), ("time_ids", time_ids))
        }


def load_pipeline(args: Namespace, dtype: torch.dtype) -> Any:
    """The pipeline of the base, frozen, with a new encoder and adapter or those of `--mg_model_name_or_path`.

    Raises:
        ValueError: if the base or the adapter cannot be loaded, or do not fit each other.
    """
    place, start_from = args.pretrained_model_name_or_path, args.mg_model_name_or_path
    try:
        pipeline = pipeline_class(place).from_pretrained(
            place, mg_encoder=None, mg_adapter=None, dtype=dtype, variant=args.variant
        )
    except (OSError, ValueError) as error:
        raise ValueError(
            f"--pretrained_model_name_or_path must be a Stable Diffusion in the format of diffusers, a folder or a Hub "
            f"id, got {place!r}: {error}"
        ) from error
    names = [*BASE, *(("text_encoder_2", "tokenizer_2") if isinstance(pipeline, MGXLPipeline) else ())]
    missing = [name for name in names if not getattr(pipeline, name)]
    if missing:
        raise ValueError(f"--pretrained_model_name_or_path {place!r} lacks {missing}.")
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(False).eval()
    if pipeline.vae.config.get("force_upcast", False) and dtype == torch.float16:
        pipeline.vae.to(torch.float32)  # it overflows in half precision
    if start_from:
        encoder, adapter = (
            kind.from_pretrained(start_from, subfolder=name, dtype=torch.float32)
            for kind, name in ((MGEncoder, "mg_encoder"), (MGAdapter, "mg_adapter"))
        )
    else:
        encoder = MGEncoder.from_unet(pipeline.unet)
        adapter = MGAdapter.from_unet(pipeline.unet, encoder)
    pipeline.register_modules(mg_encoder=encoder, mg_adapter=adapter)
    pipeline.check_components()
    return pipeline


def trained_state(model: torch.nn.Module) -> Tensors:
    """What is trained, by name."""
    return {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}


def keep_the_base_out(accelerator: Accelerator) -> None:
    """Let checkpoints hold what is trained, and not the base again and again; FSDP and DeepSpeed have their own format."""
    if accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        return

    def save(models: list[torch.nn.Module], weights: list[Any], folder: str) -> None:
        for model in models:
            if accelerator.is_main_process:
                state = trained_state(accelerator.unwrap_model(model))
                save_file({name: value.contiguous() for name, value in state.items()}, Path(folder, TRAINED))
            weights.pop()

    def load(models: list[torch.nn.Module], folder: str) -> None:
        while models:
            model = accelerator.unwrap_model(models.pop())
            stored, own = load_file(Path(folder, TRAINED)), trained_state(model)
            if stored.keys() != own.keys():
                raise ValueError(
                    f"{folder!r} is no checkpoint of such an adapter: other parameters are trained in it."
                )
            for name, value in own.items():
                value.copy_(stored[name])

    accelerator.register_save_state_pre_hook(save)
    accelerator.register_load_state_pre_hook(load)


def shrink(pictures: Pictures, size: int) -> Pictures:
    """The same pictures at the encoder's size."""
    if pictures.whole.shape[2] == size:
        return pictures
    whole, crop = (
        F.interpolate(part.float(), size=(size, size), mode="bicubic", antialias=True).clamp(0, 255).round().byte()
        for part in (pictures.whole, pictures.crop)
    )
    return Pictures(whole, crop, pictures.captions)


def run(args: Namespace) -> list[dict[str, float]]:
    """Train; returns the log records. The resumable state and `weights/` are in `args.output_dir`."""
    accelerator = start(args)
    dtype = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[args.mixed_precision]
    pipeline = load_pipeline(args, dtype)
    pipeline.to(accelerator.device)
    if args.resolution is None:
        args.resolution = pipeline.default_size(None, None)[0]
        write_configuration(accelerator, args)
    unet, encoder, adapter = pipeline.unet, pipeline.mg_encoder, pipeline.mg_adapter
    model = ConditionedUNet(unet, encoder.requires_grad_(True), adapter.requires_grad_(True))
    if args.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    keep_the_base_out(accelerator)

    pictures, held_out = load_splits(args, held_out_seed=1)
    view_size = min(adapter.map_size(*[args.resolution // pipeline.vae_scale_factor] * 2))
    kept: dict[str, Any] = {}
    if args.cache_latents:
        images, vae = torch.cat([pictures.whole, pictures.crop]), pipeline.vae
        identity = [code_fingerprint(cached, type(vae)), model_fingerprint(vae), picture_fingerprint(images)]
        with accelerator.main_process_first():
            kept["cached_latents"] = cached(
                args.cache_dir, "latents", identity, lambda: latents_of(vae, images, accelerator.device)
            )
            kept["cached_text"] = CachedText(args.cache_dir, pipeline, pictures.captions, accelerator.device)
    objective = AdapterObjective(pipeline, args.snr_gamma, args.resolution, view_size, **kept)

    def stream_of(
        some: Pictures, crossings: int, rendered: int, seed: int, length: int, is_trained_on: bool
    ) -> SampleStream:
        is_window = is_trained_on and args.streaming
        pool, bases = build_pool(
            shrink(some, view_size), crossings, rendered, seed, args.cache_dir, is_window=is_window
        )
        return SampleStream(
            pool,
            bases,
            some.captions,
            length,
            seed,
            {"composite": args.composite_share, "rendered": args.rendered_share},
            encoder.config.num_tiles,
            augment=is_trained_on and args.augment,
            images=torch.cat([some.whole, some.crop]) if args.resolution != view_size else None,
            is_inpainting=objective.is_inpainting,
            is_repeated=is_trained_on and args.cache_latents,  # held-out samples are alike in all runs
        )

    length = run_length(accelerator, args)
    of_run = args.num_crossings, args.num_rendered, args.seed, length
    stream = samples_of(args, pictures, lambda some: stream_of(some, *of_run, is_trained_on=True), length)
    held = None
    if held_out is not None:
        count = args.num_validation_images
        held_stream = stream_of(held_out, len(held_out), max(1, len(held_out) // 2), 1, count, is_trained_on=False)
        held = held_out, held_stream, AdapterObjective(pipeline, args.snr_gamma, args.resolution, view_size)

    def export(folder: Path) -> None:
        for name, part in (("mg_encoder", encoder), ("mg_adapter", adapter)):
            part.save_pretrained(folder / name)

    return fit(accelerator, args, model, objective, stream, held, pipeline, export)
