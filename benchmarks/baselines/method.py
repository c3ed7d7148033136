"""A trained baseline as the callables that the bench asks for: DDIM with classifier-free guidance, as in our pipelines."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from mg_diffusion.granularities import GRANULARITIES
from mg_diffusion.mg_bench.methods import Pictures, References

from .networks import Baseline, IPAdapterStyle


class BaselineMethod:
    """Generates and edits with a `Baseline`.

    Args:
        components: of the base, as of `MGPipeline.components`.
        settings: `num_inference_steps` and `guidance_scale`.
    """

    def __init__(self, baseline: Baseline, components: Mapping[str, Any], settings: Mapping[str, Any]):
        self.baseline, self.vae = baseline.eval(), components["vae"]
        self.scheduler = copy.deepcopy(components["scheduler"])
        self.settings, self.scales = dict(settings), dict.fromkeys(GRANULARITIES, 1.0)
        self.progress = tqdm(desc="pictures", unit="", delay=1)  # an error that comes first has its line to itself
        tokenizer, text_encoder = components["tokenizer"], components["text_encoder"]
        tokens = tokenizer(
            [""], padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
        )
        with torch.no_grad():
            self.text = text_encoder(tokens.input_ids).last_hidden_state

    def generate(
        self, *, seeds: Sequence[int], scales: Mapping[str, float] | None = None, **references: Pictures
    ) -> list[np.ndarray]:
        side = np.shape(next(iter(references.values()))[0])[:2]
        images, masks = torch.zeros(len(seeds), 3, *side), torch.ones(len(seeds), 1, *side)
        return self._sample(images, masks, references, scales or {}, seeds)

    def edit(
        self, images: Pictures, masks: Pictures, references: References, seeds: Sequence[int]
    ) -> list[np.ndarray]:
        holes = torch.from_numpy(np.stack(masks)).float().unsqueeze(1)
        made = self._sample(_batch(images), holes, references, {}, seeds)
        # What lies outside comes back as it was, as our own pipeline gives it back.
        return [
            np.where(mask[..., None], picture, image) for image, mask, picture in zip(images, masks, made, strict=True)
        ]

    @torch.no_grad()
    def _sample(
        self,
        images: torch.Tensor,
        masks: torch.Tensor,
        references: References,
        scales: Mapping[str, float],
        seeds: Sequence[int],
    ) -> list[np.ndarray]:
        count, guidance = len(seeds), self.settings["guidance_scale"]
        strengths = torch.tensor(
            [[{**self.scales, **scales}[name] if name in references else 0.0 for name in GRANULARITIES]] * count
        )
        if isinstance(self.baseline, IPAdapterStyle):
            self.baseline.set_scale(strengths[0].tolist())
        blank = torch.zeros_like(images)
        pictures = {name: _batch(references[name]) if name in references else blank for name in GRANULARITIES}
        both = {name: torch.cat([picture, picture]) for name, picture in pictures.items()}
        condition = self.baseline.encode(both, torch.cat([torch.zeros_like(strengths), strengths]))
        masked = self.vae.encode((images * 2 - 1) * (1 - masks)).latent_dist.mode() * self.vae.config.scaling_factor
        cells = F.max_pool2d(masks, masks.shape[2] // masked.shape[2])
        latents = torch.stack(
            [torch.randn(masked.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        )
        self.scheduler.set_timesteps(self.settings["num_inference_steps"])
        for t in self.scheduler.timesteps:
            unet_input = torch.cat([self.scheduler.scale_model_input(latents, t), cells, masked], 1)
            predicted = self.baseline(
                torch.cat([unet_input, unet_input]), t, self.text.expand(2 * count, -1, -1), condition
            )
            base, steered = predicted.chunk(2)
            latents = self.scheduler.step(base + guidance * (steered - base), t, latents).prev_sample
        decoded = self.vae.decode(latents / self.vae.config.scaling_factor).sample
        self.progress.update(count)
        return list((decoded / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy())


def _batch(pictures: Pictures) -> torch.Tensor:
    return torch.from_numpy(np.stack(pictures)).float().permute(0, 3, 1, 2).contiguous()
