"""Stage `base`: the UNet, the text encoder, the encoder and the adapter of the embedded default, trained together."""

import contextlib
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.utils.torch_utils import randn_tensor
from torch.utils.data import Dataset, default_collate

from mg_diffusion.loading import EMBEDDED_NAME, embedded_model
from mg_diffusion.pipelines import MGPipeline

from .loop import run_length, start, train
from .models import TrainedModel, build_components
from .pictures import Pictures, load_splits
from .samples import SampleStream, views_of
from .seeding import generators_of, per_sample
from .sharding import gathered
from .streaming import samples_of
from .validation import save_grid, validation_loss
from .view_pool import build_pool


BASE = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")


def target_of(kind: str, clean: torch.Tensor, noise: torch.Tensor, alpha_bar: torch.Tensor) -> torch.Tensor:
    """What a UNet predicts, by the scheduler's `prediction_type`; v of Salimans and Ho, arXiv 2202.00512."""
    if kind == "epsilon":
        return noise
    return clean if kind == "sample" else alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * clean


def weight_of(kind: str, alpha_bar: torch.Tensor, gamma: float) -> torch.Tensor:
    """Weight of the squared error of a prediction, limited near the data.

    Min-SNR (Hang et al., arXiv 2303.09556) for a prediction of noise. For x0 and v it is that of v, which does not
    vanish at pure noise: v - v_hat = (x0_hat - x0) / sigma.
    """
    if kind == "epsilon":
        snr = alpha_bar / (1 - alpha_bar)
        return snr.clamp(max=gamma) / snr.clamp(min=1e-8)
    limited = (1 / (1 - alpha_bar)).clamp(max=gamma)
    return limited if kind == "sample" else limited * (1 - alpha_bar)


