"""Feature guidance: step 4 at inference, theta <- theta - alpha grad L, theta being the picture."""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ..features import Features
from .components import check_scale
from .references import given_references, has_region


FEATURE_STEP = 0.1  # root mean square of a move of the latents by feature guidance at scale 1 and full noise
DECODER_GRID = 2**16  # steps of the linear decoder's weights in a unit
FEATURE_WEIGHTS = {"texture": 2.0}  # its gradient is spread over fine detail, which the denoiser resists most


@dataclass
class FeatureGuidance:
    """What `guide_by_features` needs in every step.

    Args:
        scales: by granularity.
        targets: from `MGEncoder.guidance_targets`.
        decoder: how the picture is looked at, see `decode_for_guidance`.
        is_full: whether the gradient goes on through the UNet.
        mask: (1 or B, 1, height, width), where the picture counts; `None` is everywhere.
    """

    scales: dict[str, float]
    targets: dict[str, Any]
    decoder: Any
    is_full: bool
    mask: torch.Tensor | None = None


def unit_root_mean_square(gradient: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) in float32 with a root mean square of 1 for each sample; zeros stay zeros."""
    gradient = gradient.float()  # in half precision the floor would be 0
    return gradient / gradient.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-12)


class FeatureGuided:
    """Guidance by the features of references, which needs no training."""

    def check_feature_guidance(self, arguments: SimpleNamespace) -> dict[str, float]:
        """`feature_guidance_scale` of the granularities that have a reference, those of 0 left out.

        Raises:
            ValueError: for scales, windows and decoders that are none, for a granularity without a reference, for
                references with regions, and for schedulers whose noise level cannot be told.
        """
        feature_guidance_scale, window = arguments.feature_guidance_scale, arguments.feature_guidance_window
        decoder, reference_embeds = arguments.feature_guidance_decoder, arguments.reference_embeds
        given = given_references(arguments.reference_image, reference_embeds)
        is_named = isinstance(feature_guidance_scale, dict)
        scales = dict(feature_guidance_scale) if is_named else dict.fromkeys(given, feature_guidance_scale)
        if is_named and not set(scales) <= set(given):
            raise ValueError(
                f"`feature_guidance_scale` names {sorted(set(scales) - set(given))}, of which there is no reference; "
                f"given are {sorted(given)}."
            )
        for name, scale in scales.items():
            check_scale(f"feature_guidance_scale[{name!r}]" if is_named else "feature_guidance_scale", scale)
        scales = {name: float(scale) for name, scale in scales.items() if scale > 0}
        if not scales:
            return {}
        if torch.is_inference_mode_enabled():
            raise ValueError(
                "Feature guidance follows gradients, which `torch.inference_mode()` rules out. Call the pipeline outside of it, "
                "or under `torch.no_grad()`, or set `feature_guidance_scale=0`."
            )
        if self.mg_encoder is None:
            raise ValueError(
                "Feature guidance needs the component `mg_encoder`, which this pipeline was made without."
            )
        if not (isinstance(window, (tuple, list)) and len(window) == 2 and 0 <= window[0] < window[1] <= 1):
            raise ValueError(f"`feature_guidance_window` is (start, end) with 0 <= start < end <= 1, got {window!r}.")
        if decoder not in ("linear", "vae") and not hasattr(decoder, "decode"):
            raise ValueError(
                f'`feature_guidance_decoder` must be "linear", "vae" or a model that decodes latents, such as '
                f"`AutoencoderTiny`; got {decoder!r}."
            )
        if not isinstance(arguments.feature_guidance_full, (bool, np.bool_)):
            raise ValueError(f"`feature_guidance_full` is true or false, got {arguments.feature_guidance_full!r}.")
        arguments.feature_guidance_full = bool(arguments.feature_guidance_full)
        for name in scales:
            is_regional = has_region(given[name]) if not reference_embeds else "region" in given[name][0]
            if is_regional:
                raise ValueError(
                    f"Feature guidance compares whole pictures; the {name} reference has a region. Set its scale to 0, "
                    f"or leave the region out."
                )
        is_told = hasattr(self.scheduler, "alphas_cumprod") or self.is_flow_matching
        if not is_told or self.scheduler.config.get("timestep_type") == "continuous":
            raise ValueError(
                f"Feature guidance needs the noise level of each step, which {type(self.scheduler).__name__} does not "
                f"tell by its timesteps. Use for example DDIMScheduler, EulerDiscreteScheduler, "
                f"DPMSolverMultistepScheduler or FlowMatchEulerDiscreteScheduler, or set `feature_guidance_scale=0`."
            )
        kind = "flow_prediction" if self.is_flow_matching else self.scheduler.config.prediction_type
        if kind not in ("epsilon", "v_prediction", "sample", "flow_prediction"):
            raise ValueError(f"Feature guidance does not know how to read predictions of the type {kind!r}.")
        return scales

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

    @property
    def is_flow_matching(self) -> bool:
        """Whether latents are (1 - sigma) * picture + sigma * noise and the UNet predicts noise minus picture."""
        config = self.scheduler.config
        return type(self.scheduler).__name__.startswith("FlowMatch") or bool(config.get("use_flow_sigmas", False))

    def noise_level(self, t: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Shares of picture and noise in what the UNet reads at timestep t, which may lie between two; `None` is the end."""
        if t is None:
            return torch.tensor(1.0, dtype=torch.float32), torch.tensor(0.0, dtype=torch.float32)
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

    @torch.no_grad()
    def fit_linear_decoder(self) -> torch.Tensor:
        """The linear map from a latent cell to its block of pixels that comes nearest to the VAE: (3 * f * f, C + 1).

        Fitted once for a VAE, by least squares over clouds of random colors. (Linear previews of latents: Vass, "Explaining
        the SDXL latent space", huggingface.co/blog/TimothyAlexisVass/explaining-the-sdxl-latent-space.)
        """
        if getattr(self, "_linear_decoder", (None, None))[0] is self.vae:
            return self._linear_decoder[1].to(self._execution_device)
        with torch.autocast(self._execution_device.type, enabled=False):  # it is kept for calls outside of it
            weight = self._fitted_decoder().to(self._execution_device)
        self._linear_decoder = (self.vae, weight)
        return weight

    def _fitted_decoder(self) -> torch.Tensor:
        factor, generator = self.vae_scale_factor, torch.Generator().manual_seed(0)
        clouds = torch.zeros(8, 3, 16 * factor, 16 * factor, dtype=torch.float32)
        for cells in (1, 2, 4, 8, 16, 16 * factor):
            noise = torch.randn(8, 3, cells, cells, generator=generator, dtype=torch.float32)
            clouds += F.interpolate(noise, size=clouds.shape[2:], mode="bilinear") / (1 + cells / 8)
        clouds = torch.tanh(clouds / 2)
        encoded = self.vae.encode(clouds.to(self._execution_device, self.vae.dtype))
        latents = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
        cells = F.pad(
            (latents * self.vae.config.scaling_factor).float().cpu().movedim(1, 3).flatten(0, 2), (0, 1), value=1.0
        )
        blocks = F.pixel_unshuffle(clouds, factor).movedim(1, 3).flatten(0, 2)
        # The last bits of a solution depend on where its tensors lie in memory, which differs from process to process.
        weight = torch.linalg.lstsq(cells.double(), blocks.double()).solution.T
        return (weight * DECODER_GRID).round().div(DECODER_GRID).float().contiguous()

    def decode_for_guidance(self, latents: torch.Tensor, decoder: Any) -> torch.Tensor:
        """Latents (B, C, h, w) to pictures (B, 3, H, W) in about [0, 1], differentiable."""
        if decoder == "linear":
            weight = self.fit_linear_decoder()
            blocks = F.conv2d(latents.float(), weight[:, :-1, None, None], weight[:, -1])
            return F.pixel_shuffle(blocks.float(), self.vae_scale_factor) / 2 + 0.5
        model = self.vae if decoder == "vae" else decoder
        scaled = (latents / model.config.scaling_factor).to(model.dtype)
        return model.decode(scaled, return_dict=False)[0].float() / 2 + 0.5

    def prepare_feature_guidance(
        self,
        scales: dict[str, float],
        features: Features,
        size: tuple[int, int],
        num_images_per_prompt: int,
        decoder: Any,
        is_full: bool,
        mask: torch.Tensor | None = None,
    ) -> FeatureGuidance | None:
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
        return FeatureGuidance(scales, targets, decoder, is_full, mask)

    def prepare_guidance(self, call: Any) -> None:
        """Feature guidance of a call, in an edit of what is repainted alone."""
        given, mask = call.given, None
        if call.edit is not None:
            mask = call.edit.init_mask.repeat_interleave(call.count // len(call.edit.init_mask), dim=0)
        call.feature_guidance = self.prepare_feature_guidance(
            call.feature_scales,
            call.features,
            call.size,
            given.num_images_per_prompt,
            given.feature_guidance_decoder,
            given.feature_guidance_full,
            mask,
        )

    def guide_by_features(
        self,
        predict: Callable[[torch.Tensor], torch.Tensor],
        latents: torch.Tensor,
        t: torch.Tensor,
        guidance: FeatureGuidance,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A prediction, and the update of the picture x0 that it stands for: down the distances of features.

        L = sum over granularities of ||features(x0) - features(reference)||^2. Every granularity's gradient in pixels is
        brought to unit root mean square, so that one scale serves all of them, in all steps and models; the step is
        scale times the noise level times 0.1. The gradient stops at x0 (MPGD, He et al., arXiv 2311.16424), or goes on
        through the UNet to the latents (FreeDoM, Yu et al., arXiv 2303.09833).

        Args:
            predict: latents to the prediction of the UNet.

        Returns:
            the prediction, and the update, of the shape of the latents.
        """
        is_full = guidance.is_full
        with torch.set_grad_enabled(is_full):
            source = latents.detach().requires_grad_(is_full)
            noise_pred = predict(source)
        with torch.enable_grad():
            x0 = self.predicted_original(self.scale_input(source, t), t, noise_pred)
            if not is_full:
                source = x0 = x0.detach().requires_grad_(True)
            image = self.decode_for_guidance(x0, guidance.decoder)
            pixels = image.detach().requires_grad_(True)
            found = self.mg_encoder.feature_distances(pixels, guidance.targets, guidance.mask)
            descent = torch.zeros_like(pixels)
            for name, scale in guidance.scales.items():
                (gradient,) = torch.autograd.grad(found[name].sum(), pixels, retain_graph=True)
                descent = descent + FEATURE_WEIGHTS.get(name, 1.0) * scale * unit_root_mean_square(gradient)
            (update,) = torch.autograd.grad(image, source, descent)
        if guidance.mask is not None:  # of where the gradient is, not of the whole picture
            descent = descent * guidance.mask.mean((1, 2, 3), keepdim=True).sqrt()
        length = descent.square().mean((1, 2, 3), keepdim=True).sqrt()
        sigma = self.noise_level(t)[1].to(length)
        update = unit_root_mean_square(update) * length * sigma * FEATURE_STEP
        return noise_pred.detach(), -update.to(latents.dtype)

    def update_latents(self, latents: torch.Tensor, update: torch.Tensor, next_timestep: torch.Tensor) -> torch.Tensor:
        """Latents after a step, their picture updated; `next_timestep` (1,) is their noise level, or (0,) at the end."""
        # Schedulers that start at another deviation than 1 keep the picture unscaled in the latents.
        is_unscaled = float(getattr(self.scheduler, "init_noise_sigma", 1.0)) != 1.0
        share = self.noise_level(next_timestep[0] if len(next_timestep) else None)[0]
        return latents + (1.0 if is_unscaled else share.to(latents)) * update
