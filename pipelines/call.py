"""A call, step by step: everything is checked, then prepared, then denoised, then decoded.

What is special of Stable Diffusion 1, 2 or XL, of starting from noise or from a picture, is handed over by the other
modules; the pipelines put them together.
"""

import functools
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.pipelines.stable_diffusion import StableDiffusionPipelineOutput
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_inpaint import retrieve_latents

from ..arrays import check_tensor
from ..default_device import on_cpu
from ..features import Features, as_lists
from .claims import claimed
from .components import (
    AUTO,
    FEW_STEPS,
    bare,
    check_components,
    check_counts,
    check_numbers,
    check_ready,
    default_size,
    guidance_embedding,
    reads_guidance,
)
from .composed_start import skip_steps
from .feature_guidance import FeatureGuidance
from .other_adapters import as_shown
from .references import given_references
from .schedulers import check_noising, set_steps


@dataclass
class MultiGranularityPipelineOutput(StableDiffusionPipelineOutput):
    """As of Stable Diffusion, and with `return_attribution` what `attribute` returns."""

    attribution: dict[str, dict[str, torch.Tensor]] | None = None


@dataclass
class Call:
    """What a call was given, and what is prepared of it for its loop.

    Args:
        given: the arguments, by name.
        size: (height, width) of what is computed, in pixels; output_size: of what octaves make of it, where they do.
        timesteps: of the run; `num_inference_steps` is what its progress bar counts.
        edit: of a pipeline that edits: the picture and what is kept of it.
        contrasts: by granularity, how far to go beyond the prediction without it; 0 is only looked at.
        strengths: (batch_size, G); factors: (steps, G) of them, where they change.
        feature_scales: of feature guidance, by granularity; is_feature_guided: by step.
        compared: references whose shapes the output is compared with.
        features: of the references; negatives: of those to steer away from.
        conditioning: what references add to the UNet; `None` where they add nothing.
        control, t2i: what ControlNets and T2I-Adapters read or add, by step.
        detail_generator: of the noise of the octaves.
        noise: (B, C, h, w) of unit deviation that `latents` began with.
        differences: how far each contrast lay from the prediction, by step; `None` where nobody asks.
        latents, prompt_embeds, negative_prompt_embeds, add_text_embeds, add_time_ids, mask, masked_image_latents: may be
            read and replaced by a callback, if the pipeline's `_callback_tensor_inputs` names them.
    """

    given: SimpleNamespace
    size: tuple[int, int]
    batch_size: int
    timesteps: torch.Tensor
    num_inference_steps: int
    edit: Any
    contrasts: dict[str, float]
    strengths: torch.Tensor | None
    factors: torch.Tensor | None
    feature_scales: dict[str, float]
    is_feature_guided: list[bool]
    compared: dict[str, Any] | None
    output_size: tuple[int, int] | None = None
    sizes: list[list[int]] | None = None
    features: Features = field(default_factory=dict)
    negatives: Features = field(default_factory=dict)
    conditioning: Any = None
    feature_guidance: FeatureGuidance | None = None
    control: list[Any] = field(default_factory=list)
    t2i: list[Any] = field(default_factory=list)
    image_embeds: list[torch.Tensor] | None = None
    detail_generator: torch.Generator | list[torch.Generator] | None = None
    differences: list[torch.Tensor] | None = None
    unet_channels: torch.Tensor | None = None
    noise: torch.Tensor | None = None
    latents: torch.Tensor | None = None
    prompt_embeds: torch.Tensor | None = None
    negative_prompt_embeds: torch.Tensor | None = None
    add_text_embeds: torch.Tensor | None = None
    add_time_ids: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    masked_image_latents: torch.Tensor | None = None

    @property
    def count(self) -> int:
        """Number of pictures."""
        return self.batch_size * self.given.num_images_per_prompt

    @property
    def layout_size(self) -> tuple[int, int] | None:
        """(height, width) that references are laid out at; `None` where nothing reads that."""
        return self.output_size or (self.size if self.given.composed_start > 0 else None)