class Objective:
    """L = sum of ||y - y_hat||^2, y what the UNet predicts, and the noisy input it is computed from.

    Raises:
        ValueError: for a scheduler without `alphas_cumprod`, or of another prediction type.
    """

    def __init__(self, components: dict[str, Any], snr_gamma: float):
        self.vae = components["vae"]
        self.tokenizer = components["tokenizer"]
        self.is_inpainting = components["unet"].config.in_channels > self.vae.config.latent_channels
        self.alphas = getattr(components["scheduler"], "alphas_cumprod", None)
        self.prediction_type = components["scheduler"].config.get("prediction_type", "epsilon")
        self.snr_gamma = snr_gamma
        if self.alphas is None or self.prediction_type not in ("epsilon", "v_prediction", "sample"):
            raise ValueError(
                f"Training needs a scheduler with `alphas_cumprod` that predicts epsilon, v_prediction or sample, such as "
                f"DDPMScheduler or DDIMScheduler; this is {type(components['scheduler']).__name__} with "
                f"{self.prediction_type!r}."
            )

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        captions = [sample.pop("caption") for sample in samples]
        length = self.tokenizer.model_max_length
        tokens = self.tokenizer(
            captions, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        return {**default_collate(samples), "input_ids": tokens.input_ids}

    @torch.no_grad()
    def latents(self, images: torch.Tensor, generators: list[torch.Generator] | None = None) -> torch.Tensor:
        """Latents (B, C, h, w) of images (B, 3, H, W), drawn with one generator for each."""
        # In the type the VAE was given: some overflow in half precision.
        with torch.autocast(images.device.type, enabled=False):
            encoded = self.vae.encode(images.to(self.vae.dtype)).latent_dist.sample(generators)
        return encoded.float() * self.vae.config.scaling_factor

    def latent_shape(self, images: torch.Tensor) -> tuple[int, int, int, int]:
        """Shape of `latents(images)`, from the configuration alone: noise is drawn before anything is encoded."""
        config = self.vae.config
        factor = 2 ** (len(config.block_out_channels) - 1)
        return len(images), config.latent_channels, images.shape[2] // factor, images.shape[3] // factor

    def __call__(
        self,
        model: torch.nn.Module,
        batch: dict[str, Any],
        timesteps: torch.Tensor,
        noise: torch.Tensor,
        fusion_scale: float | torch.Tensor,
        generators: list[torch.Generator] | None = None,
    ) -> torch.Tensor:
        """Weighted squared error (B,) of a batch at given timesteps (B,) and noise (B, C, h, w).

        Args:
            fusion_scale: of all samples, or (B, 1, 1, 1).
            generators: of each sample, for latents that are drawn.
        """
        image, mask = batch["image"], batch["mask"]
        clean = self.clean_latents(batch, generators)
        alpha_bar = self.alphas.to(timesteps.device)[timesteps].view(-1, 1, 1, 1)
        unet_input = alpha_bar.sqrt() * clean + (1 - alpha_bar).sqrt() * noise
        if self.is_inpainting:
            masked = self.latents(image * (1 - mask), generators)
            # A cell is repainted when any of its pixels is, as in the pipelines.
            cell = torch.nn.functional.max_pool2d(mask, mask.shape[2] // clean.shape[2])
            unet_input = torch.cat([unet_input, cell, masked], 1)
        predicted = self.predict(model, batch, unet_input, timesteps, fusion_scale)
        target = target_of(self.prediction_type, clean, noise, alpha_bar)
        weight = weight_of(self.prediction_type, alpha_bar, self.snr_gamma).flatten()
        return weight * (predicted.float() - target).square().mean((1, 2, 3))

    def clean_latents(self, batch: dict[str, Any], generators: list[torch.Generator] | None = None) -> torch.Tensor:
        """Latents (B, C, h, w) of the pictures to paint."""
        return self.latents(batch["image"], generators)

    def predict(
        self,
        model: torch.nn.Module,
        batch: dict[str, Any],
        unet_input: torch.Tensor,
        timesteps: torch.Tensor,
        fusion_scale: float | torch.Tensor,
    ) -> torch.Tensor:
        """The UNet's prediction (B, C, h, w)."""
        return model(
            unet_input,
            timesteps,
            batch["input_ids"],
            views_of(batch),
            batch["turn"],
            batch["sketch"],
            batch["has_sketch"],
            batch["present"],
            fusion_scale,
        )

    def draw_timesteps(self, batch: dict[str, Any], generators: list[torch.Generator]) -> torch.Tensor:
        """Timesteps (B,), all of them equally likely."""
        count = len(self.alphas)
        return per_sample(lambda g: torch.randint(0, count, (), generator=g), generators, batch["image"].device)

    def training_loss(self, model: torch.nn.Module, batch: dict[str, Any]) -> torch.Tensor:
        generators, device = generators_of(batch), batch["image"].device
        timesteps = self.draw_timesteps(batch, generators)
        noise = randn_tensor(self.latent_shape(batch["image"]), generator=generators, device=device)
        # The fusion is left out of half of the samples, so that alpha = 0 always works.
        is_fused = per_sample(lambda g: torch.rand((), generator=g) < 0.5, generators, device)
        fusion_scale = is_fused.float().view(-1, 1, 1, 1)
        return self(model, batch, timesteps, noise, fusion_scale, generators).mean()


def load_base(folder: str, needed: tuple[str, ...] = BASE) -> dict[str, Any]:
    """Components of a pipeline that training starts from, in float32.

    Args:
        folder: of the pipeline; "mg-bazaar" is the embedded default, wherever it is installed.

    Raises:
        ValueError: if it cannot be loaded, or lacks a component.
    """
    expected = f"--init_from must be the `weights` of a run of stage base or their export, got {folder!r}"
    place = embedded_model() if folder == EMBEDDED_NAME else folder
    try:
        components = MGPipeline.from_pretrained(place, dtype=torch.float32).components
    except (OSError, ValueError) as error:
        raise ValueError(f"{expected}: {error}") from error
    missing = [name for name in needed if components[name] is None]
    if missing:
        raise ValueError(f"{expected}, which lacks {missing}.")
    return components


def load_components(folder: str) -> dict[str, Any]:
    """As `load_base`, with encoder and adapter."""
    return load_base(folder, (*BASE, "mg_encoder", "mg_adapter"))


def export_weights(components: dict[str, Any], folder: str | Path) -> None:
    """Write inference weights as a repository that `DiffusionPipeline.from_pretrained` loads."""
    # A tokenizer saves how it was called last, and a resumed run exports before it calls it.
    components["tokenizer"].backend_tokenizer.no_padding()
    components["tokenizer"].backend_tokenizer.no_truncation()
    MGPipeline(**components).save_pretrained(folder, safe_serialization=True)


def fit(
    accelerator: Accelerator,
    args: Namespace,
    model: torch.nn.Module,
    objective: Objective,
    stream: Dataset,
    held: tuple[Pictures, Dataset, Objective] | None,
    pipeline: Any,
    export: Callable[[Path], None],
) -> list[dict[str, float]]:
    """Train a model with its adapter, if it has one, attached; it is detached while the pipeline draws the grid.

    Args:
        held: held-out pictures, samples of them, and the objective that scores these; `None` where there are none.
        pipeline: of the very modules that are trained.
        export: writes inference weights to a folder.
    """
    if held is None:
        accelerator.print("No held-out pictures: the run reports the training loss only.")
    adapter = getattr(model, "mg_adapter", None)
    with contextlib.ExitStack() as attached:

        def attach() -> None:
            if adapter is not None:
                attached.enter_context(adapter.attach(model.unet))

        def validate(step: int) -> dict[str, float]:
            if held is None:
                return {}
            pictures, samples, scored_by = held
            model.eval()
            with torch.no_grad(), accelerator.autocast():
                losses = validation_loss(scored_by, model, samples, accelerator.device)
            attached.close()
            with gathered(model):
                if accelerator.is_main_process:
                    save_grid(pipeline, pictures, Path(args.output_dir, f"grid-{step:06d}.png"))
            attach()
            model.train()
            return losses

        attach()
        return train(
            accelerator,
            args,
            model.train(),
            stream,
            objective.collate,
            objective.training_loss,
            validate,
            export,
        )


def shares_of(args: Namespace) -> dict[str, float]:
    """How many samples are crossed pictures, by kind."""
    return {"composite": args.composite_share, "rendered": args.rendered_share}


def held_out_samples(args: Namespace, held_out: Pictures, num_tiles: int) -> SampleStream:
    """What the validation loss of a run is taken on."""
    pool, bases = build_pool(held_out, len(held_out), max(1, len(held_out) // 2), 1, args.cache_dir)
    count = args.num_validation_images
    return SampleStream(pool, bases, held_out.captions, count, 1, shares_of(args), num_tiles, augment=False)


def run(args: Namespace) -> list[dict[str, float]]:
    """Train; returns the log records. The resumable state and `weights/` are in `args.output_dir`."""
    accelerator = start(args)
    pictures, held_out = load_splits(args, held_out_seed=1)
    components = load_components(args.init_from) if args.init_from else build_components(args, pictures.captions)
    model = TrainedModel(*(components[name] for name in ("unet", "text_encoder", "mg_encoder", "mg_adapter")))
    model.requires_grad_(True).to(memory_format=torch.channels_last)
    if args.lora_rank:
        from .lora import add_lora  # peft is needed for this alone

        add_lora(accelerator, model, args.lora_rank)
    components["vae"].to(accelerator.device)
    tiles = components["mg_encoder"].config.num_tiles
    length = run_length(accelerator, args)

    def stream_of(some: Pictures) -> SampleStream:
        pool, bases = build_pool(
            some, args.num_crossings, args.num_rendered, args.seed, args.cache_dir, is_window=args.streaming
        )
        return SampleStream(
            pool, bases, some.captions, length, args.seed, shares_of(args), tiles, augment=args.augment
        )

    stream = samples_of(args, pictures, stream_of, length)
    objective = Objective(components, args.snr_gamma)
    held = None if held_out is None else (held_out, held_out_samples(args, held_out, tiles), objective)
    pipeline = MGPipeline(**components)

    def export(folder: Path) -> None:
        whole = components
        if args.lora_rank:
            from .lora import export_lora, fused

            export_lora(components, folder / "lora")
            whole = components | {"unet": fused(components["unet"])}
        export_weights(whole, folder)

    return fit(accelerator, args, model, objective, stream, held, pipeline, export)
