"""A composed start: denoising begins with the composition of the references under noise, and skips the steps before.

(SDEdit, Meng et al., arXiv 2108.01073, from a picture that the references ask for.) It needs no training, as feature guidance
does not: together they are what references do where no trained adapter brings them into the UNet.
"""

import warnings
from collections.abc import Collection, Sequence
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F

from ..features import Features, has_layout
from .components import AUTO, is_finite
from .generating import forked
from .references import given_references, is_regional
from .sketched import SKETCHED_START, is_sketched_whole


COMPOSED_START = 0.5  # without an adapter, where none is named; measured, see docs/your-checkpoint.md
FEATURE_GUIDANCE = {
    "color": 0.5,
    "texture": 2.0,
    "shape": 0.25,
}  # the same: colors and regions are there from the start


class ComposedStart:
    """References without training, and what "auto" stands for."""

    def settle_unadapted(self, given: SimpleNamespace, batch_size: int, has_octaves: bool = False) -> None:
        """Replace "auto" of composed start and feature guidance: both are on where there is no adapter for references.

        Args:
            has_octaves: whether a detail network goes on from the picture of the UNet.

        Raises:
            ValueError: for a composed start that is no number in [0, 1], or has nothing to be composed of.
        """
        found = given_references(given.reference_image, given.reference_embeds)
        is_alone = bool(found) and self.mg_encoder is not None and self.mg_adapter is None
        if found and self.mg_adapter is not None and self.mg_adapter.is_untrained:
            warnings.warn(
                "The adapter was never trained: references do nothing through it. Train it (stage `adapter`), or pass "
                "`mg_adapter=None`, where composed start and feature guidance bring references in.",
                stacklevel=5,
            )
        start = given.composed_start
        if start == AUTO:
            can_start = getattr(given, "strength", 1) == 1 and _has_layout(given.reference_embeds)
            start = COMPOSED_START if is_alone and can_start else 0.0
            if has_octaves and self._is_spared(given, batch_size):
                start = SKETCHED_START
        elif check_share(start, f', or "{AUTO}"') > 0:
            self._check_composed_start(given, found)
        given.composed_start = float(start)
        if given.feature_guidance_scale == AUTO:
            given.feature_guidance_scale = self._guidance_alone(given, found, batch_size) if is_alone else 0.0

    def _is_spared(self, given: SimpleNamespace, batch_size: int) -> bool:
        """Whether the last of a distilled UNet's steps are enough: the sketch is whole, and octaves above keep its slow colors.

        A UNet of many steps takes them all: who asks for it wants what it paints.
        """
        if self.mg_adapter is None or not self.reads_guidance or given.output_type == "latent":
            return False
        is_guided = isinstance(given.feature_guidance_scale, dict) or given.feature_guidance_scale not in (AUTO, 0)
        if is_guided or not hasattr(self.scheduler, "add_noise"):
            return False
        names = self.mg_adapter.config.granularities
        strengths = self.mg_adapter.strengths(given.granularity_scale, batch_size)
        places = [names.index(name) for name in ("color", "shape") if name in names]
        return len(places) == 2 and is_sketched_whole(given, strengths[:, places])

    def _guidance_alone(self, given: SimpleNamespace, found: dict[str, Any], batch_size: int) -> dict[str, float]:
        """What "auto" guides by: references of the whole picture that have any strength."""
        names, strengths = (
            self.mg_encoder.config.granularities,
            self.mg_encoder.strengths(given.granularity_scale, batch_size),
        )
        is_on = dict(zip(names, (strengths > 0).any(0).tolist(), strict=True))
        return {
            name: FEATURE_GUIDANCE[name]
            for name, one in found.items()
            if is_on.get(name) and not is_regional(one, given.reference_embeds)
        }

    def _check_composed_start(self, given: SimpleNamespace, found: dict[str, Any]) -> None:
        if not found or self.mg_encoder is None:
            lacking = "the component `mg_encoder`, which is not there" if found else "references, and got none"
            raise ValueError(f"`composed_start` needs {lacking}. Give them, or set it to 0.")
        if getattr(given, "strength", 1) < 1:
            raise ValueError(
                "`composed_start` takes the place of what is under the mask, of which a `strength` below 1 keeps some. Set one "
                "of them: `strength=1`, or `composed_start=0`."
            )
        if not _has_layout(given.reference_embeds):
            raise ValueError(
                "`reference_embeds` hold nothing to be composed. Make them with `encode_reference(..., is_composed=True)`, or "
                "pass the references themselves."
            )

    def read_strengths(self, given: SimpleNamespace, batch_size: int) -> torch.Tensor | None:
        """`granularity_scale` as (batch_size, G), where something reads it. Without any strength nothing is composed.

        Raises:
            ValueError: for strengths that are none, and a composed start of which some pictures of a batch have nothing.
        """
        found = given_references(given.reference_image, given.reference_embeds)
        reader = self.mg_encoder if self.mg_adapter is None and found else self.mg_adapter
        if reader is None:
            return None
        strengths = reader.strengths(given.granularity_scale, batch_size)
        if reader is self.mg_adapter:
            reader.block_scales(given.granularity_scale)  # checks them
        if not is_composed(given.composed_start, strengths, reader.config.granularities, found):
            given.composed_start = 0.0
        return strengths

    def start_composed(self, call: Any) -> None:
        """`call.latents` from the composition, under the noise of the first step; in an edit inside the mask."""
        image = F.interpolate(self.composed_image(call), call.size, mode="area")
        if call.edit is not None:
            around, hole = (
                one.to(image).repeat_interleave(call.count // len(one), dim=0)
                for one in (call.edit.init_image, call.edit.init_mask)
            )
            image = torch.where(hole > 0, image, around)
        latents = self.encode_vae_image(image, call.count, forked(call.given.generator)).to(call.noise)
        call.latents = self.add_noise(latents, call.noise, call.timesteps[:1].repeat(call.count))

    def composed_image(self, call: Any) -> torch.Tensor:
        """(B, 3, H, W) in [-1, 1]: of what the adapter lays out or, without one, of the features."""
        given, generator = call.given, forked(call.given.generator)
        # What surroundings lend in an edit is no reference: a sketch of them has colors of its own.
        is_plain = _has_layout(call.features) and not any(
            "region" in p for parts in call.features.values() for p in parts
        )
        layout = call.conditioning.start if call.conditioning is not None and is_plain else None
        if layout is not None:
            return layout.composed(generator)
        features = {name: parts for name, parts in call.features.items() if _has_layout({name: parts})}
        reader = self.mg_encoder if self.mg_adapter is None else self.mg_adapter
        by_name = dict(zip(reader.config.granularities, call.strengths.unbind(1), strict=True))
        ones = torch.ones_like(call.strengths[:, 0])
        scales = torch.stack([by_name.get(name, ones) for name in self.mg_encoder.config.granularities], 1)
        scales = scales.repeat_interleave(given.num_images_per_prompt, dim=0)
        return self.mg_encoder.compose(features, call.layout_size, scales, call.count, given.assignment, generator)

    def add_noise(self, latents: torch.Tensor, noise: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return add_noise(self.scheduler, latents, noise, timestep)


def check_share(start: Any, otherwise: str = "") -> float:
    """`composed_start`, or a ValueError if it is no number in [0, 1]."""
    if not is_finite(start) or not 0 <= start <= 1:
        raise ValueError(
            f"`composed_start` must be a number in [0, 1] (0 is off, at 1 one step is left){otherwise}; got {start!r}."
        )
    return float(start)


def is_composed(start: float, strengths: torch.Tensor, granularities: Sequence[str], found: Collection[str]) -> bool:
    """Whether references of these names have any strength (B, G), with which a call can start.

    Raises:
        ValueError: if that is so of some pictures of a call that starts composed, and of others not.
    """
    places = [place for place, name in enumerate(granularities) if name in found]
    rows = (strengths[:, places] > 0).any(1)
    if start > 0 and rows.any() and not rows.all():
        raise ValueError(
            f"`composed_start` skips steps of all pictures of a call, and prompts {(~rows).nonzero().flatten().tolist()} have "
            f"references of strength 0 only. Call them apart, or set `composed_start=0`."
        )
    return bool(rows.any())


def skip_steps(scheduler: Any, start: float, timesteps: torch.Tensor) -> tuple[torch.Tensor, int]:
    """The timesteps, and the number of steps, that a composed start leaves of those of a scheduler; at least one."""
    # PNDM as Stable Diffusion has it takes its second timestep twice.
    is_repeating = type(scheduler).__name__ == "PNDMScheduler" and scheduler.config.skip_prk_steps
    steps = len(timesteps) - 1 if is_repeating else -(-len(timesteps) // scheduler.order)
    skipped = min(round(start * steps), steps - (2 if is_repeating else 1))
    if skipped <= 0:
        return timesteps, steps
    if is_repeating:
        left = timesteps[skipped + 1 :]
        return torch.cat([left[:2], left[1:]]), steps - skipped
    first = skipped * scheduler.order
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    return timesteps[first:], steps - skipped


def add_noise(scheduler: Any, latents: torch.Tensor, noise: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
    """As of the scheduler; those of flow matching call it by another name."""
    if hasattr(scheduler, "add_noise"):
        return scheduler.add_noise(latents, noise, timestep)
    return scheduler.scale_noise(latents, timestep, noise)


def _has_layout(embeds: Features | None) -> bool:
    """Whether features, if they are given, were made to be composed."""
    return all(has_layout(name, part) for name, parts in (embeds or {}).items() for part in parts)