class Sampling:
    """What all calls share."""

    # Offloading moves a model when its `forward` begins; these two are small and used in other ways as well.
    _exclude_from_cpu_offload = ["mg_encoder", "mg_adapter"]
    guidance_scale = StableDiffusionPipeline.guidance_scale
    clip_skip = StableDiffusionPipeline.clip_skip
    cross_attention_kwargs = StableDiffusionPipeline.cross_attention_kwargs
    num_timesteps = StableDiffusionPipeline.num_timesteps
    interrupt = StableDiffusionPipeline.interrupt

    default_steps = 20

    @property
    def _execution_device(self) -> torch.device:
        """As of diffusers, which looks for it in all modules of all models: once in a call, where it does not change."""
        known = self.__dict__.get("_device_of_call")
        return super()._execution_device if known is None else known

    @property
    def reads_guidance(self) -> bool:
        """Whether the UNet is distilled, see `reads_guidance`."""
        return reads_guidance(self.unet)

    @property
    def default_num_inference_steps(self) -> int:
        """Steps of a call that names none."""
        return FEW_STEPS if self.reads_guidance else self.default_steps

    @property
    def do_classifier_free_guidance(self) -> bool:
        return self._guidance_scale > 1 and not self.reads_guidance

    @property
    def bare_unet(self) -> UNet2DConditionModel:
        """The UNet itself where `torch.compile` wrapped it."""
        return bare(self.unet)

    def run(self, arguments: dict[str, Any]) -> MultiGranularityPipelineOutput | tuple:
        """What `__call__` does with its arguments."""
        given = SimpleNamespace(**{name: one for name, one in arguments.items() if name != "self"})
        if isinstance(given.callback_on_step_end, (PipelineCallback, MultiPipelineCallbacks)):
            given.callback_on_step_end_tensor_inputs = given.callback_on_step_end.tensor_inputs
        check_ready(self)
        with claimed(self.scheduler), on_cpu():
            outer = self.__dict__.get("_device_of_call")  # of a call whose callback makes this one
            self._device_of_call = self._execution_device
            try:
                return self.sample(given)
            finally:
                self._device_of_call = outer

    def sample(self, given: SimpleNamespace) -> MultiGranularityPipelineOutput | tuple:
        """A call whose scheduler nobody else uses."""
        self._guidance_scale = given.guidance_scale
        self._clip_skip = given.clip_skip
        self._cross_attention_kwargs = given.cross_attention_kwargs
        self._interrupt = False
        call = self.check(given)
        self.prepare(call)
        with self.feature_guidance_precision(call):
            self.prepare_guidance(call)
            self.denoise(call)
        return self.finish(call)

    # -- 1. check -----------------------------------------------------------------------------------------------------
    def check(self, given: SimpleNamespace) -> Call:
        """Raise a ValueError for arguments that cannot work, before anything is computed; the message says what to do."""
        check_numbers(given)
        edit = self.read_source(given)
        self.check_types(
            given.prompt_embeds, given.negative_prompt_embeds, given.reference_image, given.reference_embeds
        )
        given.reference_embeds = given.reference_embeds and as_lists(given.reference_embeds, stacklevel=6)
        batch_size = self.default_batch_size(
            given.prompt, given.prompt_embeds, given.reference_image, given.reference_embeds
        )
        if edit is not None and given.prompt is None and given.prompt_embeds is None:
            batch_size = max(batch_size, len(edit.images), len(edit.masks))
        size, output_size = self.sizes(given, edit)
        self.check_inputs(given, *size, batch_size)
        self.check_source(given, edit, batch_size)
        sizes = self.check_text(given, batch_size, size)
        self.check_ip_adapter(given.ip_adapter_image, given.ip_adapter_image_embeds)
        self.check_other_adapters(given.controlnet, given.control_image, given.t2i_adapter, given.t2i_image)
        compared = self.check_leak_guard(given.leak_guard, given.reference_image, given.output_type)
        if given.return_attribution and self.mg_adapter is None:
            raise ValueError(
                "`return_attribution` is about what an adapter does, which this pipeline was made without."
            )
        output_size = None if output_size == size else output_size
        self.settle_unadapted(given, batch_size, has_octaves=edit is None and output_size is not None)
        feature_scales = self.check_feature_guidance(given)
        self.check_reference(
            given.reference_image,
            given.reference_embeds,
            batch_size,
            feature_guided=feature_scales,
            is_composed=given.composed_start > 0,
        )
        self.check_layout(given, output_size or (size if given.composed_start > 0 else None))
        named = [*given_references(given.reference_image, given.reference_embeds), *self.context_granularities(given)]
        if named and self.mg_adapter is not None:
            self.mg_adapter.check_free(self.bare_unet)
        contrasts = self.check_contrasts(given.granularity_guidance, given.negative_reference_image, named, batch_size)
        strengths = self.read_strengths(given, batch_size)
        timesteps, steps = self.set_timesteps(given)
        if given.composed_start > 0:
            check_noising(self.scheduler, "`composed_start`", ", or set `composed_start=0`")
            timesteps, steps = skip_steps(self.scheduler, given.composed_start, timesteps)
        factors = self.step_factors(
            given.granularity_schedule, len(timesteps), [*named, *(given.negative_reference_image or {})]
        )
        guided = [False] * len(timesteps)
        if feature_scales:
            guided = self.guided_steps(given.feature_guidance_window, len(timesteps))
        return Call(
            given=given,
            size=size,
            batch_size=batch_size,
            timesteps=timesteps,
            num_inference_steps=steps,
            edit=edit,
            contrasts=contrasts,
            strengths=strengths,
            factors=factors,
            feature_scales=feature_scales,
            is_feature_guided=guided,
            compared=compared,
            output_size=output_size,
            sizes=sizes,
        )

    def check_components(self) -> None:
        """Raise a ValueError unless UNet, VAE, encoder and adapter fit each other; those that are `None` are left out."""
        check_components(self.unet, self.vae, self.mg_encoder, self.mg_adapter, self.mg_detail)

    def check_inputs(self, given: SimpleNamespace, height: int, width: int, batch_size: int) -> None:
        """Raise a ValueError for sizes, batches, outputs and callbacks that cannot work; the message says what can."""
        factor, num_images_per_prompt, latents = self.vae_scale_factor, given.num_images_per_prompt, given.latents
        if height <= 0 or width <= 0 or height % factor or width % factor:
            raise ValueError(f"`height` and `width` must be positive multiples of {factor}, got {height} and {width}.")
        check_counts(given, batch_size)
        count = batch_size * num_images_per_prompt
        shape = (count, self.vae.config.latent_channels, height // factor, width // factor)
        if latents is not None:
            check_tensor(latents, "latents", shape)
        self.check_callback(given.callback_on_step_end, given.callback_on_step_end_tensor_inputs)

    def default_size(self, height: int | None, width: int | None) -> tuple[int, int]:
        """Height and width in pixels; a missing one is the UNet's native size."""
        return default_size(self.unet, self.vae_scale_factor, height, width)

    def set_timesteps(self, given: SimpleNamespace) -> tuple[torch.Tensor, int]:
        """Timesteps of the run, and how many steps it counts."""
        if given.num_inference_steps == AUTO:
            given.num_inference_steps = self.default_num_inference_steps
        return set_steps(
            self.scheduler, given.num_inference_steps, self._execution_device, given.timesteps, given.sigmas
        )

    # -- 2. prepare ---------------------------------------------------------------------------------------------------
    def prepare(self, call: Call) -> None:
        """Read pictures and text, draw the noise, and fuse the references once for all steps."""
        given = call.given
        self.prepare_source(call)
        call.control = self.prepare_controlnet(call)
        call.t2i = self.prepare_t2i(call)
        call.features = dict(given.reference_embeds or {})
        asked = (*(call.output_size or call.size), call.batch_size, given.texture_scale, given.composed_start > 0)
        if given.reference_image is not None:
            call.features = self.encode_reference(given.reference_image, *asked)
        avoided = {n: one for n, one in (given.negative_reference_image or {}).items() if n in call.contrasts}
        if avoided:
            call.negatives = self.encode_reference(avoided, *asked)
        self.prepare_text(call)
        if given.ip_adapter_image is not None or given.ip_adapter_image_embeds is not None:
            call.image_embeds = self.prepare_ip_adapter_image_embeds(
                as_shown(given.ip_adapter_image),
                given.ip_adapter_image_embeds,
                self._execution_device,
                call.count,
                self.do_classifier_free_guidance,
            )
        self.prepare_start(call)
        # After the noise, which the same seed then gives without references, too.
        self.add_context(call)
        if given.return_attribution:  # rows that are looked at, but do not guide
            call.contrasts = {**dict.fromkeys(call.features, 0.0), **call.contrasts}
            call.differences = []
        if (call.features or call.contrasts) and self.mg_adapter is not None:
            call.conditioning = self.prepare_conditioning(call)
        if call.conditioning is None:
            call.contrasts = {}
        if given.composed_start > 0:
            self.start_composed(call)

    def encode_vae_image(
        self, image: torch.Tensor, count: int, generator: torch.Generator | list[torch.Generator] | None
    ) -> torch.Tensor:
        """Images (B, 3, H, W) in [-1, 1] to scaled latents (count, C, h, w), each image `count / B` times in a row."""
        dtype = self.vae.dtype
        image = image.to(self._execution_device, dtype)
        repeats = count // image.shape[0]
        with self.vae_in_float32(torch.float16, torch.bfloat16):
            image = image.to(self.vae.dtype)
            if isinstance(generator, list):
                image = image.repeat_interleave(repeats, dim=0)
                pairs = zip(image.split(1), generator, strict=True)
                latents = torch.cat([retrieve_latents(self.vae.encode(one), own) for one, own in pairs])
            else:
                latents = retrieve_latents(self.vae.encode(image), generator).repeat_interleave(repeats, dim=0)
        return self.vae.config.scaling_factor * latents.to(dtype)

    # -- 3. denoise ---------------------------------------------------------------------------------------------------
    def denoise(self, call: Call) -> None:
        """The loop over the timesteps, from `call.latents` to `call.latents`."""
        given, timesteps = call.given, call.timesteps
        options = StableDiffusionPipeline.prepare_extra_step_kwargs(self, given.generator, given.eta)
        num_warmup_steps = len(timesteps) - call.num_inference_steps * self.scheduler.order
        self._num_timesteps = len(timesteps)
        with self.attach(call.conditioning), self.progress_bar(total=call.num_inference_steps) as progress_bar:
            for i, t in enumerate(timesteps):
                if self.interrupt:
                    continue
                predict, update = functools.partial(self.predict_noise, call=call, i=i, t=t), None
                if call.is_feature_guided[i]:
                    noise_pred, update = self.guide_by_features(predict, call.latents, t, call.feature_guidance)
                else:
                    noise_pred = predict(call.latents)
                call.latents = self.scheduler.step(noise_pred, t, call.latents, **options, return_dict=False)[0]
                if update is not None:
                    call.latents = self.update_latents(call.latents, update, timesteps[i + 1 : i + 2])
                self.after_step(call, i)
                if given.callback_on_step_end is not None:
                    self.call_back(call, i, t)
                if i == len(timesteps) - 1 or ((i + 1) > num_warmup_steps and (i + 1) % self.scheduler.order == 0):
                    progress_bar.update()

    def predict_noise(self, latents: torch.Tensor, call: Call, i: int, t: torch.Tensor) -> torch.Tensor:
        """One call of the UNet, with guidance where it is on: classifier-free, and away from each contrast.

        How far each contrast lies is appended to `call.differences`, if there is such a list: (contrasts, B, h, w).

        Rows: unconditional, contrasts, conditional. The last come last, so that a callback may switch classifier-free
        guidance off in the middle: the last rows of what was prepared are what is left.
        """
        is_guided, count = self.do_classifier_free_guidance, latents.shape[0]
        copies = int(is_guided) + len(call.contrasts) + 1

        def rows_of(prepared: torch.Tensor) -> torch.Tensor:
            return torch.cat(
                [*prepared.split(count)[: int(is_guided)], *[prepared[-count:]] * (copies - int(is_guided))]
            )

        text = rows_of(call.prompt_embeds)
        added = {name: rows_of(tensor) for name, tensor in self.added_conditions(call).items()}
        model_input = self.scale_input(torch.cat([latents] * copies), t)
        controlled = self.controlnet_residuals(call.control[i], model_input, t, text, copies, added or None)
        unet_channels = self.unet_channels(call)
        if unet_channels is not None:
            model_input = torch.cat([model_input, torch.cat([unet_channels] * copies)], dim=1)
        attention_kwargs, residuals = self.cross_attention_kwargs, []
        if call.conditioning is not None:
            rows = model_input.shape[0]
            folded, residuals = call.conditioning.at_step(i)
            folded = {name: tuple(part[-rows:] for part in parts) for name, parts in folded.items()}
            attention_kwargs = {**(self.cross_attention_kwargs or {}), "ip_hidden_states": folded}
            # A fresh list: the UNet empties the one it gets.
            residuals = [residual[-rows:] for residual in residuals or []]
        if call.image_embeds is not None:
            added["image_embeds"] = [rows_of(embeds) for embeds in call.image_embeds]
        noise_pred = self.unet(
            model_input,
            t,
            encoder_hidden_states=text,
            cross_attention_kwargs=attention_kwargs,
            added_cond_kwargs=added or None,
            down_intrablock_additional_residuals=self.with_t2i(residuals, call.t2i[i], copies) or None,
            timestep_cond=guidance_embedding(self.unet, self.guidance_scale, model_input),
            **controlled,
            return_dict=False,
        )[0]
        return self.guide(noise_pred, list(call.contrasts.values()), call.differences)

    def guide(
        self, noise_pred: torch.Tensor, contrast_scales: list[float], differences: list[torch.Tensor] | None
    ) -> torch.Tensor:
        """The rows of `predict_noise` to one prediction (B, C, h, w): beyond the unconditional one, and each contrast."""
        is_guided = self.do_classifier_free_guidance
        *others, conditional = noise_pred.chunk(int(is_guided) + len(contrast_scales) + 1)
        guided = conditional
        if is_guided:
            unconditional = others.pop(0)
            guided = unconditional + self.guidance_scale * (conditional - unconditional)
        away = [conditional - other for other in others]
        for scale, difference in zip(contrast_scales, away, strict=True):
            guided = guided + scale * difference
        if differences is not None and away:
            differences.append(torch.stack([one.detach().square().mean(1).sqrt() for one in away]))
        return guided

    def scale_input(self, latents: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Latents as the UNet reads them; schedulers of flow matching leave them as they are."""
        scale = getattr(self.scheduler, "scale_model_input", None)
        return latents if scale is None else scale(latents, t)

    # -- 4. decode ----------------------------------------------------------------------------------------------------
    def finish(self, call: Call) -> MultiGranularityPipelineOutput | tuple:
        """Pictures of the latents, and what else was asked for."""
        image = self.decode(call)
        attribution = None
        if call.given.return_attribution:
            attribution = self.attribute(list(call.contrasts), call.differences, call.edit and call.edit.share)
        self.maybe_free_model_hooks()
        if not call.given.return_dict:
            return (image, None, attribution) if call.given.return_attribution else (image, None)
        return MultiGranularityPipelineOutput(images=image, nsfw_content_detected=None, attribution=attribution)
