"""Stage `distill`: a UNet that does in few steps what its teacher does in many, guidance folded in.

One step of the student is to reach where several DDIM steps of the guided teacher lead (progressive distillation, Salimans
and Ho, arXiv 2202.00512). The scale of the guidance becomes a number that the student reads (Meng et al., arXiv 2210.03142),
where Latent Consistency Models have it: `time_cond_proj_dim` of a stock UNet. Encoder and adapter stay as they are, so that
references, strengths and what is left out of them remain inputs.
"""

from argparse import Namespace
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils.torch_utils import randn_tensor

from mg_diffusion.loading import EMBEDDED_NAME, embedded_model

from .adapter import AdapterObjective, load_pipeline
from .fitting import HeldOut, fit
from .laid_samples import build_laid_samples
from .models import ConditionedUNet
from .objective import target_of, weight_of
from .pictures import load_materials, load_splits
from .samples import build_samples
from .seeding import generators_of, per_sample
from .settings import Data, Layouts, RunSettings, Supervision
from .starting import start, write_configuration
from .streaming import samples_of
from .trained_parts import checkpoint_trained_parts


GUIDANCE_WIDTH = 64  # of the embedding of the guidance
VALIDATED_GUIDANCE = 1.5


def build_student(teacher: UNet2DConditionModel) -> UNet2DConditionModel:
    """A copy of the teacher that reads the guidance, and predicts the same as long as its weights for that are zero.

    One that reads it already is copied as it is.
    """
    width = teacher.config.time_cond_proj_dim or GUIDANCE_WIDTH
    config = {**teacher.config, "time_cond_proj_dim": width}
    for name in ("_use_default_values", "_name_or_path"):  # or what the teacher was not told would stay at its default
        config.pop(name, None)
    student = UNet2DConditionModel.from_config(config)
    student.load_state_dict(teacher.state_dict(), strict=False)
    if teacher.config.time_cond_proj_dim is None:
        torch.nn.init.zeros_(student.time_embedding.cond_proj.weight)
    return student


def few_step_scheduler(scheduler: Any) -> DDIMScheduler:
    """DDIM on the teacher's noise schedule, over timesteps that begin at the noisiest."""
    return DDIMScheduler.from_config(
        scheduler.config, timestep_spacing="trailing", steps_offset=0, clip_sample=False, set_alpha_to_one=True
    )


def split_prediction(
    kind: str, noisy: torch.Tensor, predicted: torch.Tensor, alpha_bar: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Picture and noise (B, C, h, w) that a prediction of a `kind` stands for, `alpha_bar` (B, 1, 1, 1)."""
    signal, spread = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    if kind == "v_prediction":
        return signal * noisy - spread * predicted, signal * predicted + spread * noisy
    if kind == "sample":
        return predicted, (noisy - signal * predicted) / spread.clamp(min=1e-6)
    return (noisy - spread * predicted) / signal.clamp(min=1e-4), predicted


class DistillObjective(AdapterObjective):
    """L = w(t) ||y - y_hat||^2, y what the student would have to predict to land where the teacher does.

    Args:
        teacher: frozen, inside `mg_adapter.attach`.
        model: what the student is part of, not wrapped by accelerate.
        steps: of the student and of the teacher, a multiple of them.
        max_guidance: scales of guidance are drawn from 1 to it.
        of_pictures: limit of the weight, side of the pictures to paint and of what the encoder sees, see `AdapterObjective`.
    """

    def __init__(
        self,
        pipeline: Any,
        teacher: UNet2DConditionModel,
        model: ConditionedUNet,
        steps: tuple[int, int],
        max_guidance: float,
        of_pictures: tuple[float, int, int],
    ):
        super().__init__(pipeline, *of_pictures)
        num_steps, teacher_steps = steps
        self.teacher, self.model, self.max_guidance = teacher, model, max_guidance
        count = len(self.alphas)
        self.substeps = teacher_steps // num_steps
        self.grid = torch.tensor([round(count * (1 - k / teacher_steps)) - 1 for k in range(teacher_steps + 1)])
        self.width = model.unet.config.time_cond_proj_dim

    def alpha_at(self, timesteps: torch.Tensor) -> torch.Tensor:
        """Cumulated alphas (B, 1, 1, 1); 1 at timestep -1, the picture itself."""
        alphas = torch.cat([self.alphas, self.alphas.new_ones(1)]).to(timesteps.device)
        return alphas[timesteps].view(-1, 1, 1, 1)

    def training_loss(self, model: torch.nn.Module, batch: dict[str, Any]) -> torch.Tensor:
        generators, device = generators_of(batch), batch["image"].device
        timesteps = self.draw_timesteps(batch, generators)
        noise = randn_tensor(self.latent_shape(batch["image"]), generator=generators, device=device)
        drawn = per_sample(lambda g: torch.rand(2, generator=g), generators, device)
        guidance = 1 + drawn[:, 0] * (self.max_guidance - 1)
        fusion_scale = (drawn[:, 1] < 0.5).float().view(-1, 1, 1, 1)
        return self(model, batch, timesteps, noise, fusion_scale, generators, guidance).mean()

    def __call__(
        self,
        model: torch.nn.Module,
        batch: dict[str, Any],
        timesteps: torch.Tensor,
        noise: torch.Tensor,
        fusion_scale: float | torch.Tensor,
        generators: list[torch.Generator] | None = None,
        guidance: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Weighted squared error (B,); timesteps (B,) count as the student's next noisier ones."""
        if guidance is None:
            guidance = torch.full((len(timesteps),), VALIDATED_GUIDANCE, device=timesteps.device)
        grid = self.grid.to(timesteps.device)
        begins = grid[:-1][:: self.substeps]  # of the student's steps, noisiest first
        place = (begins[None] >= timesteps[:, None]).sum(1) - 1
        first = begins[place]
        clean = self.clean_latents(batch, generators)
        alpha_bar = self.alpha_at(first)
        noisy = alpha_bar.sqrt() * clean + (1 - alpha_bar).sqrt() * noise
        channels = self.known_channels(batch, clean, generators) if self.is_inpainting else None
        conditions = self.conditions(batch, fusion_scale)
        landed = self.teach(noisy, place, channels, batch, conditions, guidance)
        ends = self.alpha_at(grid[(place + 1) * self.substeps])
        picture, own_noise = landing_to_prediction(noisy, landed, alpha_bar, ends)
        target = target_of(self.noise_scheduler, self.prediction_type, picture, own_noise, first)
        read = noisy if channels is None else torch.cat([noisy, channels], 1)
        told = StableDiffusionPipeline.get_guidance_scale_embedding(self, guidance - 1, self.width).to(self.dtype)
        predicted = model(read.to(self.dtype), first, *conditions, timestep_cond=told).float()
        weight = weight_of(self.prediction_type, alpha_bar.flatten(), self.snr_gamma)
        return weight * (predicted - target).square().mean((1, 2, 3))

    @torch.no_grad()
    def teach(
        self,
        noisy: torch.Tensor,
        place: torch.Tensor,
        channels: torch.Tensor | None,
        batch: dict[str, Any],
        conditions: tuple[Any, ...],
        guidance: torch.Tensor,
    ) -> torch.Tensor:
        """Where the guided teacher's DDIM steps lead from `noisy` (B, C, h, w), each sample in its own step `place` (B,)."""
        text, views, turn, sketch, has_sketch, present, fusion_scale, added = conditions
        laid = (views, turn, sketch, has_sketch, present, fusion_scale)
        attention, residuals = self.model.condition(self.teacher, noisy.shape[2:], *laid)
        given = text, attention, residuals, added
        nothing = self.without_anything(batch, noisy, laid, added)
        grid, scale = self.grid.to(noisy.device), guidance.view(-1, 1, 1, 1)
        for step in range(self.substeps):
            now, then = (grid[place * self.substeps + step + k] for k in (0, 1))
            read = (noisy if channels is None else torch.cat([noisy, channels], 1)).to(self.dtype)
            with_all, without = (self.predict(read, now, *one).float() for one in (given, nothing))
            guided = without + scale * (with_all - without)
            picture, noise = split_prediction(self.prediction_type, noisy, guided, self.alpha_at(now))
            alpha_bar = self.alpha_at(then)
            noisy = alpha_bar.sqrt() * picture + (1 - alpha_bar).sqrt() * noise
        return noisy

    def without_anything(
        self, batch: dict[str, Any], noisy: torch.Tensor, laid: tuple[Any, ...], added: dict[str, torch.Tensor] | None
    ) -> tuple[Any, ...]:
        """What the teacher is given for the unconditional prediction: no words and no references."""
        blank = self.conditions({**batch, "captions": [""] * len(noisy)}, laid[-1])
        views, turn, sketch, has_sketch, present, fusion_scale = laid
        absent = (views, turn, sketch, has_sketch, torch.zeros_like(present), fusion_scale)
        attention, residuals = self.model.condition(self.teacher, noisy.shape[2:], *absent)
        return blank[0], attention, residuals, blank[-1] if added is not None else None

    def predict(
        self,
        read: torch.Tensor,
        timesteps: torch.Tensor,
        text: torch.Tensor,
        attention: Any,
        residuals: Any,
        added: dict[str, torch.Tensor] | None,
    ) -> torch.Tensor:
        """The teacher's prediction (B, C, h, w)."""
        return self.teacher(
            read,
            timesteps,
            text,
            added_cond_kwargs=added,
            cross_attention_kwargs={"ip_hidden_states": attention},
            down_intrablock_additional_residuals=None if residuals is None else list(residuals),
        ).sample


def landing_to_prediction(
    noisy: torch.Tensor, landed: torch.Tensor, alpha_bar: torch.Tensor, ends: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Picture and noise whose one DDIM step leads from `noisy` at `alpha_bar` to `landed` at `ends`."""
    ratio = (1 - ends).sqrt() / (1 - alpha_bar).sqrt()
    picture = (landed - ratio * noisy) / (ends.sqrt() - ratio * alpha_bar.sqrt())
    return picture, (noisy - alpha_bar.sqrt() * picture) / (1 - alpha_bar).sqrt()


def run(args: Namespace) -> list[dict[str, float]]:
    """Train; returns the log records. `weights/` in `args.output_dir` holds `unet/` and `scheduler/`."""
    accelerator = start(args)
    dtype = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[args.mixed_precision]
    pipeline = load_teacher(args, dtype).to(accelerator.device)
    if args.resolution is None:
        args.resolution = pipeline.default_size(None, None)[0]
        write_configuration(accelerator, args)
    teacher, encoder, adapter = pipeline.unet, pipeline.mg_encoder, pipeline.mg_adapter
    if args.init_from:
        student = UNet2DConditionModel.from_pretrained(args.init_from, subfolder="unet")
    else:
        student = build_student(teacher)
    student = student.to(accelerator.device, torch.float32).requires_grad_(True)
    pipeline.register_modules(unet=student, scheduler=few_step_scheduler(pipeline.scheduler))
    if args.gradient_checkpointing:
        student.enable_gradient_checkpointing()
    model = ConditionedUNet(student, encoder.requires_grad_(False), adapter.requires_grad_(False))
    checkpoint_trained_parts(accelerator)

    settings, data, supervision, layouts = (kind.of(args) for kind in (RunSettings, Data, Supervision, Layouts))
    large, others = load_splits(replace(data, resolution=layouts.layout_size or data.resolution), held_out_seed=1)
    pictures, others = large.resize(data.resolution), others and others.resize(data.resolution)
    view_size = min(adapter.map_size(*[args.resolution // pipeline.vae_scale_factor] * 2))
    objective = DistillObjective(
        pipeline,
        teacher,
        model,
        (args.num_steps, args.teacher_steps),
        args.max_guidance,
        (args.snr_gamma, args.resolution, view_size),
    )
    own = {"view_size": view_size, "is_inpainting": objective.is_inpainting}
    make = partial(build_samples, num_tiles=encoder.config.num_tiles, **own)
    samples = samples_of(settings, data, pictures, partial(make, supervision=supervision, is_window=data.streaming))
    if layouts.layout_size:
        gain = adapter.config.canvas_gain
        materials = load_materials(layouts.materials_dir, data, layouts.layout_size)
        samples = build_laid_samples(large, materials, samples, gain, layouts.num_laid_crossings, supervision)
    held_out = others and HeldOut(
        others, make(others, data.num_validation_images, supervision=supervision.held_out(len(others))), objective
    )

    def export(folder: Path) -> None:
        student.save_pretrained(folder / "unet")
        pipeline.scheduler.save_pretrained(folder / "scheduler")

    with adapter.attach(teacher):
        return fit(accelerator, settings, model, objective, samples, held_out, pipeline, export)


def load_teacher(args: Namespace, dtype: torch.dtype) -> Any:
    """The pipeline to learn from, with its encoder and adapter; errors as of `load_pipeline`."""
    place, parts = (
        str(embedded_model()) if one == EMBEDDED_NAME else one
        for one in (args.pretrained_model_name_or_path, args.mg_model_name_or_path)
    )
    return load_pipeline(place, dtype, args.variant, parts)
